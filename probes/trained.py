"""The classifiers that a run trained itself, as probes: its auxiliaries, and their ensembles up to each depth.

Nothing is fitted or chosen here. The logits come from the run file, which keeps those of validation and test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layerwise.errors import UserError
from layerwise.model.ensemble import ensemble
from layerwise.runfile import RunFile
from probes.probe import Family, Played, ProbeName
from probes.protocol import Fit, Kind, Predictions, joined, play, predictions

# The probe's name, and how auxiliaries are weighted; None for the auxiliary of the depth alone.
WEIGHTINGS = {
    "auxiliary": None,
    "ensemble": "logits",
    "ensemble-softmax": "softmax",
    "ensemble-uniform": "uniform",
}

# Said of no image: a run without a validation fold keeps outputs of the test split alone.
NOTHING = predictions(np.empty((0, 1)), np.empty(0, int))


class TrainedFamily(Family):
    """What the training itself left: an auxiliary classifier a depth, or the ensembles of all up to it."""

    selection = "fixed"

    def __init__(self, run: RunFile, probe: str):
        self.run, self.probe = run, probe
        self.title = f"{probe} as the run trained it"

    def depths(self) -> list[int]:
        """Return the depths with an auxiliary; raise UserError where a run has none, or no two to join."""
        depths = auxiliary_depths(self.run)
        if self.probe != "auxiliary" and len(depths) == 1:
            raise UserError(
                f"{self.run.path} has one trained auxiliary classifier, at depth {depths[0]}, and so no ensemble. "
                "Use --probe auxiliary."
            )
        return depths

    def names(self, depth: int) -> list[ProbeName]:
        """Return the one name of a depth."""
        return [ProbeName(depth=depth, probe=self.probe, pooling=0)]

    def fit(self, depth: int, wanted: Sequence[ProbeName]) -> list[tuple[ProbeName, list[Fit]]]:
        """Score what was trained."""
        ((kind, open_splits, _),) = self.again(depth, wanted)
        return list(play(kind, open_splits, self.run.splits, self.fitted).items())

    def again(self, depth: int, names: Sequence[ProbeName]) -> Iterator[Played]:
        joins = [depth] if WEIGHTINGS[self.probe] is None else [j for j in self.depths() if j <= depth]
        n_features = sum(int(np.prod(self.run.depth_shape(j))) for j in joins)
        (name,) = names
        kind = TrainedKind(name, WEIGHTINGS[self.probe] or "logits", len(self.run.indices("train")), n_features)

        def open_splits(splits: Sequence[str]) -> Outputs:
            logits = {
                split: [found for j in joins if (found := self.run.outputs(j, split)) is not None] for split in splits
            }
            kept = {split: found for split, found in logits.items() if found}  # no run keeps those of the train split
            return Outputs(kept, {split: self.run.labels(split) for split in kept})

        yield kind, open_splits, names


@dataclass(frozen=True)
class Outputs:
    """Logits [n, n_classes] of the auxiliaries that are joined, and labels [n], by split."""

    logits: dict[str, list[np.ndarray]]
    label: dict[str, np.ndarray]


class TrainedKind(Kind[ProbeName, Outputs, str]):
    """An auxiliary, or an ensemble of some, as the training left it: nothing is chosen, fitted or refitted."""

    def __init__(self, name: ProbeName, weighting: str, n_train: int, n_features: int):
        self.name, self.weighting, self.n_train, self.n_features = name, weighting, n_train, n_features

    def choose(self, data: Outputs) -> dict[ProbeName, str]:
        return {self.name: self.weighting}

    def refit(self, data: Outputs, chosen: Mapping[ProbeName, str]) -> dict[ProbeName, str]:
        return {}

    def counts(self, data: Outputs) -> dict[str, int]:
        return {split: len(label) for split, label in data.label.items()}

    def predict(self, fitted: Sequence[str], data: Outputs) -> list[Predictions]:
        scored = [
            [predictions(ensemble(logits, one), data.label[split]) for split, logits in data.logits.items()]
            for one in fitted
        ]
        return [joined(parts or [NOTHING]) for parts in scored]

    def report(self, fitted: str, refit: int) -> Fit:
        return Fit(refit=refit, selection="fixed", n_train=self.n_train, n_features=self.n_features, seconds=0.0)


def auxiliary_depths(run: RunFile) -> list[int]:
    """Return the depths whose auxiliary classifier the run trained; raise UserError where there is none."""
    if not run.trained_depths:
        raise UserError(
            f"{run.path} has no trained auxiliary classifier to score: its network is untrained, or was trained "
            "elsewhere. Use --probe linear, or train one by `layerwise-train --mode greedy`."
        )
    return run.trained_depths
