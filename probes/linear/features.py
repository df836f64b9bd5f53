"""Features and labels of a depth as the linear probe reads them: rows on demand, of the images that a task labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from probes.pooled import features
from probes.solver.rows import Rows
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
