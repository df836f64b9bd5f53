"""The protocol, the same for every probe: what chooses, what is refitted, when the test split is read.

1. Candidates (penalties, learning rates) are fitted on the train fold; the validation fold chooses one.
2. The chosen one is reported as it is (refit 0), and fitted again on train + validation (refit 1).
3. Only then is the test split read, in one pass, and both fits are scored on it. It chooses nothing, and how often it
   has been read for a probe stands in the rows.

`play` runs these three steps for every kind of probe. What differs from kind to kind are the methods of `Kind`. They
are handed their data and have no means to read any, so no method sees a test image before `play` has all fits. No
other code of this package opens the test split; tests/test_probes_protocol.py holds it to that.

A run trained with --holdout 0 has no unseen fold to choose on: its probes use a stated fixed value, are not
refitted, and their rows say `selection=seen`. docs/protocol.md gives the sources.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Generic, TypeVar

import numpy as np

from layerwise.runfile import RunFile
from layerwise.top5 import TOP5_FROM, is_in_top5

# Rises whenever a change moves a number that a probe reports: rows of another version are left out, and fitted again.
# 2 brought penalties from 1e-5 to 10^-0.5, other training of CNN probes (AdamW, one cycle), and the raw pixels.
# 3 brought lambda by validation log-loss, on a path that ends where this has passed its lowest point, and certificates
# relative to the objective alone.
PROTOCOL_VERSION = 3

FOLD = ("train", "validation")
TEST = "test"

Candidate = TypeVar("Candidate")
Key = TypeVar("Key", bound=Hashable)
Data = TypeVar("Data")
Fitted = TypeVar("Fitted")


@dataclass(frozen=True)
class Predictions:
    """What a fitted probe says of the n images of one split.

    label, predicted: true and predicted class, int [n]. true_log_probability, top_log_probability: of the true and of
    the predicted class, in nats, [n]. predicted_half: class that the probe predicted after half of its training, [n];
    None of a probe without such a half, or that was not scored there. in_top5: whether the true class is among the
    five likeliest, bool [n]; None of fewer than ten classes, or without probabilities.
    """

    label: np.ndarray
    predicted: np.ndarray
    true_log_probability: np.ndarray
    top_log_probability: np.ndarray
    predicted_half: np.ndarray | None = None
    in_top5: np.ndarray | None = None

    def __repr__(self) -> str:
        return f"Predictions({len(self.label)} samples, accuracy {self.accuracy:.4f})"

    @property
    def correct(self) -> int:
        """Number of images whose predicted class is the true one."""
        return int((self.predicted == self.label).sum())

    @property
    def accuracy(self) -> float:
        """Share of correct predictions, in [0, 1]."""
        return self.correct / len(self.label)

    def rows(self, kept: range) -> Predictions:
        """Return what is said of a range of the images."""
        part = slice(kept.start, kept.stop)
        return replace(self, **{name: values[part] for name, values in vars(self).items() if values is not None})

    @property
    def log_loss_bits(self) -> float:
        """Mean negative log-probability of the true class, in bits a sample."""
        return float(-self.true_log_probability.mean() / np.log(2))


def predictions(log_probability: np.ndarray, label: np.ndarray) -> Predictions:
    """Reduce log-probabilities [n, n_classes] in nats to what is kept of them."""
    images = np.arange(len(label))
    predicted, own = log_probability.argmax(1), log_probability[images, label]
    found = Predictions(label, predicted, own, log_probability[images, predicted])
    if log_probability.shape[1] < TOP5_FROM:
        return found
    return replace(found, in_top5=is_in_top5(log_probability, own) | (predicted == label))


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Return the predictions of several splits as those of one, end to end."""
    kept = [name for name, values in vars(parts[0]).items() if values is not None]
    return replace(parts[0], **{name: np.concatenate([getattr(part, name) for part in parts]) for name in kept})


@dataclass(frozen=True)
class Value:
    """A number that a probe reports beside the metrics of its predictions, and the labels [n] of its images.

    low, high: its 95% interval over these; None where it has none.
    """

    value: float
    label: np.ndarray = field(repr=False)
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One fitted probe with its scores.

    refit: 0 fitted on the train fold, 1 refitted on train + validation. selection: what chose the hyper-parameter:
        "validation", "seen" (no fold, a fixed value), "control" (that of the real labels), "fixed" (no choice).
    iterations: steps of a convex fit, epochs of a CNN probe. batch_size: of a CNN probe. n_features: numbers an image
        that the probe reads.
    neighbors (k), distance: of the nearest neighbours that vote. estimator: a classifier of scikit-learn's grammar, as
        it shows itself.
    penalty (lambda), learning_rate, certificate, converged, iterations, batch_size, neighbors, distance, estimator:
        None where the probe has no such thing.
    scores: predictions for each split it is reported on; at refit 1 "train" means train + validation.
    values: further numbers by split and metric.
    """

    refit: int
    selection: str
    n_train: int
    n_features: int
    seconds: float
    penalty: float | None = None
    learning_rate: float | None = None
    certificate: float | None = None
    converged: bool | None = None
    iterations: int | None = None
    batch_size: int | None = None
    neighbors: int | None = None
    distance: str | None = None
    estimator: str | None = None
    scores: dict[str, Predictions] = field(default_factory=dict)
    values: dict[tuple[str, str], Value] = field(default_factory=dict)


Fits = dict[Key, list[Fit]]


class Kind(ABC, Generic[Key, Data, Fitted]):
    """The parts that one kind of probe gives to the protocol, for the probes it fits together at one depth.

    Key: what names a probe. Data: features and labels of one or two splits, end to end. Fitted: a probe after a fit.
    """

    @abstractmethod
    def choose(self, data: Data) -> dict[Key, Fitted]:
        """Fit candidates on the train fold; return of each probe the one with the best score on the validation fold.

        Data without a validation fold leave no choice: each probe is fitted with its stated fixed value.
        """

    @abstractmethod
    def refit(self, data: Data, chosen: Mapping[Key, Fitted]) -> dict[Key, Fitted]:
        """Fit the probes again on train + validation, with what was chosen for each."""

    @abstractmethod
    def counts(self, data: Data) -> dict[str, int]:
        """Return the number of images of each split in the data, in their order there."""

    @abstractmethod
    def predict(self, fitted: Sequence[Fitted], data: Data) -> Sequence[Predictions]:
        """Return what each fit says of all images of the data, which are read once for all."""

    @abstractmethod
    def report(self, fitted: Fitted, refit: int) -> Fit:
        """Return the facts of a fit, without its scores."""


def choose_and_refit(
    kind: Kind[Key, Data, Fitted], open_splits: Callable[[Sequence[str]], Data], splits: Sequence[str]
) -> tuple[Data, dict[Key, Fitted], dict[Key, Fitted]]:
    """Return the data of the fold, the chosen fits and the refits: steps 1 and 2, which read no test split."""
    fold = [split for split in FOLD if split in splits]
    data = open_splits(fold)
    chosen = kind.choose(data)
    return data, chosen, kind.refit(data, chosen) if len(fold) == 2 else {}


def play(
    kind: Kind[Key, Data, Fitted],
    open_splits: Callable[[Sequence[str]], Data],
    splits: Sequence[str],
    fitted: MutableMapping[Key, Fitted] | None = None,
) -> Fits[Key]:
    """Play the protocol for the probes of one kind at one depth; return the fits of each, with their scores.

    Args:
        open_splits: gives the data of the named splits, end to end. Only this file calls it.
        splits: those that the run has.
        fitted: takes the last fit of each probe, the one that is to be used, where it is wanted.
    """
    data, chosen, refitted = choose_and_refit(kind, open_splits, splits)
    if fitted is not None:
        fitted.update(chosen | refitted)
    fits = [(key, refit, fit) for refit, found in enumerate((chosen, refitted)) for key, fit in found.items()]
    probes = [fit for _, _, fit in fits]
    known = kind.predict(probes, data)
    # Nothing is left to choose or to fit: from here on the test split may be seen, in one pass for all.
    tested = kind.predict(probes, open_splits([TEST]))
    played: Fits[Key] = {}
    for (key, refit, fit), on_fold, on_test in zip(fits, known, tested, strict=True):
        scores = dict(_by_split(on_fold, kind.counts(data), refit)) | {TEST: on_test}
        played.setdefault(key, []).append(replace(kind.report(fit, refit), scores=scores))
    return played


def show(
    kind: Kind[Key, Data, Fitted],
    open_splits: Callable[[Sequence[str]], Data],
    fitted: Mapping[Key, Fitted],
    refit: int,
    split: str,
) -> dict[Key, Fit]:
    """Score probes, as they were fitted and chosen, on images that are no part of the run: step 4, if it is asked for.

    split: the name of a set of images that `open_splits` knows beside the run's own splits.
    """
    assert split not in (*FOLD, TEST)
    scored = kind.predict(list(fitted.values()), open_splits([split]))
    return {
        key: replace(kind.report(fit, refit), scores={split: one})
        for (key, fit), one in zip(fitted.items(), scored, strict=True)
    }


def _by_split(scored: Predictions, counts: Mapping[str, int], refit: int) -> Iterator[tuple[str, Predictions]]:
    """Yield the predictions of each split; a refit has learned from all of them, which are its train images."""
    if refit:
        yield "train", scored
        return
    for split, (start, stop) in zip(counts, pairwise(accumulate(counts.values(), initial=0)), strict=True):
        yield split, scored.rows(range(start, stop))


def has_fold(run: RunFile) -> bool:
    """Return whether a run has a validation fold, unseen in training, on which something can be chosen."""
    return "validation" in run.splits


def best_candidate(candidates: Sequence[Candidate], score: Callable[[Candidate], Predictions]) -> int:
    """Return the position of the candidate with the best validation accuracy; ties go to the lower log-loss.

    Not for the penalty of a linear probe, which validation log-loss chooses: see probes/linear/penalties.py.
    """
    scored = [score(candidate) for candidate in candidates]
    return max(range(len(scored)), key=lambda i: (scored[i].accuracy, -scored[i].log_loss_bits))
