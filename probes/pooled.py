"""Probes that take all of A x_j, of the images of a depth, into memory at once: what knn, ncm and estimators share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from layerwise.activations import read_pooled
from layerwise.runfile import RunFile
from probes.probe import Family, ProbeName
from probes.protocol import Fit, Kind, play
from probes.solver.rows import require_finite
from probes.tasks.task import Task


@dataclass(frozen=True)
class Data:
    """Features float32 [n, d] and labels int64 [n] of one or two splits, end to end.

    Attributes:
        real: labels [n] on which something is chosen: those of `y`, unless these are permuted.
        counts: number of images of each split.
    """

    x: np.ndarray
    y: np.ndarray
    real: np.ndarray
    counts: dict[str, int]


class PooledFamily(Family):
    """One kind of probe on A x_j at every depth of a run.

    Args:
        pools: sides of the average A in front of the probe.
    """

    probe: str

    def __init__(self, run: RunFile, task: Task, *, pools: Sequence[int] = (2,), device: torch.device):
        self.run, self.task, self.pools, self.device = run, task, tuple(pools), device
        self.n_classes = len(task.classes)

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
        return [
            (name, play(self.kind(name), self._open(name), self.run.splits, self.fitted)[name]) for name in wanted
        ]  # fmt: skip

    @abstractmethod
    def kind(self, name: ProbeName) -> Kind[ProbeName, Data, Any]:
        """Return the parts that a probe gives to the protocol."""

    def _open(self, name: ProbeName) -> Any:
        def open_splits(splits: Sequence[str]) -> Data:
            parts = [self._read(name.depth, name.pooling, split) for split in splits]
            x, y, real = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            return Data(x, y, real, {split: len(part[1]) for split, part in zip(splits, parts, strict=True)})

        return open_splits

    def _read(self, depth: int, side: int, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return features, labels, and the labels on which something is chosen."""
        x = read_pooled(self.run, depth, split, side=side, device=self.device)[self.task.rows(split)]
        require_finite(x, f"{self.run.path}, depth {depth}, {split} features")
        y, chooser = self.task.labels(split), self.task.chooser
        return x, y, y if chooser is self.task else chooser.labels(split)
