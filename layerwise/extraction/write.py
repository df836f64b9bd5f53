"""Owns the writing of an extraction: room, depths, and a second pass where float16 does not hold."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from layerwise.errors import UserError
from layerwise.extraction.budget import Budget, describe_budget, require_fit
from layerwise.extraction.origins import Origin, Subject, Target
from layerwise.runfile import layout
from layerwise.runfile.depths import DepthStream, publish_run
from layerwise.runfile.plan import free_bytes
from layerwise.runfile.provenance import provenance
from layerwise.runfile.writer import RunWriter

log = logging.getLogger("layerwise.extract")


def require_room(budget: Budget, target: Target) -> None:
    """Raise UserError, after the table of bytes, where a run file does not fit its limit or the disk."""
    free = free_bytes(target.out)
    try:
        require_fit(budget, target.max_size, "--max-size allows")
        require_fit(budget, free, "the disk has free")
    except UserError:
        for line in describe_budget(budget):
            log.warning("%s", line)
        raise


def write_run(
    target: Target,
    origin: Origin,
    subject: Subject,
    feed: Any,
    budget_of: Callable[[str, int, frozenset[int]], Budget],
    run: Callable[[RunWriter, DepthStream, bool], None],
) -> Budget:
    """Write and publish a run file from one pass of `run`; from two, where a depth turns out not to fit float16."""
    start = time.perf_counter()
    counts = {split: len(label) for split, label in feed.labels.items()}

    def write(writer: RunWriter, in_float32: frozenset[int]) -> Budget:
        budget = budget_of(target.store, target.max_size, in_float32)
        require_room(budget, target)
        log.info("%s", list(describe_budget(budget))[-1])
        writer.attributes(layout.ROOT, {"dataset": subject.to_json(), "extraction": origin.to_json()})
        for split, label in feed.labels.items():
            writer.samples(split, label, feed.index[split])
        stream = DepthStream(writer, budget.depths, counts, maps=budget.maps, in_float32=in_float32)
        run(writer, stream, budget.images)
        stream.finish()
        seconds = {"extract": time.perf_counter() - start}
        writer.attributes(layout.PROVENANCE, provenance(target.device, target.data_dir, seconds))
        return budget

    return publish_run(target.out, force=target.force, write=write)
