"""The probes knn and ncm of a run: k and distance are chosen on the validation fold; ncm has no choice."""

from __future__ import annotations

import time
import weakref
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from layerwise.activations import pooled_width
from layerwise.runfile import RunFile
from layerwise.runfile.layout import POOL_SIDE
from probes.nearest.neighbors import DISTANCES, NEIGHBORS, NearestMean, NearestNeighbors, Vote
from probes.pooled import Data, PooledFamily, features
from probes.probe import ProbeName
from probes.protocol import TEST, Fit, Kind, Predictions, best_candidate, joined
from probes.solver.rows import Rows, View, require_finite
from probes.solver.standardiser import Standardiser
from probes.tasks.task import Task

FIXED_VOTE = Vote(10, "euclidean")


class Part:
    """Rows start to stop of features, float32 [m, d] and standardised, read on demand.

    Args:
        standardise: fitted to rows of the same features; None leaves them as they are.
    """

    def __init__(self, x: Rows | np.ndarray, start: int, stop: int, standardise: Standardiser | None = None):
        self._x, self._start, self._standardise = x, start, standardise
        self.shape = stop - start, int(np.prod(x.shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return the rows of a slice of step 1."""
        start, stop, _ = rows.indices(len(self))
        block = np.asarray(self._x[self._start + start : self._start + stop], np.float32)
        block = block.reshape(len(block), self.shape[1])
        return block if self._standardise is None else self._standardise(block)


class Fitted:
    """A knn or ncm probe fitted on the first n images of the data, with their standardisation.

    It keeps no features: fits of all depths wait for other images to be shown, and neighbours are read again then.

    Args:
        vote: how neighbours decide; None for the nearest class mean.
        again: reads the data again; None where they had to be computed, and are kept.
    """

    def __init__(
        self, data: Data, n: int, vote: Vote | None, n_classes: int, device: torch.device,
        again: Callable[[], Data] | None = None,
    ):  # fmt: skip
        self.n, self.vote, self.seconds, self.n_features = n, vote, 0.0, int(np.prod(data.x.shape[1:]))
        self._n_classes, self._device, self._again = n_classes, device, again
        self._data, self._kept = weakref.ref(data), data if vote and again is None else None
        self.standardise = Standardiser(Part(data.x, 0, n))
        x = standardised(data, 0, n, self.standardise)
        self.means = None if vote else NearestMean(x, data.y[:n], n_classes)

    def predict(self, data: Data) -> Predictions:
        """Return what the probe says of data; of images that it was fitted on, none is its own neighbour."""
        if data is not self._data():
            return self._predict(data, 0, len(data.y), own=False)
        own = self._predict(data, 0, self.n, own=True)
        if self.n == len(data.y):
            return own
        return joined([own, self._predict(data, self.n, len(data.y), own=False)])

    def _predict(self, data: Data, start: int, stop: int, *, own: bool) -> Predictions:
        x, y = standardised(data, start, stop, self.standardise), data.y[start:stop]
        if self.means is not None:
            return self.means.predict(x, y)
        assert self.vote is not None
        return self._neighbors().predict(x, y, [self.vote], own=own)[self.vote]

    def _neighbors(self) -> NearestNeighbors:
        data = self._data()
        if data is None:
            assert self._again is not None
            data = self._again()
        x = standardised(data, 0, self.n, self.standardise)
        return NearestNeighbors(x, data.y[: self.n], self._n_classes, self._device)


def standardised(data: Data, start: int, stop: int, standardise: Standardiser) -> Part | np.ndarray:
    """Return standardised rows of the data: held where the data are, else read on demand."""
    part = Part(data.x, start, stop, standardise)
    return part[:] if isinstance(data.x, np.ndarray) else part


class NearestKind(Kind[ProbeName, Data, Fitted]):
    """One probe of A x_j that is not trained.

    `vote_of` gives its vote from the data; None for the class mean. `again`: of `Fitted`.
    """

    def __init__(
        self,
        name: ProbeName,
        selection: str,
        n_classes: int,
        device: torch.device,
        vote_of: Callable[[Data], Vote | None],
        again: Callable[[], Data] | None = None,
    ):
        self.name, self.selection, self.n_classes, self.device = name, selection, n_classes, device
        self.vote_of, self.again = vote_of, again

    def choose(self, data: Data) -> dict[ProbeName, Fitted]:
        start = time.perf_counter()
        vote = self.vote_of(data)
        return {self.name: self._fitted(data, data.counts["train"], vote, start)}

    def refit(self, data: Data, chosen: Mapping[ProbeName, Fitted]) -> dict[ProbeName, Fitted]:
        start = time.perf_counter()
        return {name: self._fitted(data, len(data.y), first.vote, start) for name, first in chosen.items()}

    def _fitted(self, data: Data, n: int, vote: Vote | None, start: float) -> Fitted:
        fitted = Fitted(data, n, vote, self.n_classes, self.device, self.again)
        fitted.seconds = time.perf_counter() - start
        return fitted

    def counts(self, data: Data) -> dict[str, int]:
        return data.counts

    def predict(self, fitted: Sequence[Fitted], data: Data) -> list[Predictions]:
        return [one.predict(data) for one in fitted]

    def report(self, fitted: Fitted, refit: int) -> Fit:
        vote = fitted.vote
        return Fit(
            refit=refit, selection=self.selection, n_train=fitted.n, n_features=fitted.n_features,
            seconds=fitted.seconds,
            neighbors=vote.neighbors if vote else None, distance=vote.distance if vote else None,
        )  # fmt: skip


class NearestFamily(PooledFamily):
    """One kind of probe on A x_j that is not trained, at every depth of a run.

    Args:
        max_memory: bytes; features of which twice their size exceeds it are read block by block, with the same result.
    """

    def __init__(
        self,
        run: RunFile,
        task: Task,
        *,
        pools: Sequence[int] = (2,),
        device: torch.device,
        max_memory: int | None = None,
    ):
        super().__init__(run, task, pools=pools, device=device)
        self.title, self.max_memory = f"{self.probe} probe", max_memory

    def _read(self, depth: int, side: int, split: str) -> tuple[Rows | np.ndarray, np.ndarray, np.ndarray]:
        n = sum(len(self.task.rows(one)) for one in self.run.splits if one != TEST)
        if self.max_memory is None or 8 * n * pooled_width(self.run, depth, side) <= self.max_memory:
            return super()._read(depth, side, split)
        x = View(features(self.run, self.task, depth, split, side=side, device=self.device, max_memory=self.max_memory))
        require_finite(x, f"{self.run.path}, depth {depth}, {split} features")
        return x, *self._labels(split)

    def kind(self, name: ProbeName) -> NearestKind:
        stored = name.pooling == POOL_SIDE and self.run.pooled(name.depth, "train") is not None
        fold = [split for split in self.run.splits if split != TEST]
        again = partial(self._open(name), fold) if stored else None
        return NearestKind(name, self.selection, self.n_classes, self.device, self.vote_of, again)

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
        standardise = Standardiser(Part(data.x, 0, n))
        known = NearestNeighbors(standardised(data, 0, n, standardise), data.real[:n], self.n_classes, self.device)
        votes = [Vote(k, distance) for k in NEIGHBORS if k <= n for distance in DISTANCES]
        scores = known.predict(standardised(data, n, len(data.y), standardise), data.real[n:], votes)
        return votes[best_candidate(votes, scores.__getitem__)]


class NcmFamily(NearestFamily):
    """The nearest class mean, where nothing is to choose."""

    probe = "ncm"
    selection = "fixed"

    def vote_of(self, data: Data) -> None:
        return None
