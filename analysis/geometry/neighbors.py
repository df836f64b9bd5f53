"""Intrinsic dimension from distances to the nearest images: TwoNN, and the maximum likelihood of Levina and Bickel."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from analysis.geometry.influence import Measured, interval
from analysis.geometry.stream import Array

# Neighbours that the maximum likelihood reads, the number of Levina and Bickel's examples' upper end.
NEIGHBORS = 20
# Nearer ones by the fast form of a distance, of which the exact form takes NEIGHBORS.
_SPARE = 8
_ROWS = 64  # images of which candidates are compared at a time: 64 x 28 x 1,024 values are 15 MB


# Of the ratios of TwoNN the largest tenth counts as no larger than the next, as Facco et al. leave it out.
_KEPT = 0.9


def intrinsic_dimensions(x: NDArray[np.floating]) -> dict[str, Measured]:
    """Return two estimates of the intrinsic dimension of features [n, d], each in (0, inf).

    With r_k the distance to the k-th nearest other image, r_2 / r_1 has Pareto's distribution with the dimension as
    its exponent (Facco et al. 2017). twonn: the exponent of maximum likelihood, without its bias, where the largest
    tenth of the ratios is censored at the next: (m - 1) / (sum of the m least ln r_2 / r_1 + (n - m) times the last of
    them), m = ceil(0.9 n); near duplicates have ratios without bound, and one would else count as a tenth of 500
    images. mle: Levina and Bickel 2005 with 20 neighbours, the inverses averaged (MacKay and Ghahramani 2005).

    Images whose features are equal to the bit count as one, since a distance of 0 says nothing of dimension; where 21
    different ones (of twonn 3) are not left, and where all ratios are 1, as on a lattice, the estimate is NaN.
    """
    points = distinct(np.asarray(x, np.float64))
    n = len(points)
    found = {"twonn": Measured(math.nan, n=n), "mle": Measured(math.nan, n=n)}
    if n < 3:
        return found
    r, nearest = nearest_images(points, min(NEIGHBORS, n - 1))
    logs = np.log(r)
    m = math.ceil(_KEPT * n)
    ratios = logs[:, 1] - logs[:, 0]
    most = np.partition(ratios, m - 1)[m - 1]
    censored = np.minimum(ratios, most)
    if censored.sum() > 0:
        value = (m - 1) / float(censored.sum())
        # An image also moves the bound, at which an exponential distribution has this density.
        moved = censored + np.where(ratios > most, 1.0, 0.0) / value
        found["twonn"] = _linked(value, -moved * value / float(censored.mean()), nearest)
    if r.shape[1] == NEIGHBORS:
        inverse = (logs[:, [-1]] - logs[:, :-1]).mean(1)
        if inverse.sum() > 0:
            mean = float(inverse.mean())
            found["mle"] = _linked(1 / mean, -inverse / mean**2, nearest)
    return found


def _linked(value: float, influences: Array, nearest: NDArray[np.int64]) -> Measured:
    """Return an estimate of which images that are near have influences that depend on each other.

    They share distances: the standard error counts the products of the influences of two images of which one is among
    the two nearest of the other. Intervals are then as wide as repeated draws differ, to 7% below and 28% above
    (tests/benchmarks/geometry_intervals.py); without these products they were down to 0.77 of that, with those of all
    20 neighbours up to 2.1.

    Args:
        influences: [n]. nearest: numbers of the nearest images, [n, 2 or more].
    """
    n = len(influences)
    apart = influences - influences.mean()
    columns = nearest[:, :2].ravel()
    links = sparse.csr_array((np.ones(2 * n), (np.repeat(np.arange(n), 2), columns)), shape=(n, n))
    squares = float(apart @ apart)
    # Never less than independent images would give.
    squares = max(squares, squares + float(apart @ ((links + links.T).sign() @ apart)))
    return interval(value, math.sqrt(squares) / n, n, 0.0)


def distinct(x: Array) -> Array:
    """Return the different rows, each once."""
    rows = np.ascontiguousarray(x + 0.0)  # -0 and 0 are equal, but not to the bit
    keys = rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel()
    return rows[np.sort(np.unique(keys, return_index=True)[1])]


def nearest_images(x: Array, k: int) -> tuple[Array, NDArray[np.int64]]:
    """Return distances [n, k] of each row to its k nearest others, nearest first, and their numbers; rows differ.

    Candidates are found by |x|^2 + |y|^2 - 2 x.y, which one product of matrices gives but which loses half the digits
    of a small distance; their distances are then taken from differences, so that near duplicates keep theirs.
    """
    centred = x - x.mean(0)
    # Squares of what is very small or large would leave the range of float64.
    unit = float(np.abs(centred).max())
    centred /= unit
    squares = np.einsum("nd,nd->n", centred, centred)
    count = min(k + _SPARE, len(x) - 1)
    found, numbers = np.empty((len(x), k)), np.empty((len(x), k), np.int64)
    for start in range(0, len(x), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(x)))
        far = squares - 2 * centred[rows] @ centred.T
        far[np.arange(len(rows)), rows] = np.inf
        candidates = np.argpartition(far, count - 1, axis=1)[:, :count]
        difference = (x[candidates] - x[rows, None]) / unit
        exact = np.einsum("rkd,rkd->rk", difference, difference)
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        found[rows] = unit * np.sqrt(np.take_along_axis(exact, order, 1))
        numbers[rows] = np.take_along_axis(candidates, order, 1)
    return found, numbers
