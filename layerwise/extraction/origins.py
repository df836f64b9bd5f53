"""Where the activations of an extraction come from, and what their network has seen of the data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from layerwise.errors import UsageError, UserError, option, unknown

TRAINED_ON = ("nothing", "other-data", "train-fold", "train-split")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a file says of where its activations come from; `facts` is kept as JSON.

    label: what figures call the network. trained_on: one of `TRAINED_ON`; after "train-split" no fold is unseen.
    seed: tells repetitions apart that figures average.
    """

    label: str
    trained_on: str
    seed: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.trained_on not in TRAINED_ON:
            raise unknown(option("trained_on"), self.trained_on, TRAINED_ON)
        if not self.label or not self.label.isprintable():
            raise UsageError(f"{option('label')} is {self.label!r}, but must be one line of text.")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"{option('seed')} is {self.seed}, but must be an integer in [0, 2^32).")

    def to_json(self) -> str:
        """Return all of it as JSON with sorted keys."""
        own = {"label": self.label, "trained_on": self.trained_on, "seed": self.seed}
        return json.dumps({**self.facts, **own}, sort_keys=True)


def holdout_of(trained_on: str, holdout: float) -> float:
    """Return the share set apart for validation: none where the network has seen the whole train split."""
    return 0.0 if trained_on == "train-split" else holdout


def require_fold(trained_on: str, has_fold: bool, whose: str) -> None:
    """Raise UserError where data contradict `trained_on`: their fold was seen, or the unseen one is not there.

    A fold drawn here would hold samples that a network trained elsewhere has seen.

    Args:
        has_fold: whether the data came with a validation fold. whose: what messages call the data.
    """
    if trained_on == "train-split" and has_fold:
        raise UserError(
            f"{whose} has a validation split, but {option('trained_on', 'train-split')} says that no sample was "
            f"unseen in training. Give {option('trained_on', 'train-fold')} if it was unseen, or call them train."
        )
    if trained_on == "train-fold" and not has_fold:
        raise UserError(
            f"{whose} has no validation split, but {option('trained_on', 'train-fold')} says that one was unseen in "
            "training, and one drawn here would not be. Give its samples as validation, or say "
            f"{option('trained_on', 'train-split')}."
        )


def fingerprint_of(labels: np.ndarray, index: np.ndarray) -> str:
    """Return a SHA-256 of labels and positions, for data whose inputs are not kept."""
    return hashlib.sha256(labels.tobytes() + index.tobytes()).hexdigest()
