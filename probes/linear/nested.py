"""Nested sizes of the train fold, and linear fits to all of them from one path: how easily a depth is decoded.

Eight subsets, each within the next, the last one the whole fold; every class has its share in each. Their fits share
the features and each block of rows that is read, and are solved together at one penalty after another; each size walks
the path and chooses on the validation fold by the rule of all linear probes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from layerwise.errors import UserError
from layerwise.model.seeds import derive_seed
from probes.linear.penalties import Asked, Candidate, choosing
from probes.solver.fit import LinearFit
from probes.solver.path import Fitter

SIZES = 8
# The smallest is at least this share of the whole, a halving for each size.
LEAST_SHARE = 2.0 ** (1 - SIZES)
# Of each class. With fewer, two of the sizes would be the same images.
LEAST_IMAGES = 16
# Says what a fit of one size gives on the validation fold; told which size it is of, and whether the fit is rough.
Score = Callable[[int, LinearFit, bool], Candidate]


def nested(label: NDArray[np.int64], classes: Sequence[str], seed: int, where: str) -> NDArray[np.bool_]:
    """Return which images are of each size, bool [SIZES, n]; nested, and stratified by class.

    Size i has ceil(f_i n_c) images of a class of n_c, taken in a random order of the class: f_i rises by equal factors
    to 1, from 1/128 or one image of the smallest class, whichever is more.

    Raises UserError for a class of the data without images, or of too few for sizes that differ.
    """
    counts = np.bincount(label, minlength=len(classes))
    if counts.min() < LEAST_IMAGES:
        few = int(counts.argmin())
        raise UserError(
            f"{where}: found {counts[few]} images of class {classes[few]}, too few for {SIZES} nested sizes; "
            f"expected at least {LEAST_IMAGES} of each class. Leave --probe codelength out, or train on more images."
        )
    first = max(LEAST_SHARE, 1 / counts.min())
    shares = first ** (np.arange(SIZES - 1, -1, -1) / (SIZES - 1))
    order = np.random.default_rng(derive_seed(seed, "nested sizes")).permutation(len(label))
    place = np.empty(len(label), dtype=np.int64)  # of each image in the order of its class
    for c in range(len(classes)):
        own = order[label[order] == c]
        place[own] = np.arange(len(own))
    # What is a whole number but for its rounding is not raised to the next.
    taken = np.ceil(shares[:, None] * counts - 1e-9).astype(np.int64)
    return place < taken[:, label]


def fit_nested(fitter: Fitter, score: Score, sizes: int = SIZES, *, rough: float = 0.0) -> list[Candidate]:
    """Return the chosen fit of each row of a fitter's weights, all rows that ask for one penalty solved together.

    rough: as of `Fitter.fit`, of fits that need not be certified.
    """
    paths = [choosing() for _ in range(sizes)]
    asked: dict[int, Asked] = {i: next(path) for i, path in enumerate(paths)}
    chosen: dict[int, Candidate] = {}
    while asked:
        # The largest penalty first, so that rows that go on to smaller ones stay together.
        lam, may_be_rough = max((lam, may_be_rough) for lam, _, may_be_rough in asked.values())
        rows = [i for i, (own, _, roughly) in asked.items() if (own, roughly) == (lam, may_be_rough)]
        starts = [asked[i][1] if i in rows else None for i in range(sizes)]
        given = starts if starts[rows[0]] is not None else None
        fits = fitter.fit([lam], given, rough=rough if may_be_rough else 0.0, only=rows)
        for i in rows:
            (fit,) = fits[i]
            try:
                asked[i] = paths[i].send(score(i, fit, bool(rough and may_be_rough) and not fit.converged))
            except StopIteration as done:
                chosen[i], _ = done.value
                del asked[i]
    return [chosen[i] for i in range(sizes)]
