"""Owns the writing of an extraction: room, depths, and a second pass where float16 does not hold."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from layerwise.errors import UserError
from layerwise.extraction.origins import Origin, Subject, Target
from layerwise.runfile import layout
from layerwise.runfile.depths import DepthStream, publish_run
from layerwise.runfile.plan import Plan, require_room
from layerwise.runfile.provenance import provenance
from layerwise.runfile.writer import RunWriter
from layerwise.units import show_size

log = logging.getLogger("layerwise.extract")


WAYS = ("fewer --layers",)  # to a smaller file, beside those that every run has


def refuse_too_large(plan: Plan, target: Target) -> None:
    """Raise UserError, after the table of bytes, where a run file does not fit its limit or the disk."""
    try:
        require_room(plan, target.max_size, target.out, ways=WAYS)
    except UserError:
        for line in describe_plan(plan):
            log.warning("%s", line)
        raise


def describe_plan(plan: Plan) -> Iterator[str]:
    """Yield the table of bytes: a line for each depth, then the sum."""
    sizes = ", ".join(f"{name} {n:,}" for name, n in plan.counts.items())
    yield f"samples: {sizes}"
    width = max(6, *(len(depth.module) for depth in plan.depths.values()))
    yield f"{'depth':>5}  {'module':<{width}}  {'C x H x W':<15}  {'read as':<14}  {'pooled':>9}  {'maps':>9}"
    for j, depth in plan.depths.items():
        shape, form = " x ".join(map(str, depth.shape)), depth.facts["form"]
        maps = show_size(plan.whole[j]) if plan.whole[j] else "= pooled"
        yield f"{j:>5}  {depth.module:<{width}}  {shape:<15}  {form:<14}  {show_size(plan.pooled[j]):>9}  {maps:>9}"
    kept = ["pooled features", *(["whole maps"] if plan.maps else []), *(["images"] if plan.images else [])]
    images = f", images {show_size(plan.image_bytes)}" if plan.image_bytes else ""
    yield (
        f"pooled in all {show_size(sum(plan.pooled.values()))}, maps {show_size(sum(plan.whole.values()))}{images}"
        "; as float16 (a depth with values beyond it takes twice as much)"
    )
    yield f"the run file takes {show_size(plan.total)}: {', '.join(kept)}"


def write_run(
    target: Target,
    origin: Origin,
    subject: Subject,
    feed: Any,
    plan_of: Callable[[str, int, frozenset[int]], Plan],
    run: Callable[[RunWriter, DepthStream, bool], None],
) -> Plan:
    """Write and publish a run file from one pass of `run`; from two, where a depth turns out not to fit float16."""
    start = time.perf_counter()
    counts = {split: len(label) for split, label in feed.labels.items()}

    def write(writer: RunWriter, in_float32: frozenset[int]) -> Plan:
        plan = plan_of(target.store, target.max_size, in_float32)
        refuse_too_large(plan, target)
        log.info("%s", list(describe_plan(plan))[-1])
        writer.attributes(layout.ROOT, {"dataset": subject.to_json(), "extraction": origin.to_json()})
        for split, label in feed.labels.items():
            writer.samples(split, label, feed.index[split])
        stream = DepthStream(writer, plan.depths, counts, maps=plan.maps, in_float32=in_float32)
        run(writer, stream, plan.images)
        stream.finish()
        seconds = {"extract": time.perf_counter() - start}
        writer.attributes(layout.PROVENANCE, provenance(target.device, target.data_dir, seconds))
        return plan

    return publish_run(target.out, force=target.force, write=write)
