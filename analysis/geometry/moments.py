"""Means, products and norms of centred features, summed over images in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.geometry.stream import Array, Source, Tick, blocks, width

# Shown every block on the way, with the rows that it is.
See = Callable[[slice, Array], None]


@dataclass(frozen=True)
class Moments:
    """Sums over the images of a depth, with a_i = x_i - mean and p_i = |a_i|^2.

    mean: [d]. scatter: sum of a_i a_i^T, [d, d]. total: sum of p_i. fourth: sum of p_i^2. third: sum of p_i a_i, [d].
    """

    n: int
    mean: Array
    scatter: Array
    total: float
    fourth: float
    third: Array

    @property
    def d(self) -> int:
        return len(self.mean)

    @property
    def is_constant(self) -> bool:
        """Whether no feature differs from image to image."""
        return self.total == 0


def column_mean(x: Source, tick: Tick | None = None, see: See | None = None) -> Array:
    """Return the mean of each feature, [d]; that of a constant feature is its value to the bit.

    see: shown the features as they are.

    Deviations from the first row are summed: a feature that has no spread has none afterwards, however it rounds.
    """
    first = np.asarray(x[0:1], np.float64).ravel()
    total = np.zeros(width(x))
    for rows, block in blocks(x, None, tick):
        total += (block - first).sum(0)
        if see is not None:
            see(rows, block)
    return np.asarray(first + total / len(x))


def moments(x: Source, mean: Array | None = None, tick: Tick | None = None, see: See | None = None) -> Moments:
    """Return the sums over the images of features [n, d]; mean: theirs, where it is known; see: shown them centred."""
    mean = column_mean(x) if mean is None else mean
    scatter, third = np.zeros((len(mean), len(mean))), np.zeros(len(mean))
    total = fourth = 0.0
    for rows, a in blocks(x, mean, tick):
        p = np.einsum("nd,nd->n", a, a)
        scatter += a.T @ a
        third += p @ a
        total += float(p.sum())
        fourth += float(p @ p)
        if see is not None:
            see(rows, a)
    return Moments(len(x), mean, scatter, total, fourth, third)
