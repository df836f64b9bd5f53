"""The standard streams: closed, full, cut off, or of a terminal that knows no more than ASCII."""

from __future__ import annotations

import numpy as np

from tests.torture.children import Limits, call
from tests.torture.jobs import JOBS, RUN, Job
from tests.torture.kills import settle
from tests.torture.material import Material
from tests.torture.verdicts import Outcome, trouble

WAYS = {
    "stdout closed": ">&-",
    "stderr closed": "2>&-",
    "stdin closed": "<&-",
    "all closed": "<&- >&- 2>&-",
    "stdout full": ">/dev/full",
    "stderr full": "2>/dev/full",
    "both full": ">/dev/full 2>&1",
    "a reader that goes": "| true",
    "ASCII alone": "",
}

# Commands of each kind; those without an output file have nothing but what they print.
PRINTERS = (
    Job(name="inspect", command="layerwise-inspect", line=RUN, inputs=(RUN,)),
    Job(name="train --list", command="layerwise-train", line="--list"),
    Job(name="probe --dry-run", command="probe-depth", line=f"{RUN} --probe knn --dry-run", inputs=(RUN,)),
    Job(name="train wrongly", command="layerwise-train", line="--k 0"),
    Job(name="extract --list-layers", command="layerwise-extract", line="torchvision:resnet18 --list-layers"),
)
PICKED = ("train greedy", "extract arrays", "probe ncm", "separability-figure", "separability-table", "study")
USED = (*PRINTERS, *(job for job in JOBS if job.name in PICKED))
KINDS = [f"stream {way}: {job.name}" for way in WAYS for job in USED]


def trial(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Run a command with streams that fail, then with good ones."""
    way, _, name = kind.removeprefix("stream ").partition(": ")
    job = next(job for job in USED if job.name == name)
    redirect = WAYS[way] or "# ascii"
    with material.trial(job.inputs, "stream") as folder:
        limits = Limits(fresh=True, redirect=redirect, ascii=not WAYS[way])
        done = call(job.command, job.words, folder, limits)
        common = {"kind": kind, "tried": f"{job.command} {job.line} {WAYS[way]}", "done": done}
        # Where nobody hears, no line can be asked for; an exit code can.
        is_deaf = way in ("stderr closed", "all closed", "stderr full", "both full")
        found = trouble(done)
        if found is not None and not (found == "unclear" and (is_deaf or way == "a reader that goes")):
            return Outcome(verdict=found, **common)
        if job in PRINTERS:
            full = way in ("stdout full", "both full") and done.code == 0 and job.name != "train wrongly"
            return Outcome(verdict="lost" if full else "answered", **common)
        verdict, seen, last = settle(job, material.end_of(job), folder, lambda: call(job.command, job.words, folder))
        return Outcome(verdict=verdict, seen=seen, **(common | {"done": done if verdict == "same" else last}))
