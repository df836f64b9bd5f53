"""How the images of a depth lie by class: class means, the covariances within and between classes, margins.

With class shares pi_c, means mu_c and the mean mu of all images, W is the covariance of x - mu_c over images and
B = sum_c pi_c (mu_c - mu)(mu_c - mu)^T, so that W + B = S, the covariance of all; classes of one size are as in the
sources. Neural collapse (Papyan, Han and Donoho 2020) is measured by analysis/geometry/collapse.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.geometry.influence import Influences, Measured, share
from analysis.geometry.stream import Array

Labels = NDArray[np.int64]

# What is smaller, beside the numbers that it is a difference of, is rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Classes:
    """The classes that the images have.

    counts: images of each, [K]. centres: their means minus that of all images, [K, d].
    spread: mean of |x - mu_c|^2 over the images of each, [K].
    """

    counts: NDArray[np.int64]
    centres: Array
    spread: Array

    @property
    def shares(self) -> Array:
        """Share of each class among the images, [K]."""
        return np.asarray(self.counts / self.counts.sum())

    @property
    def is_measurable(self) -> bool:
        """Whether there are two classes and each has two images: one image has no spread about its own mean."""
        return len(self.counts) > 1 and int(self.counts.min()) > 1

    @property
    def least(self) -> float:
        """A distance between means that rounding alone may give: far below the spread of all images."""
        norms = np.einsum("kd,kd->k", self.centres, self.centres)
        return _ROUNDING * math.sqrt(float(self.shares @ (self.spread + norms)))

    @property
    def apart(self) -> Array:
        """Centres minus their own mean, in which each class weighs the same, [K, d]."""
        return np.asarray(self.centres - self.centres.mean(0))


def numbered(y: NDArray[np.integer]) -> Labels:
    """Return labels from 0 to K - 1, the classes that no image has left out."""
    return np.unique(y, return_inverse=True)[1].ravel()


class ClassSums:
    """Sums the centred features of each class, block by block."""

    def __init__(self, n_classes: int, d: int):
        self._sums, self._counts = np.zeros((n_classes, d)), np.zeros(n_classes, np.int64)
        self._squares = np.zeros(n_classes)

    def add(self, a: Array, y: Labels) -> None:
        """Count a block of images by their centred features [m, d] and labels [m] from 0."""
        K = len(self._counts)
        self._counts += np.bincount(y, minlength=K)
        self._sums += np.eye(K)[y].T @ a
        self._squares += np.bincount(y, np.einsum("nd,nd->n", a, a), K)

    def classes(self) -> Classes:
        """Return the classes of what was added."""
        centres = self._sums / self._counts[:, None]
        spread = self._squares / self._counts - np.einsum("kd,kd->k", centres, centres)
        return Classes(self._counts, centres, np.maximum(spread, 0.0))


@dataclass(frozen=True)
class Gradient:
    """A measure of classes, and its derivative by which one image's influence is found.

    The influence of an image of class c with a = x - mu and e = x - mu_c is scale_c |e|^2 + linear_c.e + constant_c +
    (left^T e).(right^T e), or with a in place of e in the last where `of_total`; what is missing is 0.
    """

    value: float
    scale: Array | None = None
    linear: Array | None = None
    constant: Array | None = None
    left: Array | None = None
    right: Array | None = None
    of_total: bool = False

    def influences(self, a: Array, e: Array, squares: Array, y: Labels) -> Array:
        """Return the influences of images [m]; squares: |e|^2."""
        g = np.zeros(len(y))
        if self.scale is not None:
            g += self.scale[y] * squares
        if self.linear is not None:
            g += np.einsum("nd,nd->n", e, self.linear[y])
        if self.constant is not None:
            g += self.constant[y]
        if self.left is not None and self.right is not None:
            x = a if self.of_total else e
            g += np.einsum("nr,nr->n", x @ self.left, x @ self.right)
        return g


NO_VALUE = Gradient(math.nan)


def fisher_ratio(classes: Classes) -> Gradient:
    """Return tr B / tr W, in [0, inf)."""
    within = float(classes.shares @ classes.spread)
    norms = np.einsum("kd,kd->k", classes.centres, classes.centres)
    between = float(classes.shares @ norms)
    if within == 0:
        return NO_VALUE
    # |a|^2 - |e|^2 = |centre|^2 + 2 centre.e is what an image adds to tr B.
    return Gradient(
        between / within,
        scale=np.full(len(norms), -between / within**2),
        linear=2 * classes.centres / within,
        constant=norms / within,
    )


def cdnv(classes: Classes) -> Gradient:
    """Return the class-distance normalised variance (Galanti, György and Hutter 2022), in [0, inf).

    The mean over pairs of classes of (V_c + V_k) / (2 |mu_c - mu_k|^2), V_c being the spread of class c.
    """
    centres, V = classes.centres, classes.spread
    norms = np.einsum("kd,kd->k", centres, centres)
    distances = norms[:, None] + norms - 2 * centres @ centres.T
    np.fill_diagonal(distances, np.inf)
    if (distances <= max(classes.least**2, _ROUNDING * float(norms.max()))).any():
        return NO_VALUE  # two classes with one mean
    K = len(V)
    pairs = K * (K - 1) / 2
    half = (V[:, None] + V) / (2 * distances)
    weights = half / distances
    scale = (1 / (2 * distances)).sum(1) / pairs
    linear = -2 * (weights.sum(1)[:, None] * centres - weights @ centres) / pairs
    return Gradient(float(half.sum() / 2 / pairs), scale=scale / classes.shares, linear=each_image(linear, classes),
                    constant=-scale * V / classes.shares)  # fmt: skip


def each_image(linear: Array, classes: Classes) -> Array:
    """Return the derivative in an image's e, of that in its class's mean [K, d]."""
    return np.asarray(linear / classes.shares[:, None])


class Margins:
    """How much nearer an image lies to the mean of its own class than to that of another.

    With r the distance to the mean of the own class, made without the image, and s that to the nearest other mean, an
    image's margin is (s - r) / (s + r), in [-1, 1]; where it is not positive the nearest class mean is wrong. `weigh`
    all images, then `weigh_means`: an image also counts by what it moves its class's mean by.
    """

    def __init__(self, classes: Classes):
        self._classes = classes
        self._slopes = np.zeros(classes.centres.shape)
        self._margins, self._wrong = Influences(), 0

    def weigh(self, a: Array, y: Labels) -> None:
        """Sum over a block of images by their centred features [m, d] and labels [m] from 0."""
        K, (r, s, nearest) = len(self._slopes), self._distances(a, y)
        self._wrong += int((s <= r).sum())
        known = (r > 0) & (s > 0)
        weight = 2 / np.where(known, (r + s) ** 2, np.inf)
        centres = self._classes.centres
        own, other = (
            weight * s / np.where(known, r, 1) * self._leave_one_out[y] ** 2,
            -weight * r / np.where(known, s, 1),
        )
        for labels, factor in ((y, own), (nearest, other)):
            chosen = np.zeros((K, len(y)))
            chosen[labels, np.arange(len(y))] = factor
            self._slopes += chosen @ a - chosen.sum(1)[:, None] * centres

    def weigh_means(self, a: Array, y: Labels) -> None:
        """Count the influences of a block of images, when `weigh` has seen all."""
        r, s, _ = self._distances(a, y)
        together = r + s
        margins = np.where(together > 0, (s - r) / np.where(together > 0, together, 1), 0.0)
        e = a - self._classes.centres[y]
        moved = np.einsum("nd,nd->n", e, (self._slopes / self._classes.counts[:, None])[y])
        self._margins.add(margins + moved)

    @property
    def _leave_one_out(self) -> Array:
        """How much further an image lies from its class's mean when it is no part of it, [K]."""
        counts = self._classes.counts
        return np.asarray(counts / np.maximum(counts - 1, 1))

    def _distances(self, a: Array, y: Labels) -> tuple[Array, Array, Labels]:
        """Return r, s, and the class of s."""
        centres, each = self._classes.centres, np.arange(len(y))
        norms = np.einsum("nd,nd->n", a, a)[:, None] + np.einsum("kd,kd->k", centres, centres)
        distances = np.sqrt(np.maximum(norms - 2 * a @ centres.T, 0))
        own = distances[each, y] * self._leave_one_out[y]
        distances[each, y] = np.inf
        nearest = distances.argmin(1)
        return own, distances[each, nearest], nearest

    def measured(self) -> dict[str, Measured]:
        """Return margin, the mean over images, and ncm_error, the share of images that are not nearest to their own."""
        # Influences through the means have mean 0, as the images of a class have about theirs.
        margin = self._margins.average(-1.0, 1.0)
        return {"margin": margin, "ncm_error": share(self._wrong, margin.n)}
