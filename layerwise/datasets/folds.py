"""Stratified choices by fixed seeds: a subset of the train split, the validation fold, a test split."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from layerwise.errors import UsageError, UserError

SPLIT_SEED = 0
# Not SPLIT_SEED: a subset of a tenth would be the very images that the whole split's fold sets apart.
SUBSET_SEED = 1
DIGITS_TEST_SHARE = 0.2


def stratified_subset(label: np.ndarray, n: int) -> np.ndarray:
    """Return n of the positions 0..len(label)-1, ascending, with each class in its share, by the fixed seed.

    The images are put in one order whose first n are taken, so a smaller subset lies inside every larger one: two
    of each class, then by (r + 1/2) / size of the class for the r-th of each class's images in random order
    (apportionment by Sainte-Lague's method: equal classes stay equal to within one image).

    Raises UsageError for more images than there are, or fewer than two a class.
    """
    classes = np.unique(label)
    if not 2 * len(classes) <= n <= len(label):
        raise UsageError(
            f"--subset {n} cannot be taken: the train split has {len(label)} images of {len(classes)} classes, so give "
            f"a number from {2 * len(classes)} (two a class) to {len(label)}, or 0 for all."
        )
    rng = np.random.default_rng(SUBSET_SEED)
    rank = np.empty(len(label))
    for c in classes:
        members = rng.permutation(np.flatnonzero(label == c))
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
        rank[members[:2]] = 0
    return np.sort(np.argsort(rank, kind="stable")[:n])


def stratified_split(
    label: np.ndarray, share: float, classes: Sequence[str] | None = None, seed: int = SPLIT_SEED
) -> tuple[np.ndarray, np.ndarray]:
    """Split positions 0..n-1 into (kept, held), with `share` of each class held, by the fixed seed or another one.

    Both come back in ascending order. `classes` are names in label order, for messages. Raises UserError if a share
    above 0 would hold no image of some class, or leave none.
    """

    def count(c: int, n: int) -> int:
        held = round(share * n)
        if not 0 < held < n:
            raise UserError(
                f"class {classes[c] if classes else c} has {n} training images, of which a holdout of {share} sets "
                f"{held} apart; each class needs at least one on either side. Give another --holdout, or 0 for none."
            )
        return held

    return _split(label, count, seed) if share else (np.arange(len(label)), np.arange(0))


def fold_rows(
    label: np.ndarray, classes: Sequence[str], *, holdout: float, fold_seed: int, subset: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return which images of a train split are trained on and which are held out, ascending; the subset comes first."""
    every = stratified_subset(label, subset) if subset else np.arange(len(label))
    kept, held = stratified_split(label[every], holdout, classes, fold_seed)
    return every[kept], every[held]


def stratified_test(label: np.ndarray, share: float = DIGITS_TEST_SHARE) -> tuple[np.ndarray, np.ndarray]:
    """Split positions 0..n-1 of samples that were published as one set into (train, test), as those of digits are.

    A share of each class is for testing, at least one and never all: of a class with one sample, none.
    """
    return _split(label, lambda _, n: min(max(round(share * n), 1), n - 1))


def _split(
    label: np.ndarray, count: Callable[[int, int], int], seed: int = SPLIT_SEED
) -> tuple[np.ndarray, np.ndarray]:
    """Return (kept, held), ascending, where count(c, n) of the n samples of class c are held."""
    # A stream of its own: that of SUBSET_SEED alone would hold the images of a subset.
    rng = np.random.default_rng((SPLIT_SEED, seed) if seed != SPLIT_SEED else SPLIT_SEED)
    is_held = np.zeros(len(label), dtype=bool)
    for c in np.unique(label):
        members = np.flatnonzero(label == c)
        is_held[rng.permutation(members)[: count(int(c), len(members))]] = True
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)
