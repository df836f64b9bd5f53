"""Owns stratified choices by fixed seeds: a subset of the train split, and the validation fold."""

from __future__ import annotations

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


def stratified_split(label: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Split positions 0..n-1 into (kept, held), with `share` of each class held, by the fixed seed.

    Both come back in ascending order. Raises UserError if a share above 0 would hold no image of some class,
    or leave none.
    """
    if share == 0:
        return np.arange(len(label)), np.arange(0)
    rng = np.random.default_rng(SPLIT_SEED)
    held = []
    for c in np.unique(label):
        members = np.flatnonzero(label == c)
        count = round(share * len(members))
        if not 0 < count < len(members):
            raise UserError(
                f"class {c} has {len(members)} training images, of which a holdout of {share} sets {count} apart; "
                "each class needs at least one on either side. Give another --holdout, or 0 for none."
            )
        held.append(rng.permutation(members)[:count])
    is_held = np.zeros(len(label), dtype=bool)
    is_held[np.concatenate(held)] = True
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)
