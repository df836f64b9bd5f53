"""Owns the probes knn and ncm as families: what is chosen on the validation fold, the refit, and the test split."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

from layerwise.activations import pooled_features
from layerwise.runfile import RunFile
from probes.nearest.neighbors import DISTANCES, NEIGHBORS, NearestMean, NearestNeighbors, Vote
from probes.probe import Family, ProbeName
from probes.protocol import Fit, Predictions, choose, selection
from probes.solver.rows import require_finite
from probes.solver.standardiser import Standardiser
from probes.tasks.controls import Permuted
from probes.tasks.task import Task

FIXED_VOTE = Vote(10, "euclidean")


class Data:
    """Features float32 [n, d] and labels int64 [n] of one or more splits, joined end to end."""

    def __init__(self, x: np.ndarray, y: np.ndarray):
        self.x, self.y = x, y

    def __add__(self, other: Data) -> Data:
        return Data(np.concatenate([self.x, other.x]), np.concatenate([self.y, other.y]))


class Fitted:
    """A knn or ncm probe with the standardisation of the data it was fitted on.

    Args:
        vote: how neighbours decide; None for the nearest class mean.
    """

    def __init__(self, data: Data, vote: Vote | None, n_classes: int, device: torch.device):
        self.data, self.vote, self.n_classes, self.device = data, vote, n_classes, device
        self.standardise = Standardiser(data.x)
        x = self.standardise(data.x)
        self.neighbors = NearestNeighbors(x, data.y, n_classes, device) if vote else None
        self.means = None if vote else NearestMean(x, data.y, n_classes)

    def again(self, data: Data) -> Fitted:
        """Return the same probe fitted on other data, standardised anew."""
        return Fitted(data, self.vote, self.n_classes, self.device)

    def predict(self, data: Data, *, own: bool = False) -> Predictions:
        """Return what the probe says of data; own: whether these are the data it was fitted on."""
        x = self.standardise(data.x)
        if self.means is not None:
            return self.means.predict(x, data.y)
        assert self.neighbors is not None and self.vote is not None
        return self.neighbors.predict(x, data.y, [self.vote], own=own)[self.vote]


class NearestFamily(Family):
    """One kind of probe on A x_j that is not trained, at every depth of a run.

    Args:
        pools: sides of the average A in front of the probe.
    """

    probe: str

    @property
    @abstractmethod
    def selection(self) -> str:
        """What chooses: see probes.protocol.Fit."""

    def __init__(self, run: RunFile, task: Task, *, pools: Sequence[int] = (2,), device: torch.device):
        self.run, self.task, self.pools, self.device = run, task, tuple(pools), device
        self.n_classes = len(task.classes)
        self.title = f"{self.probe} probe"

    def depths(self) -> list[int]:
        return self.run.depths

    def names(self, depth: int) -> list[ProbeName]:
        control, target = self.task.control, self.task.target
        return [
            ProbeName(depth=depth, probe=self.probe, control=control, pooling=side, target=target)
            for side in self.pools
        ]  # fmt: skip

    def fit(self, depth: int, wanted: Sequence[ProbeName]) -> list[tuple[ProbeName, list[Fit]]]:
        """Fit the wanted probes of a depth by the protocol: the fit on the train fold and, with a fold, the refit."""
        return [(name, self._fit(depth, name.pooling)) for name in wanted]

    def _fit(self, depth: int, side: int) -> list[Fit]:
        held = self._read(depth, side, "validation") if "validation" in self.run.splits else None
        train = self._read(depth, side, "train")
        start = time.perf_counter()
        first = self._fitted(train, held)
        fitted = [first] if held is None else [first, first.again(first.data + held)]
        seconds = (time.perf_counter() - start) / len(fitted)
        # The choice is made; only now is the test split read, once.
        test = self._read(depth, side, "test")
        fits = []
        for refit, probe in enumerate(fitted):
            scores = {"train": probe.predict(probe.data, own=True), "test": probe.predict(test)}
            if held is not None and not refit:
                scores["validation"] = probe.predict(held)
            fits.append(self._report(probe, refit, seconds, scores))
        return fits

    @abstractmethod
    def _fitted(self, train: Data, held: Data | None) -> Fitted:
        """Return the probe fitted on the train fold, with what the validation fold chose."""

    def _report(self, probe: Fitted, refit: int, seconds: float, scores: dict[str, Predictions]) -> Fit:
        vote = probe.vote
        return Fit(
            refit=refit, selection=self.selection, n_train=len(probe.data.y), n_features=probe.data.x.shape[1],
            seconds=seconds, scores=scores,
            neighbors=vote.neighbors if vote else None, distance=vote.distance if vote else None,
        )  # fmt: skip

    def _read(self, depth: int, side: int, split: str) -> Data:
        x = pooled_features(self.run, depth, split, side=side, device=self.device)[self.task.rows(split)]
        require_finite(x, f"{self.run.path}, depth {depth}, {split} features")
        return Data(x, self.task.labels(split))


class KnnFamily(NearestFamily):
    """k nearest neighbours, k and distance chosen on the validation fold."""

    probe = "knn"

    @property
    def selection(self) -> str:
        how = selection(self.run)
        return "control" if how == "validation" and isinstance(self.task, Permuted) else how

    def _fitted(self, train: Data, held: Data | None) -> Fitted:
        if held is None:
            return Fitted(train, FIXED_VOTE, self.n_classes, self.device)
        # Nothing of permuted labels can be predicted, so nothing can be chosen on them.
        task = self.task.task if isinstance(self.task, Permuted) else self.task
        known = NearestNeighbors(Standardiser(train.x)(train.x), task.labels("train"), self.n_classes, self.device)
        votes = [Vote(k, distance) for k in NEIGHBORS if k <= len(train.y) for distance in DISTANCES]
        scores = known.predict(Standardiser(train.x)(held.x), task.labels("validation"), votes)
        return Fitted(train, votes[choose(votes, scores.__getitem__)], self.n_classes, self.device)


class NcmFamily(NearestFamily):
    """The nearest class mean, where nothing is to choose."""

    probe = "ncm"

    @property
    def selection(self) -> str:
        return "fixed"

    def _fitted(self, train: Data, held: Data | None) -> Fitted:
        return Fitted(train, None, self.n_classes, self.device)
