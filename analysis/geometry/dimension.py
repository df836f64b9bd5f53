"""How many directions the features of a depth fill: effective rank and participation ratio of their covariance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from analysis.geometry.influence import Influences, Measured
from analysis.geometry.moments import Moments, moments
from analysis.geometry.stream import Array, Source, blocks


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of the covariance S = scatter / n that are not 0, ascending [r], and their eigenvectors [d, r]."""

    values: Array
    vectors: Array

    @property
    def rank(self) -> int:
        return len(self.values)


def spectrum(of: Moments) -> Spectrum:
    """Return the spectrum of the covariance; an eigenvalue that rounding alone may give counts as 0."""
    values, vectors = linalg.eigh(of.scatter / of.n, check_finite=False)
    kept = values > max(of.n, of.d) * np.finfo(float).eps * max(float(values[-1]), 0.0)
    return Spectrum(values[kept], vectors[:, kept])


class Dimensions:
    """Effective rank and participation ratio, with the influence of each image.

    With eigenvalues l_k of S, p_k = l_k / tr S and H = -sum p_k ln p_k, the effective rank is exp(H) (Roy and Vetterli
    2007, of the covariance) and the participation ratio (tr S)^2 / tr S^2 (Gao et al. 2017), each in [1, d].
    """

    def __init__(self, found: Spectrum):
        self._vectors = found.vectors
        self._influences = {"effective_rank": Influences(), "participation_ratio": Influences()}
        values = found.values
        self._values = dict.fromkeys(self._influences, math.nan)
        self._weights = np.zeros((len(values), 2))
        if not len(values):
            return
        trace, squares = float(values.sum()), float((values**2).sum())
        p = values / trace
        entropy = float(-(p * np.log(p)).sum())
        rank, ratio = math.exp(entropy), trace**2 / squares
        self._values = {"effective_rank": rank, "participation_ratio": ratio}
        # The derivative of each in eigenvalue k: an image adds z_k^2 to it, z being a in the basis of eigenvectors.
        self._weights = np.column_stack(
            [-rank * (np.log(p) + entropy) / trace, 2 * ratio * (1 / trace - values / squares)]
        )

    def weigh(self, a: Array) -> None:
        """Count the influences of images by their centred features [m, d]."""
        for influences, column in zip(
            self._influences.values(), ((a @ self._vectors) ** 2 @ self._weights).T, strict=True
        ):
            influences.add(column)

    def measured(self) -> dict[str, Measured]:
        """Return both measures, NaN where no feature differs from image to image."""
        most = float(self._vectors.shape[0])
        return {name: found.measured(self._values[name], 1.0, most) for name, found in self._influences.items()}


def dimensions(x: Source) -> dict[str, Measured]:
    """Return effective rank and participation ratio of features [n, d]."""
    of = moments(x)
    found = Dimensions(spectrum(of))
    for _, a in blocks(x, of.mean):
        found.weigh(a)
    return found.measured()
