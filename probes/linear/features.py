"""Features and labels of a depth as the linear probe reads them: rows on demand, of the images that a task labels.

Ranks divide the images of each split: of features, each reads and holds a stretch; of labels, all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from layerwise import ranks
from layerwise.errors import UserError
from probes.pooled import features
from probes.solver.rows import Rows
from probes.tasks.task import Task


@dataclass(frozen=True)
class DepthData:
    """Features and labels of one or two splits of a depth.

    Attributes:
        x: features [held, ...] by split, of the images that this process holds. y: labels [n] of all images.
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
        """Return whether features of n images may be held at once, by the rule of `path.fit_path`."""
        return self.max_memory is None or 8 * n * self.width <= self.max_memory

    def own(self, split: str, labels: np.ndarray) -> np.ndarray:
        """Return what a split's labels [..., n] are of the images that this process holds, [..., held]."""
        return labels[..., ranks.stretch(len(self.y[split]))]

    def where(self, split: str) -> str:
        """Return the words with which a message about the features of a split begins."""
        return f"{self.file}, depth {self.depth}, {split} features"


def read_depth(
    task: Task, depth: int, splits: Sequence[str], *, side: int, device: torch.device, max_memory: int | None
) -> DepthData:
    """Return the features A x_j and the labels of some splits of a depth; side: of the average A.

    Raises UserError where ranks are more than the images that they are to fit.
    """
    run = task.run
    if "train" in splits and ranks.world() > (images := len(task.rows("train"))):
        raise UserError(
            f"{run.path} has {images} labelled train images, of which each of {ranks.world()} ranks is to hold some. "
            "Start fewer by torchrun, or probe-depth without it."
        )
    x = {
        split: features(run, task, depth, split, side=side, device=device, max_memory=max_memory, is_shared=True)
        for split in splits
    }
    y = {split: task.labels(split) for split in splits}
    chooser_y = y if task.chooser is task else {split: task.chooser.labels(split) for split in splits}
    return DepthData(x, y, chooser_y, str(run.path), depth, device, max_memory)
