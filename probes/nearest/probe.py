"""The probes knn and ncm of a run: k and distance are chosen on the validation fold; ncm has no choice."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from layerwise.runfile import RunFile
from probes.nearest.neighbors import DISTANCES, NEIGHBORS, NearestMean, NearestNeighbors, Vote
from probes.pooled import Data, PooledFamily
from probes.probe import ProbeName
from probes.protocol import Fit, Kind, Predictions, best_candidate, joined
from probes.solver.standardiser import Standardiser
from probes.tasks.task import Task

FIXED_VOTE = Vote(10, "euclidean")


class Fitted:
    """A knn or ncm probe fitted on the first n images of the data, with their standardisation.

    Args:
        vote: how neighbours decide; None for the nearest class mean.
    """

    def __init__(self, data: Data, n: int, vote: Vote | None, n_classes: int, device: torch.device):
        self.data, self.n, self.vote, self.seconds = data, n, vote, 0.0
        self.standardise = Standardiser(data.x[:n])
        x, y = self.standardise(data.x[:n]), data.y[:n]
        self.neighbors = NearestNeighbors(x, y, n_classes, device) if vote else None
        self.means = None if vote else NearestMean(x, y, n_classes)

    def predict(self, data: Data) -> Predictions:
        """Return what the probe says of data; of images that it was fitted on, none is its own neighbour."""
        if data is not self.data:
            return self._predict(data.x, data.y, own=False)
        own = self._predict(data.x[: self.n], data.y[: self.n], own=True)
        if self.n == len(data.y):
            return own
        return joined([own, self._predict(data.x[self.n :], data.y[self.n :], own=False)])

    def _predict(self, features: np.ndarray, y: np.ndarray, *, own: bool) -> Predictions:
        x = self.standardise(features)
        if self.means is not None:
            return self.means.predict(x, y)
        assert self.neighbors is not None and self.vote is not None
        return self.neighbors.predict(x, y, [self.vote], own=own)[self.vote]


class NearestKind(Kind[ProbeName, Data, Fitted]):
    """One probe of A x_j that is not trained. `vote_of` gives its vote from the data; None for the class mean."""

    def __init__(
        self,
        name: ProbeName,
        selection: str,
        n_classes: int,
        device: torch.device,
        vote_of: Callable[[Data], Vote | None],
    ):
        self.name, self.selection, self.n_classes, self.device, self.vote_of = (
            name,
            selection,
            n_classes,
            device,
            vote_of,
        )

    def choose(self, data: Data) -> dict[ProbeName, Fitted]:
        start = time.perf_counter()
        vote = self.vote_of(data)
        return {self.name: self._fitted(data, data.counts["train"], vote, start)}

    def refit(self, data: Data, chosen: Mapping[ProbeName, Fitted]) -> dict[ProbeName, Fitted]:
        start = time.perf_counter()
        return {name: self._fitted(data, len(data.y), first.vote, start) for name, first in chosen.items()}

    def _fitted(self, data: Data, n: int, vote: Vote | None, start: float) -> Fitted:
        fitted = Fitted(data, n, vote, self.n_classes, self.device)
        fitted.seconds = time.perf_counter() - start
        return fitted

    def counts(self, data: Data) -> dict[str, int]:
        return data.counts

    def predict(self, fitted: Sequence[Fitted], data: Data) -> list[Predictions]:
        return [one.predict(data) for one in fitted]

    def report(self, fitted: Fitted, refit: int) -> Fit:
        vote = fitted.vote
        return Fit(
            refit=refit, selection=self.selection, n_train=fitted.n, n_features=fitted.data.x.shape[1],
            seconds=fitted.seconds,
            neighbors=vote.neighbors if vote else None, distance=vote.distance if vote else None,
        )  # fmt: skip


class NearestFamily(PooledFamily):
    """One kind of probe on A x_j that is not trained, at every depth of a run."""

    def __init__(self, run: RunFile, task: Task, *, pools: Sequence[int] = (2,), device: torch.device):
        super().__init__(run, task, pools=pools, device=device)
        self.title = f"{self.probe} probe"

    def kind(self, name: ProbeName) -> NearestKind:
        return NearestKind(name, self.selection, self.n_classes, self.device, self.vote_of)

    @abstractmethod
    def vote_of(self, data: Data) -> Vote | None:
        """Return how neighbours decide: what the validation fold chooses, or the stated vote where there is none."""


class KnnFamily(NearestFamily):
    """k nearest neighbours, k and distance chosen on the validation fold."""

    probe = "knn"

    def vote_of(self, data: Data) -> Vote:
        if "validation" not in data.counts:
            return FIXED_VOTE
        n = data.counts["train"]
        standardise = Standardiser(data.x[:n])
        known = NearestNeighbors(standardise(data.x[:n]), data.real[:n], self.n_classes, self.device)
        votes = [Vote(k, distance) for k in NEIGHBORS if k <= n for distance in DISTANCES]
        scores = known.predict(standardise(data.x[n:]), data.real[n:], votes)
        return votes[best_candidate(votes, scores.__getitem__)]


class NcmFamily(NearestFamily):
    """The nearest class mean, where nothing is to choose."""

    probe = "ncm"
    selection = "fixed"

    def vote_of(self, data: Data) -> None:
        return None
