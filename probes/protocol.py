"""Owns the protocol, the same for every probe: what chooses, what is refitted, when the test split is read.

1. Candidates (penalties, learning rates) are fitted on the train fold; the validation fold chooses one.
2. The chosen one is reported as it is (refit 0), and fitted again on train + validation (refit 1).
3. Only then is the test split read, in one pass, and both fits are scored on it. It chooses nothing, and how often it
   has been read for a probe stands in the rows.

A run trained with --holdout 0 has no unseen fold to choose on: its probes use a stated fixed value, are not
refitted, and their rows say `selection=seen`. docs/protocol.md gives the sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from layerwise.runfile import RunFile

PROTOCOL_VERSION = 2

Candidate = TypeVar("Candidate")


@dataclass(frozen=True)
class Predictions:
    """What a fitted probe says of the n images of one split.

    label, predicted: true and predicted class, int [n]. true_log_probability, top_log_probability: of the true and of
    the predicted class, in nats, [n].
    """

    label: np.ndarray
    predicted: np.ndarray
    true_log_probability: np.ndarray
    top_log_probability: np.ndarray

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

    @property
    def log_loss_bits(self) -> float:
        """Mean negative log-probability of the true class, in bits a sample."""
        return float(-self.true_log_probability.mean() / np.log(2))


def predictions(log_probability: np.ndarray, label: np.ndarray) -> Predictions:
    """Reduce log-probabilities [n, n_classes] in nats to what is kept of them."""
    images = np.arange(len(label))
    predicted = log_probability.argmax(1)
    return Predictions(label, predicted, log_probability[images, label], log_probability[images, predicted])


def joined(parts: Sequence[Predictions]) -> Predictions:
    """Return the predictions of several splits as those of one, end to end."""
    return Predictions(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])))


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One fitted probe with its scores.

    refit: 0 fitted on the train fold, 1 refitted on train + validation. selection: what chose the hyper-parameter:
        "validation", "seen" (no fold, a fixed value), "control" (that of the real labels), "fixed" (no choice).
    iterations: steps of a convex fit, epochs of a CNN probe. n_features: numbers an image that the probe reads.
    penalty (lambda), learning_rate, certificate, converged, iterations: None where the probe has no such thing.
    scores: predictions for each split it is reported on; at refit 1 "train" means train + validation.
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
    scores: dict[str, Predictions] = field(default_factory=dict)


def selection(run: RunFile) -> str:
    """Return what a run allows to choose on: "validation" (a fold unseen in training) or "seen" (none)."""
    return "validation" if "validation" in run.splits else "seen"


def choose(candidates: Sequence[Candidate], score: Callable[[Candidate], Predictions]) -> int:
    """Return the position of the candidate with the best validation accuracy; ties go to the lower log-loss."""
    scored = [score(candidate) for candidate in candidates]
    return max(range(len(scored)), key=lambda i: (scored[i].accuracy, -scored[i].log_loss_bits))
