"""Stored maps or recomputed ones: the choice, by what an image of each costs, measured on one batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from layerwise.activations import Activations, read_activations
from layerwise.errors import UserError
from layerwise.model.counts import count_problems
from layerwise.runfile import RunFile
from layerwise.units import show_seconds, show_size

BATCH = 64  # images on which both are timed
# Reading gives way only where it takes at least twice as long, or the choice would change with the noise of the day.
CLEARLY = 2.0


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the maps of a depth come from, and what one image of them costs.

    name: "stored", "recompute" or "folder". nbytes: read, of maps or of images as they are decoded. operations: of the
    frozen blocks. seconds: of both.
    """

    depth: int
    name: str
    nbytes: int
    operations: int
    seconds: float


def choose_source(run: RunFile, depth: int, source: str, device: torch.device) -> Source:
    """Return where the maps of a depth come from; at "auto", recomputed where that is clearly faster than reading.

    Raises:
        UserError: the file lacks what the source needs, with the command that would store it.
    """
    if source != "auto":
        return _measured(run, depth, read_activations(run, depth, "train", source=source, device=device), device)
    first = _measured(run, depth, read_activations(run, depth, "train", device=device), device)
    if first.name != "stored" or depth == 0 or run.images("train") is None:
        return first
    try:
        other = read_activations(run, depth, "train", source="recompute", device=device)
    except UserError:
        return first
    second = _measured(run, depth, other, device)
    return second if CLEARLY * second.seconds < first.seconds else first


def _measured(run: RunFile, depth: int, maps: Activations, device: torch.device) -> Source:
    rows = slice(0, min(BATCH, len(maps)))
    maps[rows]  # the first reading checks digests and sets the libraries up
    taken = []
    for _ in range(2):  # the faster one: other programs can only make it slower
        start = time.perf_counter()
        maps[rows]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
    seconds = min(taken) / rows.stop
    operations = 0 if maps.source == "stored" else _operations(run, depth)
    return Source(depth=depth, name=maps.source, nbytes=maps.row_bytes, operations=operations, seconds=seconds)


def _operations(run: RunFile, depth: int) -> int:
    """Return the operations of blocks 1..depth for one image."""
    if run.config is None:
        return 0  # of a network built elsewhere the input alone is recomputed
    problems = count_problems(run.config.network, run.depth_shape(0), len(run.dataset["classes"]))
    return sum(problem.block.operations for problem in problems[:depth])


def describe(sources: Sequence[Source], images: int) -> str:
    """Return one line: which depths are read and which recomputed, and what a pass over so many images costs."""
    parts = []
    verbs = {
        "stored": "read from the file", "recompute": "recomputed from images", "folder": "recomputed from image files"
    }  # fmt: skip
    for name, verb in verbs.items():
        own = [source for source in sources if source.name == name]
        if own:
            depths = ", ".join(str(source.depth) for source in own)
            size, seconds = images * sum(s.nbytes for s in own), images * sum(s.seconds for s in own)
            parts.append(f"depths {depths} {verb} ({show_size(size)}, about {show_seconds(seconds)} a pass)")
    return f"maps: {'; '.join(parts)}"
