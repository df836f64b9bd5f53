"""Owns the features of a depth as the linear probe reads them: rows on demand, of the images that a task labels.

What the file stores is read from it; what has to be computed is computed once, into memory or, where `max_memory`
forbids that, into an unlinked file beside the run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from layerwise.activations import pooled_batches, pooled_width
from layerwise.runfile import RunFile
from layerwise.runfile.layout import POOL_SIDE
from probes.solver.rows import Affine, Rows
from probes.tasks.task import Task


class Labelled:
    """The rows [n, ...] of a source that a task labels, in their order."""

    def __init__(self, source: Rows | NDArray[np.float32], rows: NDArray[np.int64]):
        self._source, self._rows = source, rows
        self.shape: tuple[int, ...] = (len(rows), *source.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: slice) -> NDArray[np.floating]:
        """Return the labelled rows of a slice."""
        return self._source[self._rows[rows]]  # type: ignore[index]


class Projected:
    """Standardised features [n, d] times a projection [d, m], float32 [n, m], block by block."""

    def __init__(self, source: Rows | NDArray[np.float32], standardiser: Affine, projection: NDArray[np.float32]):
        self._source, self._projection = source, projection
        self._mean, self._scale = np.float32(standardiser.mean), np.float32(standardiser.scale)
        self.shape = (len(source), projection.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        """Return the projected rows of a slice."""
        x = np.asarray(self._source[rows], np.float32)
        z: NDArray[np.float32] = (x.reshape(len(x), -1) - self._mean) / self._scale
        return z @ self._projection


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
    return source if len(rows) == len(source) else Labelled(source, rows)


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
        return np.memmap(file, np.float32, mode="w+", shape=tuple(shape))
