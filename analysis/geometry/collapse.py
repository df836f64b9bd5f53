"""Neural collapse, NC1 to NC4 (Papyan, Han and Donoho 2020), with the derivatives by which images' influence is found.

W, B and S are those of analysis/geometry/classes.py. What an image adds to S is a a^T, to W e e^T, and so to B their
difference, m m^T + m e^T + e m^T with m the centre of its class.
"""

from __future__ import annotations

import math

import numpy as np

from analysis.geometry.classes import NO_VALUE, Classes, Gradient, each_image
from analysis.geometry.dimension import Spectrum
from analysis.geometry.influence import Measured, share
from analysis.geometry.moments import Moments
from analysis.geometry.stream import Array

# A singular value of class centres this much smaller than the largest is 0.
_RANK = 1e-10


def within_class_variability(classes: Classes, of: Moments) -> Gradient:
    """Return NC1 = tr(W B^+) / K, in [0, inf): the spread within classes against that between them."""
    K, m = len(classes.counts), classes.centres.T
    left, singular, _ = np.linalg.svd(m * np.sqrt(classes.shares), full_matrices=False)
    rank = min(K - 1, len(m))
    if singular[rank - 1] <= max(_RANK * singular[0], classes.least):
        return NO_VALUE  # class means that do not span what they should have a pseudo-inverse that jumps
    U, values = left[:, :rank], singular[:rank] ** 2
    W_U = of.scatter @ U / of.n - U * values
    # B^+ m in the basis U, and what W makes of it.
    beta = (U / values).T @ m
    W_beta = W_U @ beta
    inside = U.T @ W_beta
    outside = W_U @ (beta / values[:, None])
    outside -= U @ (U.T @ outside)
    linear = 2 * outside - 2 * (U / values) @ inside
    value = float(np.einsum("dr,dr->r", U, W_U) @ (1 / values)) / K
    root = U / np.sqrt(values * K)
    return Gradient(
        value, linear=linear.T / K, constant=-np.einsum("rk,rk->k", beta, inside) / K, left=root, right=root
    )


def norms_equal(classes: Classes) -> Gradient:
    """Return NC2 of norms, in [0, inf): the deviation of the norms of class centres, divided by their mean."""
    M = classes.apart
    r = np.sqrt(np.einsum("kd,kd->k", M, M))
    mean, deviation = float(r.mean()), float(r.std())
    if r.min() <= classes.least:
        return NO_VALUE
    slope = np.full(len(r), -deviation / mean**2 / len(r))
    if deviation > 1e-13 * mean:
        slope += (r - mean) / (len(r) * deviation * mean)
    linear = (slope / r)[:, None] * M
    return Gradient(deviation / mean, linear=each_image(linear - linear.mean(0), classes))


def angles_equal(classes: Classes) -> Gradient:
    """Return NC2 of angles, in [0, 2]: the mean over pairs of classes of |cos(centre, other) + 1 / (K - 1)|."""
    M, K = classes.apart, len(classes.counts)
    r = np.sqrt(np.einsum("kd,kd->k", M, M))
    if r.min() <= classes.least:
        return NO_VALUE
    unit = M / r[:, None]
    cosines = unit @ unit.T
    off = cosines + 1 / (K - 1)
    np.fill_diagonal(off, 0.0)
    pairs = K * (K - 1) / 2
    sign = np.sign(np.where(np.abs(off) > 1e-13, off, 0.0)) / pairs
    linear = (sign @ unit - (sign * cosines).sum(1)[:, None] * unit) / r[:, None]
    return Gradient(float(np.abs(off).sum() / 2 / pairs), linear=each_image(linear - linear.mean(0), classes))


def is_fitted(found: Spectrum, n: int) -> bool:
    """Return whether least squares can be fitted to n images: with as many directions as images it fits anything."""
    return 0 < found.rank < n - 1


def _solved(found: Spectrum, M: Array) -> Array:
    """Return S^+ M for M [d, K]."""
    return np.asarray(found.vectors @ ((found.vectors.T @ M) / found.values[:, None]))


def self_duality(classes: Classes, found: Spectrum) -> Gradient:
    """Return NC3 = |P / |P| - M / |M||, Frobenius norms, in [0, sqrt(2)].

    M are the class centres and P = S^+ M the classifier of least squares with an intercept on these images, where
    classes are of one size (Han, Papyan and Donoho 2022).
    """
    n = int(classes.counts.sum())
    M = classes.apart.T
    if not is_fitted(found, n) or np.sqrt((M**2).sum()) <= classes.least:
        return NO_VALUE
    P = _solved(found, M)
    Q = _solved(found, P)
    N, R, E = float((M * P).sum()), float((P * P).sum()), float((M * M).sum())
    cosine = min(1.0, N / math.sqrt(R * E))
    value = math.sqrt(2 - 2 * cosine)
    if value < 1e-7:
        return Gradient(value)
    factor = -cosine / value
    # The derivative of the cosine in M, and in S by -(P P^T) / N + sym(Q P^T) / R.
    linear = factor * (2 * P / N - Q / R - M / E).T
    return Gradient(
        value,
        linear=each_image(linear - linear.mean(0), classes),
        left=factor * (Q / R - P / N), right=P, of_total=True,
    )  # fmt: skip


class Decisions:
    """NC4: the share of images of which least squares and the nearest class mean say different classes, in [0, 1].

    Both are fitted to these images. Least squares decides by pi_c (1 + m_c^T S^+ a).
    """

    def __init__(self, classes: Classes, found: Spectrum):
        self._centres, self._shares = classes.centres, classes.shares
        self._is_fitted = is_fitted(found, int(classes.counts.sum()))
        self._solved = _solved(found, classes.centres.T) if self._is_fitted else np.zeros((0, 0))
        self._norms = np.einsum("kd,kd->k", self._centres, self._centres)
        self._different, self._n = 0, 0

    def weigh(self, a: Array) -> None:
        """Count a block of images by their centred features [m, d]."""
        self._n += len(a)
        if self._is_fitted:
            nearest = (self._norms - 2 * a @ self._centres.T).argmin(1)
            self._different += int(((self._shares * (1 + a @ self._solved)).argmax(1) != nearest).sum())

    def measured(self) -> Measured:
        """Return the share, NaN where least squares fits anything."""
        return share(self._different, self._n) if self._is_fitted else Measured(math.nan, n=self._n)
