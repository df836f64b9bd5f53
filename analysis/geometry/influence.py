"""Intervals over the images of one network, from what each image adds to a measure.

A measure is a function of the distribution of the images. What it changes by when one image counts a little more is
that image's influence g_i; to first order the bootstrap's standard error over images is sd(g) / sqrt(n), which needs
one pass over the images and no resample (the infinitesimal jackknife: Efron and Tibshirani 1993, chapters 21 and 22).
Resampling itself would be wrong for most measures here: an image that is drawn twice is its own nearest neighbour, and
lowers the rank of what is drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from analysis.geometry.stream import Array
from probes.results.intervals import CONFIDENCE, wilson_interval

_Z = float(special.ndtri((1 + CONFIDENCE) / 2))


@dataclass(frozen=True)
class Measured:
    """A measure of n images with its 95% interval over images; NaN is what cannot be told from them.

    error: standard error over images; NaN where there is no interval.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    error: float = math.nan


def interval(value: float, error: float, n: int, least: float = -math.inf, most: float = math.inf) -> Measured:
    """Return a measure of n images with its normal interval, which ends where the measure's range does."""
    if not math.isfinite(value):
        return Measured(math.nan, n=n)
    if math.isnan(error):
        return Measured(value, n=n)
    return Measured(value, max(least, value - _Z * error), min(most, value + _Z * error), n, error)


class Influences:
    """Gathers the influences of images block by block: their number, mean and sum of squares about it."""

    def __init__(self) -> None:
        self.n, self.mean, self._squares = 0, 0.0, 0.0

    def add(self, influences: Array) -> None:
        """Count a block of influences [m], in the unit of the measure; a constant added to all changes nothing."""
        m = len(influences)
        mean = float(np.mean(influences))
        # The update of Chan, Golub and LeVeque 1983, in which nothing large is subtracted.
        self._squares += float(((influences - mean) ** 2).sum()) + (mean - self.mean) ** 2 * self.n * m / (self.n + m)
        self.mean += (mean - self.mean) * m / (self.n + m)
        self.n += m

    def measured(self, value: float, least: float = -math.inf, most: float = math.inf) -> Measured:
        """Return a measure with its interval."""
        error = math.sqrt(self._squares / (self.n - 1) / self.n) if self.n > 1 else math.nan
        return interval(value, error, self.n, least, most)

    def average(self, least: float = -math.inf, most: float = math.inf) -> Measured:
        """Return the mean of what was added, as a measure that is a mean over images."""
        return self.measured(self.mean, least, most)


def share(count: int, n: int) -> Measured:
    """Return the share of images of which something is true, with Wilson's interval."""
    value = count / n
    low, high = wilson_interval(value, n)
    return Measured(value, float(low), float(high), n, math.sqrt(value * (1 - value) / n))
