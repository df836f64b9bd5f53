"""A rank of several is killed at any moment: all end, one line names it, and any number of ranks goes on."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.torture.children import Done, call
from tests.torture.commands import environment, fresh_words
from tests.torture.jobs import RUN
from tests.torture.material import Material
from tests.torture.verdicts import Outcome

# Long enough that moments fall into training, scores and dump; probes of all kinds.
WORK = {
    "train": ("layerwise-train", "digits --k 2 --depth 2 --width 8 --aux-width 8 --epochs 12 --device cpu -o out.h5"),
    "probe": ("probe-depth", f"{RUN} --probe ncm,knn,linear --device cpu"),
}
KINDS = [f"rank-killed {work}, goes on with {count}" for work in WORK for count in (1, 2, 3)]
ENDED_WITHIN = 10.0  # seconds after the kill in which no process is left


@dataclass
class Group:
    """A torchrun and its ranks, which write into one file."""

    process: subprocess.Popen[bytes]
    said: Path
    began: float

    def ranks(self) -> list[int]:
        """Return the process numbers of the ranks, those of them that live, in the order of their starts."""
        with suppress(OSError):
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            return [int(word) for word in children.read_text().split()]
        return []

    def wait(self, seconds: float) -> bool:
        """Return whether it has ended, and all of its ranks, within so many seconds."""
        ranks, until = self.ranks(), time.monotonic() + seconds
        while time.monotonic() < until:
            if self.process.poll() is not None and not any(map(_lives, ranks)):
                return True
            time.sleep(0.05)
        return False

    def end(self) -> None:
        """Kill what is left of it."""
        for pid in (self.process.pid, *self.ranks()):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def start(command: str, words: list[str], count: int, folder: Path) -> Group:
    """Start a command on so many ranks."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
    with tempfile.NamedTemporaryFile(delete=False, prefix="said-") as said:
        process = subprocess.Popen(
            [*torchrun, "--nproc-per-node", str(count), *fresh_words(command), *words],
            cwd=folder,
            env=environment(),
            stdout=said,
            stderr=said,
        )
    return Group(process, Path(said.name), time.monotonic())


def trial(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Kill a rank of two once, wait for the end of all, and give the command again to another number of ranks."""
    work, count = kind.split()[1].rstrip(","), int(kind.split()[-1])
    command, line = WORK[work]
    words = line.split()
    with material.trial((RUN,) if work == "probe" else (), kind) as folder:
        moment, number = float(rng.uniform(0.05, 1.0)) * _seconds(work, material), int(rng.integers(2))
        group = start(command, words, 2, folder)
        while time.monotonic() - group.began < moment and group.process.poll() is None:
            time.sleep(0.005)
        living = group.ranks()
        tried = f"rank {number} of 2 {moment:.1f} s after the start"
        is_killed = len(living) == 2
        if is_killed:
            os.kill(living[number], signal.SIGKILL)
        ended = group.wait(ENDED_WITHIN if is_killed else 60)
        done = _done(command, words, group)
        if not ended:
            group.end()
            return Outcome(kind=kind, tried=tried, verdict="hang", done=done, seen="processes are left after 10 s")
        own = [said for said in done.err.splitlines() if said.startswith(f"{command}: ")]
        # Before the ranks know of each other torchrun alone says which one was killed, and ends the other.
        if is_killed and (len(own) > 1 or (own and not re.search(rf"rank {number} of 2|stopped by SIGTERM", own[0]))):
            return Outcome(kind=kind, tried=tried, verdict="unclear", done=done, seen=" | ".join(own))
        seen = f"{'killed' if is_killed else 'it had ended'}; {own[0] if own else 'torchrun alone says it'}"
        again = start(command, words, count, folder)
        again.wait(180)
        last = _done(command, words, again)
        if last.code and "exists already" not in last.err:
            return Outcome(kind=kind, tried=tried, verdict="stuck", done=last, seen=seen)
        whole = call("layerwise-inspect", ["out.h5" if work == "train" else RUN, "--verify"], folder)
        left = [path.name for path in folder.iterdir() if ".partial" in path.name or path.name.endswith(".state")]
        verdict = "wrong" if whole.code else "leftover" if left else "same"
        return Outcome(kind=kind, tried=tried, verdict=verdict, done=last, seen=seen)


@functools.cache
def _seconds(work: str, material: Material) -> float:
    """Return how long the work takes two ranks that nobody kills, on this machine and now."""
    command, line = WORK[work]
    with material.trial((RUN,) if work == "probe" else (), f"undisturbed {work}") as folder:
        group = start(command, line.split(), 2, folder)
        assert group.wait(300), group.said.read_text()
        return time.monotonic() - group.began


def _lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _done(command: str, words: list[str], group: Group) -> Done:
    said, code = group.said.read_text(errors="replace"), group.process.poll()
    return Done(
        command=command, words=tuple(words), code=1 if code is None else code, out="", err=said,
        seconds=time.monotonic() - group.began, peak=0, hung=code is None,
    )  # fmt: skip
