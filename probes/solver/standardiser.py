"""Standardisation of features: mean and deviation of the data that is fitted, measured block by block."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from probes.solver.rows import Features, Source, row_blocks
from probes.solver.samples import Samples


class Standardiser:
    """Centres and scales each feature by the mean and standard deviation of the data it was made from.

    A constant feature has deviation 0; it is only centred, and so becomes 0.

    Args:
        x: features [n, d] or rows [n, ...] that are read on demand, as in `path.fit_path`.
        device: where to compute.
        is_shared: whether the data are the rows of all ranks, of which x are those that this one holds.

    Attributes:
        mean, scale: [d] float64.

    Raises:
        UserError: where features are not finite; `where` is put in front of the message.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    def __init__(self, x: Source, device: str | torch.device = "cpu", where: str = "", *, is_shared: bool = False):
        features = Features(x, where=where)
        samples = Samples(features.n, is_shared=is_shared)
        rows, there = row_blocks(features.n, features.d), torch.device(device)
        # From the first row, so that the squares of a large mean do not hide a small deviation.
        origin = features.block(slice(0, 1), there).double()
        (origin,) = samples.add_up(origin if samples.first == 0 else torch.zeros_like(origin))
        total, square = torch.zeros(2, features.d, dtype=torch.float64, device=there)
        finite = features.finite()
        for part in rows:
            moved = finite.see(features.block(part, there)).double() - origin
            total += moved.sum(0)
            square += moved.square_().sum(0)
        samples.all_of(finite.require)
        total, square = samples.add_up(total, square)
        mean = total / samples.n
        deviation = (square / samples.n - mean.square()).clamp(min=0).sqrt().cpu().numpy()
        self.mean = (origin[0] + mean).cpu().numpy()
        self.scale = np.where(deviation > 0, deviation, 1.0)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return (x - mean) / deviation, float32 [n, d]."""
        z = np.subtract(x, self.mean.astype(np.float32), dtype=np.float32)
        z /= self.scale.astype(np.float32)
        return z
