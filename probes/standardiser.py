"""Owns the scale of features: centred to mean 0 and scaled to deviation 1 on the data that a probe is fitted to."""

from __future__ import annotations

import numpy as np


class Standardiser:
    """Centres and scales each feature by the mean and standard deviation of the data it was made from.

    A constant feature has deviation 0; it is only centred, and so becomes 0.
    """

    def __init__(self, x: np.ndarray):
        self.mean = x.mean(0, dtype=np.float64)
        deviation = x.std(0, dtype=np.float64)
        self.scale = np.where(deviation > 0, deviation, 1.0)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return (x - mean) / deviation, float32 [n, d]."""
        z = np.subtract(x, self.mean.astype(np.float32), dtype=np.float32)
        z /= self.scale.astype(np.float32)
        return z
