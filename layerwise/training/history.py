"""The record of a training: a score, an epoch's row, and the table of them in run.h5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

HISTORY_TYPE = np.dtype(
    [
        ("block", "<i4"),
        ("epoch", "<i4"),
        ("learning_rate", "<f8"),
        ("train_loss", "<f8"),
        ("train_accuracy", "<f8"),
        ("validation_loss", "<f8"),
        ("validation_accuracy", "<f8"),
    ]
)


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy in nats and accuracy in [0, 1] over n images."""

    loss: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class Epoch:
    """A finished epoch: depth j of the classifier, epoch from 0, its last learning rate, its scores.

    train: the mean over the epoch's steps, while weights changed and images were augmented. validation: after the
    epoch, in eval mode; None where the run has no fold. seconds: wall time, shared evenly among problems trained
    together.
    """

    block: int
    epoch: int
    learning_rate: float
    train: Score
    validation: Score | None
    seconds: float


def history_table(epochs: Sequence[Epoch]) -> np.ndarray:
    """Return the epochs as the structured array of run.h5: NaN where there is no validation score, no durations."""
    rows = []
    for epoch in epochs:
        score = epoch.validation
        validation = (score.loss, score.accuracy) if score else (np.nan, np.nan)
        train = (epoch.train.loss, epoch.train.accuracy)
        rows.append((epoch.block, epoch.epoch, epoch.learning_rate, *train, *validation))
    return np.array(rows, dtype=HISTORY_TYPE)


def to_rows(epochs: Sequence[Epoch]) -> np.ndarray:
    """Return all fields of the epochs as float64 [epochs, 10], for `from_rows`."""
    rows = []
    for epoch in epochs:
        score = epoch.validation
        validation = (score.loss, score.accuracy, score.n) if score else (np.nan, np.nan, 0)
        train = (epoch.train.loss, epoch.train.accuracy, epoch.train.n)
        rows.append((epoch.block, epoch.epoch, epoch.learning_rate, *train, *validation, epoch.seconds))
    return np.array(rows, dtype=np.float64).reshape(-1, 10)


def from_rows(rows: np.ndarray) -> list[Epoch]:
    """Return the epochs that `to_rows` wrote."""
    epochs = []
    for (
        block,
        epoch,
        rate,
        loss,
        accuracy,
        n,
        validation_loss,
        validation_accuracy,
        n_validation,
        seconds,
    ) in rows.tolist():
        validation = Score(validation_loss, validation_accuracy, int(n_validation)) if n_validation else None
        epochs.append(Epoch(int(block), int(epoch), rate, Score(loss, accuracy, int(n)), validation, seconds))
    return epochs
