"""Owns the choice between recomputing the frozen prefix and keeping its output: how much it is, and where it fits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import torch

from layerwise.architectures import network_shapes
from layerwise.config import RunConfig
from layerwise.errors import UserError
from layerwise.storage import show_size

CGROUPS = Path("/sys/fs/cgroup")
SHARE = 0.5  # of what is free, the most that is taken


def kept_bytes(config: RunConfig, image: tuple[int, int, int], counts: Mapping[str, int]) -> int:
    """Return the bytes of the largest output of a frozen prefix, of all training images and views and of the fold.

    Args:
        config: with its precision resolved.
        image: shape (C, H, W) of one image; counts: number of images of each split.
    """
    net = config.network
    outputs = network_shapes(net, image)[1:]
    if not net.prune_to:
        outputs = outputs[:-1]  # the last block's is read where its auxiliary is fine-tuned, and nowhere else
    images = max(1, config.training.views) * counts["train"] + counts.get("validation", 0)
    return max((prod(shape) for shape in outputs), default=0) * images * (2 if config.precision == "bf16" else 4)


def resolve_prefix(
    config: RunConfig,
    image: tuple[int, int, int],
    counts: Mapping[str, int],
    device: torch.device,
    begun: str | None = None,
) -> RunConfig:
    """Return the configuration with "auto" decided: "cache" where an output is read more than once and fits.

    Augmentation that is drawn anew in each epoch is never turned into fixed views: without --views it is recomputed.
    On a GPU it is kept in the device's memory or not at all: from the machine's it would come slower than computed.
    begun: what was decided when this training began, which holds wherever it can, whatever is free now.
    """
    cfg = config.training
    if cfg.prefix != "auto":
        return config
    has_prefix = config.network.depth > 1 or config.network.prune_to > 0
    can = config.mode == "greedy" and has_prefix and cfg.is_fixed
    keeps = can and begun != "recompute"
    if keeps and begun is None:
        room = _device_room(device) if device.type == "cuda" else _memory_room()
        keeps = cfg.repeats and kept_bytes(config, image, counts) <= SHARE * room
    return replace(config, training=replace(cfg, prefix="cache" if keeps else "recompute"))


def fitting_place(needed: int, device: torch.device, folder: Path | None) -> str:
    """Return where so many bytes are kept: "device", "memory" or "disk", the first of which they take at most SHARE.

    Raises UserError where they fit nowhere.
    """
    if device.type == "cuda" and needed <= SHARE * _device_room(device):
        return "device"
    if needed <= SHARE * _memory_room():
        return "device" if device.type == "cpu" else "memory"
    if folder is not None and needed <= SHARE * shutil.disk_usage(folder).free:
        return "disk"
    raise UserError(
        f"keeping the output of the frozen blocks takes {show_size(needed)}, which is more than half of what is free "
        f"on the device, in memory and on the disk of {folder}. Use --prefix recompute, or fewer --views."
    )


def _device_room(device: torch.device) -> int:
    """Return the bytes of a GPU's memory that nobody holds, nor torch's allocator for what was kept before."""
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def _memory_room() -> int:
    """Return the bytes of memory that the system can still give this process; none where it does not tell."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return 0
    return min([free, *_group_rooms(CGROUPS, Path("/proc/self/cgroup"))])


def _group_rooms(root: Path, own: Path) -> Iterator[int]:
    """Yield what the limit of each control group (version 2) that holds this process still allows it.

    A container or a batch job is such a group. File cache that the kernel can drop does not count as taken.

    Args:
        root: where control groups are mounted. own: the file that names the process's own, as 0::/path.
    """
    try:
        path = next((line[3:].strip() for line in own.read_text().splitlines() if line.startswith("0::")), "/")
    except OSError:
        path = "/"
    group = root / path.strip("/")
    for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(root))):
        try:
            limit = (folder / "memory.max").read_text().strip()
            taken = int((folder / "memory.current").read_text())
            counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # there is none, or it is not of version 2
            continue
        if limit.isdigit():
            yield max(0, int(limit) - taken + int(counts.get("inactive_file", 0)))
