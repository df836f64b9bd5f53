"""Probes of A x_j: its rows on demand, and what knn, ncm and estimators share.

What the file stores is read from it; what has to be computed is computed once, into memory or, where `max_memory`
forbids that, into an unlinked file beside the run.
"""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from layerwise import ranks
from layerwise.activations import pooled_batches, pooled_width, read_pooled
from layerwise.errors import option
from layerwise.hardware import reserve_disk
from layerwise.runfile import RunFile
from layerwise.runfile.layout import POOL_SIDE
from probes.probe import Family, Played, ProbeName
from probes.protocol import Fit, Kind, play
from probes.solver.rows import Rows, View, require_finite
from probes.tasks.task import Task


@dataclass(frozen=True)
class Data:
    """Features and labels int64 [n] of one or two splits, end to end.

    Attributes:
        x: float32 [n, d], or rows [n, ...] that are read on demand.
        real: labels [n] on which something is chosen: those of `y`, unless these are permuted.
        counts: number of images of each split.
    """

    x: Rows | np.ndarray
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

    def again(self, depth: int, names: Sequence[ProbeName]) -> Iterator[Played]:
        for name in names:
            yield self.kind(name), self._open(name), [name]

    @abstractmethod
    def kind(self, name: ProbeName) -> Kind[ProbeName, Data, Any]:
        """Return the parts that a probe gives to the protocol."""

    def _open(self, name: ProbeName) -> Any:
        def open_splits(splits: Sequence[str]) -> Data:
            parts = [self._read(name.depth, name.pooling, split) for split in splits]
            x, y, real = zip(*parts, strict=True)
            whole = np.concatenate(x) if all(isinstance(part, np.ndarray) for part in x) else View(*x)
            return Data(
                whole,
                np.concatenate(y),
                np.concatenate(real),
                {split: len(part[1]) for split, part in zip(splits, parts, strict=True)},
            )

        return open_splits

    def _read(self, depth: int, side: int, split: str) -> tuple[Rows | np.ndarray, np.ndarray, np.ndarray]:
        """Return features, labels, and the labels on which something is chosen."""
        x = read_pooled(self.run, depth, split, side=side, device=self.device)[self.task.rows(split)]
        require_finite(x, f"{self.run.path}, depth {depth}, {split} features")
        return x, *self._labels(split)

    def _labels(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        y, chooser = self.task.labels(split), self.task.chooser
        return y, y if chooser is self.task else chooser.labels(split)


def features(
    run: RunFile, task: Task, depth: int, split: str, *, side: int, device: torch.device,
    max_memory: int | None = None, is_shared: bool = False,
) -> Rows | NDArray[np.float32]:  # fmt: skip
    """Return A x_j (x_j itself for side 0) of the images of a split that the task labels, [n, ...].

    Args:
        side: of the average A.
        device: where maps are averaged that the file does not hold averaged.
        max_memory: bytes; what is computed and exceeds it goes to the disk.
        is_shared: whether ranks divide the images, so that each has a stretch of them.
    """
    rows, first = task.rows(split), 0
    rows = rows[ranks.stretch(len(rows))] if is_shared else rows
    source: Rows | NDArray[np.float32] | None = run.pooled(depth, split) if side == POOL_SIDE else None
    if source is None:
        first, stop = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
        source = _computed(run, depth, split, side, device, max_memory, slice(first, stop))
    return source if len(rows) == len(source) else View(source, kept=rows - first)


def _computed(
    run: RunFile, depth: int, split: str, side: int, device: torch.device, max_memory: int | None, rows: slice
) -> NDArray[np.float32]:
    shape = rows.stop - rows.start, pooled_width(run, depth, side)
    result = _room(run, shape, max_memory)
    start = 0
    for batch in pooled_batches(run, depth, split, side=side, device=device, rows=rows):
        result[start : start + len(batch)] = batch
        start += len(batch)
    return result


def _room(run: RunFile, shape: Sequence[int], max_memory: int | None) -> NDArray[np.float32]:
    if max_memory is None or 4 * int(np.prod(shape)) <= max_memory:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile(dir=run.path.parent) as file:  # the mapping outlives the name and the descriptor
        instead = f"Free some, or give a larger {option('max_memory')}."
        reserve_disk(file, 4 * int(np.prod(shape)), run.path.parent, instead)
        return np.memmap(file, np.float32, mode="r+", shape=tuple(shape))
