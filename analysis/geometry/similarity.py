"""How alike two depths arrange the same images: linear CKA, debiased and biased, and the shape distance.

All three are of centred features X [n, d] and Y [n, e], read from products X^T Y, so that no n x n matrix is made, and
none changes when features are rotated, mirrored, permuted, shifted, or all scaled alike.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg

from analysis.geometry.influence import Influences, Measured
from analysis.geometry.moments import Moments, moments
from analysis.geometry.stream import Array, Source, Tick, read, row_slices

MEASURES = ("cka", "cka_biased", "procrustes")
# Debiased CKA without one image, of which its interval is made, needs five.
_FEWEST = 5
# Bytes of the products X^T Y that one pass over the images sums.
_PRODUCTS = 1 << 28
# 1 - s^2 below this is rounding: the two depths are one up to rotation, and an angle has no slope there.
_ALIKE = 1e-13


@dataclass(frozen=True)
class Sums:
    """What a debiased HSIC needs of n images: |X^T Y|^2, and sums of p_i = |x_i|^2, q_i = |y_i|^2 and p_i q_i."""

    n: int
    products: Any
    p: Any
    q: Any
    pq: Any

    def hsic(self) -> Any:
        """Return the unbiased estimate of HSIC with linear kernels (Song et al. 2007, equation 4).

        With K = X X^T and L = Y Y^T without their diagonals it is (tr KL + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 1'KL1 /
        (n - 2)) / (n (n - 3)). Of centred features K1 = -p and L1 = -q, so that three sums remain.
        """
        n = self.n
        cross = self.products - n / (n - 2) * self.pq + self.p * self.q / ((n - 1) * (n - 2))
        return cross / (n * (n - 3))

    def without(self, p: Array, q: Array, cross: Array, mixed: Array) -> Sums:
        """Return the sums without each image, all of them centred anew.

        p, q: of the image, [m]. cross: x_i^T X^T Y y_i. mixed: sum over j of p_j y_j.y_i + q_j x_j.x_i.
        """
        m, r = self.n - 1, self.n / (self.n - 1)
        # Without image i the others lie at x_j + x_i / m from their mean.
        pq = (
            self.pq - p * q
            + 2 / m * (mixed - 2 * p * q)
            + (q * (self.p - p) + p * (self.q - q) + 4 * (cross - p * q)) / m**2
            - 4 * p * q / m**3 + p * q / m**3
        )  # fmt: skip
        return Sums(m, self.products - 2 * r * cross + r**2 * p * q, self.p - r * p, self.q - r * q, pq)


def _own(of: Moments) -> Sums:
    return Sums(of.n, float((of.scatter**2).sum()), of.total, of.total, of.fourth)


class Pair:
    """Similarity of two depths: `add` all images, `close`, `weigh` all images again, then `measured`.

    Args:
        one, other: moments of the two depths.
    """

    def __init__(self, one: Moments, other: Moments):
        self._moments = one, other
        self._products = np.zeros((one.d, other.d))
        self._pq, self._py, self._qx = 0.0, np.zeros(other.d), np.zeros(one.d)
        self._influences = {name: Influences() for name in MEASURES}
        self._values = dict.fromkeys(MEASURES, math.nan)

    def add(self, a: Array, b: Array) -> None:
        """Sum over a block of images, by their centred features [m, d] and [m, e]."""
        p, q = (np.einsum("nd,nd->n", x, x) for x in (a, b))
        self._products += a.T @ b
        self._pq += float(p @ q)
        self._py += p @ b
        self._qx += q @ a

    def close(self) -> None:
        """Make the values of the sums."""
        one, other = self._moments
        self._sums = Sums(one.n, float((self._products**2).sum()), one.total, other.total, self._pq)
        if one.is_constant or other.is_constant:
            return
        left, singular, right = linalg.svd(self._products, full_matrices=False, check_finite=False)
        kept = singular > max(self._products.shape) * np.finfo(float).eps * max(float(singular[0]), 1e-300)
        self._polar = left[:, kept] @ right[kept]
        self._nuclear = float(singular.sum())
        self._cosine = min(1.0, self._nuclear / math.sqrt(one.total * other.total))
        self._values = {
            "cka": float(_debiased(self._sums, _own(one), _own(other))) if one.n >= _FEWEST else math.nan,
            "cka_biased": float(_biased(self._sums, _own(one), _own(other))),
            "procrustes": math.acos(self._cosine),
        }

    def weigh(self, a: Array, b: Array, own: tuple[Array, Array]) -> None:
        """Count the influences of a block of images; own: a_i^T X^T X a_i and b_i^T Y^T Y b_i of each, [m]."""
        one, other = self._moments
        n = one.n
        if math.isnan(self._values["procrustes"]) or n < _FEWEST:
            return
        p, q = (np.einsum("nd,nd->n", x, x) for x in (a, b))
        cross = np.einsum("nd,nd->n", a @ self._products, b)
        xy = self._sums.without(p, q, cross, b @ self._py + a @ self._qx)
        xx = _own(one).without(p, p, own[0], 2 * a @ one.third)
        yy = _own(other).without(q, q, own[1], 2 * b @ other.third)
        # A measure without image i tells n - 1 times too little of what the image adds (Efron and Stein 1981).
        self._influences["cka"].add(-(n - 1) * _debiased(xy, xx, yy))
        self._influences["cka_biased"].add(-(n - 1) * _biased(xy, xx, yy))
        s, rest = self._cosine, 1 - self._cosine**2
        turned = np.einsum("nd,nd->n", a @ self._polar, b) / self._nuclear
        slope = -s / math.sqrt(rest) if rest > _ALIKE else 0.0
        self._influences["procrustes"].add(slope * n * (turned - p / (2 * one.total) - q / (2 * other.total)))

    def measured(self) -> dict[str, Measured]:
        """Return cka (at most 1; about 0 for unrelated depths, and below it by chance), cka_biased in [0, 1], and
        procrustes in [0, pi/2], the angle whose cosine is |X^T Y|_* / (|X|_F |Y|_F) (Williams et al. 2021).

        All are NaN where one depth has the same features for all images, or there are fewer than five.
        """
        n, found = self._moments[0].n, {}
        for name, (least, most) in zip(MEASURES, ((-math.inf, 1.0), (0.0, 1.0), (0.0, math.pi / 2)), strict=True):
            influences = self._influences[name]
            value = self._values[name] if influences.n else math.nan
            found[name] = influences.measured(value, least, most) if influences.n else Measured(math.nan, n=n)
        return found


def _debiased(xy: Sums, xx: Sums, yy: Sums) -> Any:
    # By chance the estimate of a variance that is almost 0 may be below it: there is no correlation to be told then.
    variances = np.asarray(xx.hsic() * yy.hsic())
    positive = (variances > 0) & (np.asarray(xx.hsic()) > 0)
    return np.where(positive, xy.hsic() / np.sqrt(np.where(positive, variances, 1.0)), np.nan)


def _biased(xy: Sums, xx: Sums, yy: Sums) -> Any:
    return xy.products / np.sqrt(xx.products * yy.products)


def similarity(x: Source, y: Source) -> dict[str, Measured]:
    """Return cka, cka_biased and procrustes of features [n, d] and [n, e] of the same images in the same order."""
    sources = {"x": x, "y": y}
    known = {name: moments(one) for name, one in sources.items()}
    return next(similarities(sources, known, [("x", "y")]))[1]


def similarities(
    sources: Mapping[Any, Source],
    known: Mapping[Any, Moments],
    pairs: Sequence[tuple[Hashable, Hashable]],
    tick: Tick | None = None,
) -> Iterator[tuple[tuple[Any, Any], dict[str, Measured]]]:
    """Yield each pair of depths with its measures; as many pairs at a time as their products leave room for."""
    for tile in tiles(known, pairs):
        found = {pair: Pair(known[pair[0]], known[pair[1]]) for pair in tile}
        for block in _blocks(sources, known, tile, tick):
            for (one, other), pair in found.items():
                pair.add(block[one], block[other])
        for pair in found.values():
            pair.close()
        for block in _blocks(sources, known, tile, tick):
            own = {key: np.einsum("nd,nd->n", a @ known[key].scatter, a) for key, a in block.items()}
            for (one, other), pair in found.items():
                pair.weigh(block[one], block[other], (own[one], own[other]))
        for key, pair in found.items():
            yield key, pair.measured()


def tiles(
    known: Mapping[Any, Moments], pairs: Sequence[tuple[Hashable, Hashable]]
) -> list[list[tuple[Hashable, Hashable]]]:
    """Return the pairs in groups whose products and polar factors fit 256 MB, one pair at least in each."""
    groups: list[list[tuple[Hashable, Hashable]]] = []
    room = 0
    for one, other in pairs:
        taken = 16 * known[one].d * known[other].d
        if taken > room:
            groups.append([])
            room = _PRODUCTS
        groups[-1].append((one, other))
        room -= taken
    return groups


def _blocks(
    sources: Mapping[Any, Source],
    known: Mapping[Any, Moments],
    pairs: Sequence[tuple[Hashable, Hashable]],
    tick: Tick | None,
) -> Iterator[dict[Any, Array]]:
    """Yield the centred features of all depths of some pairs, for one block of images after the other."""
    keys = dict.fromkeys(key for pair in pairs for key in pair)
    n, widths = len(sources[next(iter(keys))]), [known[key].d for key in keys]
    for rows in row_slices(n, sum(widths)):
        yield {key: read(sources[key], rows, known[key].mean) for key in keys}
        if tick is not None:
            tick(rows.stop - rows.start)
