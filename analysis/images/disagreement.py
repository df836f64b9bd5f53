"""How often two probes disagree on the same images, beside what their accuracies alone imply."""

from __future__ import annotations

import math

import numpy as np

from analysis.images.shares import Share, share
from probes.results.intervals import CONFIDENCE, RESAMPLES


def disagreement(first: np.ndarray, second: np.ndarray, label: np.ndarray) -> dict[str, Share]:
    """Return by name how two predictions of the same images, int [n], disagree; p and q are their accuracies.

    - one_right, D: share of images that exactly one of them is right about.
    - least, |p - q|: the least D that these accuracies allow.
    - independent, E = p (1 - q) + q (1 - p): the D of errors that fall independently.
    - excess, D - E: in [-1, 1]; below 0 where the same images are hard for both.
    - kappa, 1 - D / E: error consistency, 1 for the same errors, 0 for independent ones; missing where E is 0.
    - differ: share of images of which they say different classes. same_error: of images that both are wrong about,
      the share on which they say the same class.

    Source: Geirhos, Meding and Wichmann 2020, of kappa.
    """
    one, other = first == label, second == label
    cells = np.array([(one & other).sum(), (one & ~other).sum(), (~one & other).sum(), (~one & ~other).sum()])
    wrong = ~one & ~other
    return {
        **_of_cells(cells), "differ": share(first != second), "same_error": share(first[wrong] == second[wrong]),
    }  # fmt: skip


def _of_cells(cells: np.ndarray) -> dict[str, Share]:
    """Return what follows from the numbers of images right by both, by the first, by the second, and by none.

    Intervals are of 10,000 draws from Dirichlet(cells + 1/2), the posterior under Jeffreys' prior: a bootstrap of
    the four numbers that keeps a width where one of them is 0.
    """
    n = int(cells.sum())
    drawn = _measures(np.random.default_rng(0).dirichlet(cells + 0.5, RESAMPLES))
    tail = (1 - CONFIDENCE) / 2
    found = {}
    for name, value in _measures(cells / n).items():
        low, high = np.quantile(drawn[name], [tail, 1 - tail])
        # The prior moves draws off the ends of the range, where a value may lie.
        ends = (min(float(low), float(value)), max(float(high), float(value)))
        found[name] = Share(float(value), *ends, n) if math.isfinite(value) else Share(math.nan, math.nan, math.nan, n)
    return found


def _measures(shares: np.ndarray) -> dict[str, np.ndarray]:
    """Return the measures of shares [..., 4] of images: right by both, by the first alone, by the second, by none."""
    both, first, second = (shares[..., cell] for cell in range(3))
    p, q, observed = both + first, both + second, first + second
    independent = p * (1 - q) + q * (1 - p)
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = 1 - observed / independent
    return {
        "one_right": observed, "least": np.abs(p - q), "independent": independent, "excess": observed - independent,
        "kappa": kappa,
    }  # fmt: skip
