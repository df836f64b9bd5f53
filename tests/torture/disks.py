"""The disks: that fill at any byte, that are closed to writing, that vanish; and then the same command again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.torture.children import Child, Done, Limits, call
from tests.torture.jobs import JOBS, Job
from tests.torture.kills import half_files, settle
from tests.torture.material import Material
from tests.torture.verdicts import Outcome, trouble

WRITERS = [job for job in JOBS if job.name not in ("train parallel", "train end-to-end", "train untrained")]
WAYS = ("file limit", "small disk", "closed folder", "folder that vanishes")
KINDS = [f"disk {way}: {job.name}" for job in WRITERS for way in WAYS]


def trial(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Let one job meet a disk that fails, then a good one."""
    way, _, name = kind.removeprefix("disk ").partition(": ")
    job = next(job for job in JOBS if job.name == name)
    end = material.end_of(job)
    if way == "small disk" and os.getuid():
        return _skipped(kind, "needs root")
    with material.trial(job.inputs, "disk") as folder:
        if way == "file limit":
            return _file_limit(kind, job, end, folder, rng)
        if way == "small disk":
            return _small_disk(kind, job, end, folder, rng)
        if way == "closed folder":
            return _closed(kind, job, end, folder)
        return _vanishes(kind, job, end, folder, rng)


def _file_limit(kind: str, job: Job, end: dict[str, Any], folder: Path, rng: np.random.Generator) -> Outcome:
    """No file may grow beyond a size: what a quota does."""
    size = int(rng.integers(0, end["largest"]))
    # A Python of its own: what h5py does when the interpreter ends belongs to it.
    done = call(job.command, job.words, folder, Limits(file_bytes=size, fresh=True))
    return _judge(kind, f"files limited to {size} bytes", job, end, folder, done)


def _small_disk(kind: str, job: Job, end: dict[str, Any], folder: Path, rng: np.random.Generator) -> Outcome:
    """The folder is a file system with too little space."""
    inputs = sum(path.stat().st_size for path in folder.iterdir())
    kilobytes = (inputs >> 10) + 8 * len(job.inputs) + int(rng.integers(4, max(8, (end["total"] - inputs >> 10) + 8)))
    with _mounted(kilobytes) as disk:
        if disk is None:
            return _skipped(kind, "this machine does not let file systems be mounted")
        for path in folder.iterdir():
            shutil.copyfile(path, disk / path.name)
        done = call(job.command, job.words, disk, Limits(fresh=True))
        if (found := trouble(done)) or (halves := half_files(end, disk)):
            seen = "" if found else ", ".join(halves)
            return Outcome(kind=kind, tried=f"a disk of {kilobytes} kB", verdict=found or "half", done=done, seen=seen)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        return _judge(kind, f"a disk of {kilobytes} kB", job, end, disk, done)


def _closed(kind: str, job: Job, end: dict[str, Any], folder: Path) -> Outcome:
    """A folder that may be read and not written: a disk mounted so for root, whom no permission stops."""
    if os.getuid():
        folder.chmod(0o555)
        try:
            return _of_closed(kind, job, end, folder, lambda: folder.chmod(0o755))
        finally:
            folder.chmod(0o755)
    with _mounted(65536) as disk:
        if disk is None:
            return _skipped(kind, "this machine does not let file systems be mounted")
        for path in folder.iterdir():
            shutil.copyfile(path, disk / path.name)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        opened = ["mount", "-o", "remount,rw", str(disk)]
        return _of_closed(kind, job, end, disk, lambda: subprocess.run(opened, check=True))


def _of_closed(kind: str, job: Job, end: dict[str, Any], folder: Path, reopen: Callable[[], object]) -> Outcome:
    done = call(job.command, job.words, folder)
    reopen()
    tried = "a folder closed to writing"
    if done.code and trouble(done) is None and done.cpu > max(0.3, 0.7 * end["cpu"]):
        return Outcome(kind=kind, tried=tried, verdict="late", done=done, seen=f"after {done.cpu:.1f} s")
    return _judge(kind, tried, job, end, folder, done)


def _vanishes(kind: str, job: Job, end: dict[str, Any], folder: Path, rng: np.random.Generator) -> Outcome:
    """The folder is moved away while the command works in it, and put back afterwards."""
    after = float(rng.uniform(0.05, max(0.06, end["seconds"])))
    away = folder.with_name(folder.name + "-away")

    def watch(child: Child) -> None:
        if child.elapsed > after and folder.exists() and not away.exists():
            folder.rename(away)

    words = [str(folder / word) if (folder / word).exists() or word in OUTPUTS else word for word in job.words]
    done = call(job.command, words, folder.parent, watch=watch)
    if away.exists():
        if made_again := folder.exists():
            shutil.rmtree(folder)
        away.rename(folder)
        if made_again:
            return Outcome(kind=kind, tried=f"the folder moved away after {after:.2f} s", verdict="escaped", done=done)
    return _judge(kind, f"the folder moved away after {after:.2f} s", job, end, folder, done)


OUTPUTS = ("out.h5", "model.pt2", "model.onnx", "figure.pdf", "training.pdf", "table.md", "study")


def _judge(kind: str, tried: str, job: Job, end: dict[str, Any], folder: Path, done: Done) -> Outcome:
    """Judge what the failing disk made of the command, and then whether the same command goes on."""
    if (found := trouble(done)) is not None:
        return Outcome(kind=kind, tried=tried, verdict=found, done=done)
    if halves := half_files(end, folder):
        return Outcome(kind=kind, tried=tried, verdict="half", done=done, seen=", ".join(halves))
    verdict, seen, last = settle(job, end, folder, lambda: call(job.command, job.words, folder))
    return Outcome(kind=kind, tried=tried, verdict=verdict, done=done if verdict == "same" else last, seen=seen)


@contextmanager
def _mounted(kilobytes: int) -> Iterator[Path | None]:
    """Yield a file system of so many kB in memory; None where none may be mounted."""
    place = Path(tempfile.mkdtemp(prefix="torture-disk-"))
    words = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
    mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
    try:
        yield place if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=False)
        place.rmdir()


def _skipped(kind: str, why: str) -> Outcome:
    nothing = Done(command="", code=0, out="", err="", seconds=0, peak=0, hung=False)
    return Outcome(kind=kind, tried=f"nothing: {why}", verdict="skipped", done=nothing)
