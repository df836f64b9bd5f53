"""Features and labels of a depth as the linear probe reads them: rows on demand, of the images that a task labels.

What the file stores is read from it; what has to be computed is computed once, into memory or, where `max_memory`
forbids that, into an unlinked file beside the run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from layerwise.activations import pooled_batches, pooled_width
from layerwise.errors import option
from layerwise.hardware import reserve_disk
from layerwise.runfile import RunFile
from layerwise.runfile.layout import POOL_SIDE
from probes.solver.rows import Rows, View
from probes.tasks.task import Task


@dataclass(frozen=True)
class DepthData:
    """Features and labels of one or two splits of a depth.

    Attributes:
        x, y: features [n, ...] and labels [n] by split.
        chooser_y: labels on which a penalty is chosen, by split: those of `y`, unless these are permuted.
        file: path of the run file, for messages.
        max_memory: bytes; features of which twice their size exceeds it are read block by block.
    """

    x: dict[str, Rows | np.ndarray]
    y: dict[str, np.ndarray]
    chooser_y: dict[str, np.ndarray]
    file: str
    depth: int
    device: torch.device
    max_memory: int | None

    @property
    def width(self) -> int:
        """Number of features."""
        return int(np.prod(next(iter(self.x.values())).shape[1:]))

    def fits_memory(self, n: int) -> bool:
        """Return whether the features of n images may be held at once, by the rule of `path.fit_path`."""
        return self.max_memory is None or 8 * n * self.width <= self.max_memory

    def where(self, split: str) -> str:
        """Return the words with which a message about the features of a split begins."""
        return f"{self.file}, depth {self.depth}, {split} features"


def read_depth(
    task: Task, depth: int, splits: Sequence[str], *, side: int, device: torch.device, max_memory: int | None
) -> DepthData:
    """Return the features A x_j and the labels of some splits of a depth; side: of the average A."""
    run = task.run
    x = {s: features(run, task, depth, s, side=side, device=device, max_memory=max_memory) for s in splits}
    y = {split: task.labels(split) for split in splits}
    chooser_y = y if task.chooser is task else {split: task.chooser.labels(split) for split in splits}
    return DepthData(x, y, chooser_y, str(run.path), depth, device, max_memory)


def features(
    run: RunFile, task: Task, depth: int, split: str, *, side: int, device: torch.device, max_memory: int | None = None
) -> Rows | NDArray[np.float32]:
    """Return A x_j (x_j itself for side 0) of the images of a split that the task labels, [n, ...].

    Args:
        side: of the average A.
        device: where maps are averaged that the file does not hold averaged.
        max_memory: bytes; what is computed and exceeds it goes to the disk.
    """
    stored = run.pooled(depth, split) if side == POOL_SIDE else None
    source: Rows | NDArray[np.float32] = (
        _computed(run, depth, split, side, device, max_memory) if stored is None else stored
    )
    rows = task.rows(split)
    return source if len(rows) == len(source) else View(source, kept=rows)


def _computed(
    run: RunFile, depth: int, split: str, side: int, device: torch.device, max_memory: int | None
) -> NDArray[np.float32]:
    shape = len(run.indices(split)), pooled_width(run, depth, side)
    result = _room(run, shape, max_memory)
    start = 0
    for batch in pooled_batches(run, depth, split, side=side, device=device):
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
