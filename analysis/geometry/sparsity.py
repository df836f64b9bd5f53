"""How sparse the features of a depth are: zeros, Hoyer's sparsity, and units that are the same for every image."""

from __future__ import annotations

import math

import numpy as np

from analysis.geometry.influence import Influences, Measured
from analysis.geometry.stream import Array, Source, blocks, width


class Sparsity:
    """Counts zeros, sparsity and spread of features block by block."""

    def __init__(self, first: Array):
        """first: features [d] of the first image."""
        self._first, self._same = first, np.ones(len(first), bool)
        self._zeros, self._hoyer = Influences(), Influences()

    def weigh(self, x: Array) -> None:
        """Count images by their features [m, d], not centred."""
        self._same &= (x == self._first).all(0)
        self._zeros.add((x == 0).mean(1))
        if (d := x.shape[1]) > 1:
            top = np.abs(x).max(1, keepdims=True)
            y = x / np.where(top > 0, top, 1)  # squares of tiny features would be 0
            ratio = np.abs(y).sum(1) / np.sqrt(np.maximum(np.einsum("nd,nd->n", y, y), 1e-300))
            self._hoyer.add(np.where(top[:, 0] > 0, (math.sqrt(d) - ratio) / (math.sqrt(d) - 1), 0.0))

    def measured(self) -> dict[str, Measured]:
        """Return zeros and hoyer, means over images in [0, 1], and dead.

        zeros: the share of an image's features that are 0. hoyer: (sqrt(d) - |x|_1 / |x|_2) / (sqrt(d) - 1), Hoyer
        2004; an image without a feature other than 0 counts as 0, and one feature alone gives NaN. dead: the share of
        features that have one value for all images; it has no interval, since the most extreme of what was seen tells
        nothing of what was not.
        """
        n = self._zeros.n
        return {
            "zeros": self._zeros.average(0.0, 1.0),
            "hoyer": self._hoyer.average(0.0, 1.0) if self._hoyer.n else Measured(math.nan, n=n),
            "dead": Measured(float(self._same.mean()), n=n),
        }


def sparsity(x: Source) -> dict[str, Measured]:
    """Return the share of zeros, Hoyer's sparsity and the share of dead units of features [n, d]."""
    width(x)
    found = Sparsity(np.asarray(x[0:1], np.float64).ravel())
    for _, block in blocks(x):
        found.weigh(block)
    return found.measured()
