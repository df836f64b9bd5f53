"""Shares of images with their intervals: what every measure of single images is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from probes.results.intervals import wilson_interval


@dataclass(frozen=True)
class Share:
    """A share of n images with its 95% interval over images; missing (NaN) where there is no image."""

    value: float
    low: float
    high: float
    n: int


def share(values: np.ndarray) -> Share:
    """Return the mean of shares in [0, 1] or outcomes, [n], with Wilson's interval.

    It is exact in kind for outcomes, and too wide for shares between 0 and 1, whose variance is less.
    """
    n = len(values)
    if not n:
        return Share(math.nan, math.nan, math.nan, 0)
    mean = float(np.mean(values))
    return Share(mean, *wilson_interval(mean, n), n)
