"""All measures of one depth, in four passes over its features: means, products, influences, margins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.geometry.classes import Classes, ClassSums, Labels, Margins, cdnv, fisher_ratio, numbered
from analysis.geometry.collapse import Decisions, angles_equal, norms_equal, self_duality, within_class_variability
from analysis.geometry.dimension import Dimensions, Spectrum, spectrum
from analysis.geometry.influence import Influences, Measured
from analysis.geometry.moments import Moments, column_mean, moments
from analysis.geometry.neighbors import intrinsic_dimensions
from analysis.geometry.sparsity import Sparsity
from analysis.geometry.stream import Array, Source, Tick, blocks, width
from layerwise.errors import UserError

# Passes over the features of a depth.
PASSES = 4
# Images of which distances are taken: every pair of them is compared.
SUBSAMPLE = 5000


@dataclass(frozen=True)
class Found:
    """What a depth is like: its measures by name, and the moments that similarity reads."""

    measures: Mapping[str, Measured]
    moments: Moments


def geometry(
    x: Source, y: NDArray[np.integer] | None = None, *, subsample: int = SUBSAMPLE, tick: Tick | None = None
) -> Found:
    """Return every measure of features [n, d].

    Args:
        y: labels [n], any integers; without them measures of classes are left out.
        subsample: images that intrinsic dimensions are estimated from, drawn without replacement by seed 0.

    Raises:
        UserError: features that are not finite.
    """
    first = _FirstLook(x, subsample)
    mean = column_mean(x, tick, first.see)
    labels = None if y is None else numbered(y)
    sums = None if labels is None else ClassSums(int(labels.max()) + 1, len(mean))

    def add(rows: slice, a: Array) -> None:
        if sums is not None and labels is not None:
            sums.add(a, labels[rows])

    of = moments(x, mean, tick, add)
    directions = spectrum(of)
    dimensions = Dimensions(directions)
    of_classes = None if sums is None else ClassMeasures(sums.classes(), of, directions)
    for rows, a in blocks(x, mean, tick):
        dimensions.weigh(a)
        if of_classes is not None and labels is not None:
            of_classes.weigh(a, labels[rows])
    for rows, a in blocks(x, mean, tick):
        if of_classes is not None and labels is not None:
            of_classes.weigh_means(a, labels[rows])
    measures = dimensions.measured() | first.measured()
    return Found(measures if of_classes is None else measures | of_classes.measured(), of)


class _FirstLook:
    """What needs no mean: whether features are finite, their sparsity, and the images whose distances are taken."""

    def __init__(self, x: Source, subsample: int):
        d = width(x)
        self._sparsity = Sparsity(np.asarray(x[0:1], np.float64).ravel())
        drawn = np.random.default_rng(0).choice(len(x), min(subsample, len(x)), replace=False)
        self._drawn, self._sample = np.sort(drawn), np.empty((len(drawn), d))

    def see(self, rows: slice, block: Array) -> None:
        """Look at a block of features as they are, [m, d]."""
        if not np.isfinite(block).all():
            raise UserError(
                f"found {int(np.isnan(block).sum())} NaN and {int(np.isinf(block).sum())} infinite values in the "
                f"features of images {rows.start} to {rows.stop - 1}, expected finite ones: the network that made them "
                "diverged, or float16 overflowed; train or store it again."
            )
        self._sparsity.weigh(block)
        start, stop = np.searchsorted(self._drawn, [rows.start, rows.stop])
        self._sample[start:stop] = block[self._drawn[start:stop] - rows.start]

    def measured(self) -> dict[str, Measured]:
        """Return intrinsic dimensions and sparsity."""
        return intrinsic_dimensions(self._sample) | self._sparsity.measured()


class ClassMeasures:
    """Every measure of classes at one depth: `weigh` all images, then `measured`."""

    def __init__(self, classes: Classes, of: Moments, directions: Spectrum):
        self._is_measurable = classes.is_measurable and not of.is_constant
        self._n, self._centres = of.n, classes.centres
        if not self._is_measurable:
            return
        self._gradients = {
            "nc1": within_class_variability(classes, of),
            "nc2_norms": norms_equal(classes),
            "nc2_angles": angles_equal(classes),
            "nc3": self_duality(classes, directions),
            "cdnv": cdnv(classes),
            "fisher_ratio": fisher_ratio(classes),
        }
        self._influences = {name: Influences() for name in self._gradients}
        self._decisions, self._margins = Decisions(classes, directions), Margins(classes)

    def weigh(self, a: Array, y: Labels) -> None:
        """Count a block of images by their centred features [m, d] and labels [m] from 0."""
        if not self._is_measurable:
            return
        e = a - self._centres[y]
        squares = np.einsum("nd,nd->n", e, e)
        for name, gradient in self._gradients.items():
            self._influences[name].add(gradient.influences(a, e, squares, y))
        self._decisions.weigh(a)
        self._margins.weigh(a, y)

    def weigh_means(self, a: Array, y: Labels) -> None:
        """Count a block of images once more, when `weigh` has seen all."""
        if self._is_measurable:
            self._margins.weigh_means(a, y)

    def measured(self) -> dict[str, Measured]:
        """Return the measures by name; all are NaN with fewer than two classes, or a class of one image."""
        if not self._is_measurable:
            return {
                name: Measured(math.nan, n=self._n) for name in _RANGES | dict.fromkeys(("nc4", "margin", "ncm_error"))
            }
        found = {
            name: influences.measured(self._gradients[name].value, 0.0, _RANGES[name])
            for name, influences in self._influences.items()
        }
        return found | {"nc4": self._decisions.measured()} | self._margins.measured()


# The greatest value of each measure that has a derivative; none is below 0.
_RANGES = {
    "nc1": math.inf, "nc2_norms": math.inf, "nc2_angles": 2.0, "nc3": math.sqrt(2), "cdnv": math.inf,
    "fisher_ratio": math.inf,
}  # fmt: skip
