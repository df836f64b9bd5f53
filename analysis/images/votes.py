"""People's votes on single images: read, put in the order of a run's images, and compared with predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from analysis.images.shares import Share, share
from layerwise.errors import UserError, option, unknown
from probes.results.intervals import CONFIDENCE

ORDERS = ("index", "folder")
# Below this share of images whose most-voted class is their label, the votes are of other images or classes.
_LEAST_AGREEMENT = 0.5
_RESAMPLES = 2_000


@dataclass(frozen=True)
class Votes:
    """Votes on images, counts [n, K], and what else their file says: `index` and `labels`, int [n], or None."""

    name: str
    counts: np.ndarray
    index: np.ndarray | None = None
    labels: np.ndarray | None = None


def read_votes(path: Path) -> Votes:
    """Return the votes of an .npz file: an array `counts`, and `index` and `labels` where it has them."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in ("counts", "index", "labels") if name in file}
            names = ", ".join(file)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; expected an .npz file with the array counts [n, K].") from None
    except Exception as error:  # of many kinds: whatever zipfile or numpy stumbles over
        raise UserError(f"{path} cannot be read as .npz ({type(error).__name__}). Write it by numpy.savez.") from None
    if "counts" not in found:
        raise UserError(f"{path} lacks the array counts [n, K], votes for each class of each image; it has {names}.")
    return Votes(str(path), found["counts"], found.get("index"), found.get("labels"))


def ordered(votes: Votes, order: str, index: np.ndarray, label: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the votes on the images of a run in its order, float64 [n, K]; refuse votes that are not theirs.

    Args:
        order: "index": row i is of the image with index i of the published test split, or with the i-th of
            `votes.index`. "folder": row i is of image i of the published order, and the run counts class by class and
            in that order within a class, as an image folder does; `votes.labels` says the classes.
        index, label: of the images of the run, int [n].

    Raises UserError for another number of images or classes, numbers that are no counts, labels that are not the
    run's, and images whose most-voted class is mostly not their label.
    """
    if order not in ORDERS:
        raise unknown("order of votes", order, ORDERS)
    _check_counts(votes, n_classes)
    rows = _by_folder(votes, index) if order == "folder" else _by_index(votes, index)
    if votes.labels is not None and (wrong := int((votes.labels[rows] != label).sum())):
        raise UserError(
            f"{votes.name}: by {option('votes_order', order)}, {wrong} of {len(label)} images have another label than "
            f"in the run. {_cure(order)}"
        )
    counts: np.ndarray = votes.counts[rows].astype(np.float64)
    agreement = float((counts[np.arange(len(label)), label] == counts.max(axis=1)).mean())
    if agreement < _LEAST_AGREEMENT:
        raise UserError(
            f"{votes.name}: by {option('votes_order', order)}, only {100 * agreement:.1f}% of the images have their "
            f"label as the class with most votes, so these are votes on other images or classes. {_cure(order)}"
        )
    return counts


def _cure(order: str) -> str:
    if order == "folder":
        return (
            f"Give the labels and votes of the split that the folder was made of, or {option('votes_order', 'index')}."
        )
    return (
        "Votes in the published order on a run of an image folder need the array labels in the file and "
        f"{option('votes_order', 'folder')}; else say by an array index of which image each row is."
    )


def _check_counts(votes: Votes, n_classes: int) -> None:
    counts = votes.counts
    if counts.ndim != 2 or counts.shape[1] != n_classes:
        raise UserError(
            f"{votes.name}: counts is {list(counts.shape)}, but must be [n, {n_classes}]: a column for each class of "
            "the run, in their order."
        )
    if counts.dtype.kind not in "uif" or not np.isfinite(counts).all() or (counts < 0).any():
        raise UserError(f"{votes.name}: counts holds what is no count. Give numbers of votes, 0 or more.")
    if len(empty := np.flatnonzero(counts.sum(axis=1) == 0)):
        raise UserError(f"{votes.name}: row {empty[0]} of counts has no vote ({len(empty)} such rows).")
    for name in ("index", "labels"):
        one = getattr(votes, name)
        if one is not None and (one.shape != (len(counts),) or one.dtype.kind not in "ui"):
            raise UserError(f"{votes.name}: {name} must be whole numbers [{len(counts)}], one for each row of counts.")


def _by_index(votes: Votes, index: np.ndarray) -> np.ndarray:
    """Return the row of votes of each image."""
    if votes.index is None:
        if len(votes.counts) != len(index) or index.max() >= len(index):
            raise UserError(
                f"{votes.name} has votes on {len(votes.counts)} images, but the run has {len(index)} test images, of "
                f"index {index.min()} to {index.max()}. Add an array index that says of which image each row is."
            )
        return index
    place = {int(one): row for row, one in enumerate(votes.index)}
    if len(place) < len(votes.index):
        raise UserError(f"{votes.name}: index names an image twice. Give each image one row.")
    if missing := [int(one) for one in index if int(one) not in place]:
        raise UserError(
            f"{votes.name} has no votes on {len(missing)} of the {len(index)} test images of the run (first: index "
            f"{missing[0]})."
        )
    return np.array([place[int(one)] for one in index])


def _by_folder(votes: Votes, index: np.ndarray) -> np.ndarray:
    """Return the row of votes of each image of a folder, which counts class by class."""
    if votes.labels is None:
        raise UserError(
            f"{votes.name} lacks the array labels, by which rows of a published order are found in a folder that "
            "counts class by class. Save it beside counts: the published label of each row."
        )
    if index.max() >= len(votes.counts):
        raise UserError(
            f"{votes.name} has votes on {len(votes.counts)} images, but the run has an image of index {index.max()}. "
            "Give votes on all images of the split that the folder was made of."
        )
    rows: np.ndarray = np.argsort(votes.labels, kind="stable")[index]
    return rows


def entropy(counts: np.ndarray) -> np.ndarray:
    """Return the entropy of the votes on each image, bits [n] in [0, log2 K]."""
    p = counts / counts.sum(axis=1, keepdims=True)
    bits: np.ndarray = np.round(-(p * np.log2(np.where(p > 0, p, 1))).sum(axis=1), 12) + 0.0
    return bits


def agreement(counts: np.ndarray, predicted: np.ndarray, label: np.ndarray) -> dict[str, Share]:
    """Return by name how predictions of images, int [n], agree with votes, [n, K].

    - votes: mean share of an image's votes that are for the predicted class: how often a person says the same.
    - votes_most: share of images whose predicted class has most votes, or as many as another.
    - votes_wrong: `votes` over the images that are predicted wrong; votes_any_wrong: what a wrong class drawn evenly
      from the other K - 1 would have there.
    """
    shares = counts / counts.sum(axis=1, keepdims=True)
    every = np.arange(len(label))
    own, wrong = shares[every, predicted], predicted != label
    others = (1 - shares[every, label]) / (counts.shape[1] - 1)
    return {
        "votes": share(own),
        "votes_most": share(own == shares.max(axis=1)),
        "votes_wrong": share(own[wrong]),
        "votes_any_wrong": share(others[wrong]),
    }


def people(counts: np.ndarray) -> Share:
    """Return how often two different people say the same of an image, mean over images with two votes or more."""
    n = counts.sum(axis=1)
    same, several = (counts * (counts - 1)).sum(axis=1), n > 1
    return share(same[several] / (n * (n - 1))[several])


def rank_correlation(first: np.ndarray, second: np.ndarray) -> Share:
    """Return Spearman's rank correlation over images, in [-1, 1], with a bootstrap interval (ranks are kept).

    Images enter a resample with one of few pairs of values, whose numbers are drawn at once (`mean_interval`). Missing
    where one of the two does not differ between images.
    """
    pairs, counts = np.unique(np.column_stack([rankdata(first), rankdata(second)]), axis=0, return_counts=True)
    n = len(first)
    value = float(_correlation(counts[None] / n, pairs)[0])
    if not math.isfinite(value):
        return Share(math.nan, math.nan, math.nan, n)
    drawn = _correlation(np.random.default_rng(0).multinomial(n, counts / n, _RESAMPLES) / n, pairs)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return Share(value, float(low), float(high), n)


def _correlation(weights: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the correlation of pairs [p, 2] under weights [draws, p] that sum to 1."""
    x, y = (pairs - pairs.mean(axis=0)).T
    mean_x, mean_y = weights @ x, weights @ y
    covariance = weights @ (x * y) - mean_x * mean_y
    variances = (weights @ x**2 - mean_x**2) * (weights @ y**2 - mean_y**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = np.where(variances > 1e-9, covariance / np.sqrt(np.maximum(variances, 0)), np.nan)
    return found
