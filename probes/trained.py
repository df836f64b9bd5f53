"""Owns the rows of what a run trained itself: its auxiliary classifiers, and their ensembles up to each depth.

Nothing is fitted or chosen here. The logits come from the run file, which keeps those of validation and test.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layerwise.errors import UserError
from layerwise.model.ensemble import ensemble
from layerwise.runfile import RunFile
from probes.probe import Family, ProbeName
from probes.protocol import Fit, predictions

# The probe's name, and how auxiliaries are weighted; None for the auxiliary of the depth alone.
WEIGHTINGS = {
    "auxiliary": None,
    "ensemble": "logits",
    "ensemble-softmax": "softmax",
    "ensemble-uniform": "uniform",
}


class TrainedFamily(Family):
    """What the training itself left: an auxiliary classifier a depth, or the ensembles of all up to it."""

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
        return [(name, [score_auxiliary(self.run, depth, self.probe)]) for name in wanted]


def auxiliary_depths(run: RunFile) -> list[int]:
    """Return the depths whose auxiliary classifier the run trained; raise UserError where there is none."""
    if not run.trained_depths:
        raise UserError(
            f"{run.path} has no trained auxiliary classifier to score: its network is untrained, or was trained "
            "elsewhere. Use --probe linear, or train one by layerwise-train --mode greedy."
        )
    return run.trained_depths


def score_auxiliary(run: RunFile, depth: int, probe: str) -> Fit:
    """Return the scores of the auxiliary of a depth, or of an ensemble of all auxiliaries up to it.

    Args:
        depth: one of `auxiliary_depths`.
        probe: one of `WEIGHTINGS`.
    """
    weighting = WEIGHTINGS[probe]
    joined = [depth] if weighting is None else [j for j in auxiliary_depths(run) if j <= depth]
    scores = {}
    for split in ("validation", "test"):
        logits = [found for j in joined if (found := run.outputs(j, split)) is not None]
        if logits:
            scores[split] = predictions(ensemble(logits, weighting or "logits"), run.labels(split))
    return Fit(
        refit=0,
        selection="fixed",
        n_train=len(run.labels("train")),
        n_features=sum(int(np.prod(run.depth_shape(j))) for j in joined),
        seconds=0.0,
        scores=scores,
    )
