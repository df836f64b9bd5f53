"""Owns the forecast: how many bytes each part of a run file takes, and what of it fits the budget."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from layerwise.errors import UserError
from layerwise.units import show_size


@dataclass(frozen=True)
class Plan:
    """What a run file will hold, and the bytes of each part.

    depth_bytes: for each depth, pooled features and (where `maps`) whole maps of all splits.
    sample_bytes: label and index of every image, int64. history_bytes: all rows of all epochs.
    """

    images: bool
    maps: bool
    image_bytes: int
    depth_bytes: tuple[int, ...]
    weight_bytes: int
    sample_bytes: int
    history_bytes: int

    @property
    def total(self) -> int:
        """Bytes of all datasets of the file, but for its manifest."""
        kept = sum(self.depth_bytes) + self.weight_bytes + self.sample_bytes + self.history_bytes
        return self.images * self.image_bytes + kept


def plan(
    shapes: list[tuple[int, int, int]],
    counts: Mapping[str, int],
    weight_bytes: int,
    store: str,
    max_size: int,
    history_bytes: int = 0,
) -> Plan:
    """Decide what the file holds within `max_size` bytes, with activations of two bytes a value.

    Args:
        shapes: (C, H, W) of x_0 .. x_J.
        counts: number of samples of each split.
        weight_bytes: bytes of all parameters and buffers.
        store: "pooled", "maps" (refused where they do not fit) or "auto" (maps where they fit).
        max_size: the budget in bytes. Images are kept where they fit beside the rest.
        history_bytes: bytes of the rows of all epochs.

    Raises:
        UserError: what was asked for does not fit, with its bytes and the flags that would make it fit.
    """
    n = sum(counts.values())
    sample_bytes = 2 * 8 * n
    fixed = weight_bytes + sample_bytes + history_bytes
    image_bytes = n * _volume(shapes[0])
    pooled = [2 * n * 4 * channels for channels, _, _ in shapes]
    whole = [2 * n * _volume(shape) + p for shape, p in zip(shapes, pooled, strict=True)]
    with_maps = store == "maps" or (store == "auto" and sum(whole) + fixed + image_bytes <= max_size)
    depth_bytes = tuple(whole if with_maps else pooled)
    needed = sum(depth_bytes) + fixed
    if needed > max_size:
        flags = "--store pooled, or " if with_maps else ""
        raise UserError(
            f"the run file would take {show_size(needed)} ({show_size(max(depth_bytes))} for its largest depth), "
            f"but --max-size allows {show_size(max_size)}. Use {flags}a larger --max-size."
        )
    with_images = needed + image_bytes <= max_size
    return Plan(with_images, with_maps, image_bytes, depth_bytes, weight_bytes, sample_bytes, history_bytes)


def require_disk(path: Path, needed: int) -> None:
    """Raise UserError if the disk that will hold `path` has less free than `needed` bytes."""
    free = free_bytes(path)
    if free < needed:
        raise UserError(
            f"{path} needs {show_size(needed)}, but its disk has {show_size(free)} free. "
            "Give an output elsewhere, or a smaller --max-size."
        )


def free_bytes(path: Path) -> int:
    """Return the bytes free on the disk that will hold `path`."""
    return shutil.disk_usage(path.parent).free


def _volume(shape: tuple[int, int, int]) -> int:
    channels, height, width = shape
    return channels * height * width
