"""The machine's side of a run file, which its content does not depend on: where it goes, and what computes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from layerwise.units import DEFAULT_MAX_SIZE


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run file goes, and the machine that makes it.

    max_size: most bytes that the file may take. force: whether `out` is replaced. data_dir, download: the folder of the
    data set, and whether it is fetched into it. subset_is_most: whether a train split of fewer images than the subset
    that is configured is taken whole, as where a recipe asks for it. tensorboard: folder of a training's curves.
    read, workers, skip_broken: how the images of a folder are read, as of `layerwise.datasets.ImageReading`.
    """

    out: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    max_size: int = DEFAULT_MAX_SIZE
    force: bool = False
    data_dir: Path | None = None
    download: bool = False
    subset_is_most: bool = False
    tensorboard: Path | None = None
    read: str = "auto"
    workers: int | None = None
    skip_broken: bool = False
