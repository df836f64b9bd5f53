"""The kills: SIGKILL, SIGINT and SIGTERM at any moment, and then the same command again until it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.torture.children import Child, Done, Limits, call
from tests.torture.contents import UNREADABLE, content
from tests.torture.jobs import JOBS, Job
from tests.torture.material import Material, differing
from tests.torture.verdicts import GO_ON, Outcome, trouble

KINDS = [*(f"kill {job.name}" for job in JOBS), *(f"stop {job.name}" for job in JOBS)]
TABLES = (".probes.csv", ".candidates.csv", ".predictions.h5")
ATTEMPTS = 4


@dataclass
class Moment:
    """When a signal is sent: some seconds after the start, or some seconds after a change of the folder's names."""

    number: int
    seconds: float
    changes: int
    folder: Path
    sent: bool = False

    def __post_init__(self) -> None:
        self._names, self._seen, self._since = _names(self.folder), 0, 0.0

    def watch(self, child: Child) -> None:
        """Send the signal when it is time."""
        if self.sent:
            return
        if self._seen < self.changes and (names := _names(self.folder)) != self._names:
            self._names, self._seen, self._since = names, self._seen + 1, child.elapsed
        if self._seen >= self.changes and child.elapsed >= self._since + self.seconds:
            self.sent = True
            child.send(self.number)

    def __str__(self) -> str:
        where = f"{self.changes} changes of the folder" if self.changes else "the start"
        return f"{signal.Signals(self.number).name} {self.seconds:.3f} s after {where}"


def trial(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Interrupt one job, give its command again, and compare the end."""
    job = next(job for job in JOBS if kind.endswith(f" {job.name}"))
    end = material.end_of(job)
    with material.trial(job.inputs, kind) as folder:
        if kind.startswith("kill"):
            return _kill(kind, job, end, folder, rng)
        return _stop(kind, job, end, folder, rng)


def draw_moment(rng: np.random.Generator, number: int, end: dict[str, Any], folder: Path) -> Moment:
    """Return a moment: a third of them anywhere, the others close after a file appeared or went."""
    if rng.random() < 1 / 3:
        return Moment(number, float(rng.uniform(0.03, max(0.04, end["seconds"]))), 0, folder)
    return Moment(number, float(rng.choice([0, 0, 0.001, 0.01])), int(rng.integers(1, 8)), folder)


def settle(job: Job, end: dict[str, Any], folder: Path, again: Callable[[], Done]) -> tuple[str, str, Done]:
    """Give the command again until it ends; return the verdict, what was seen, and the command that decided."""
    done = again()
    for _ in range(ATTEMPTS):
        if done.code == 0 or "exists already" in done.err:
            break
        done = again()
    if (found := trouble(done)) is not None:
        return found, "when given again", done
    wrong, extra = differing(end, folder)
    if wrong:
        verdict = "stuck" if done.code else "lost" if not (folder / wrong[0]).exists() else "wrong"
        return verdict, f"after it was given again: {', '.join(wrong)}", done
    return ("leftover", f"after it was given again: {', '.join(extra)}", done) if extra else ("same", "", done)


def half_files(end: dict[str, Any], folder: Path) -> list[str]:
    """Return the final names under which something unfinished stands."""
    found = []
    for name, text in end["left"].items():
        path = folder / name
        if not path.exists() or path.name.startswith("."):
            continue
        now = content(path)
        is_whole = not now.startswith(UNREADABLE) if name.endswith(TABLES) else not text or now == text
        found += [] if is_whole else [name]
    return found


def _kill(kind: str, job: Job, end: dict[str, Any], folder: Path, rng: np.random.Generator) -> Outcome:
    moments = [draw_moment(rng, signal.SIGKILL, end, folder) for _ in range(int(rng.integers(1, 3)))]
    tried = []
    for moment in moments:
        moment.__post_init__()
        done = call(job.command, job.words, folder, watch=moment.watch)
        tried.append(str(moment) if done.code == -signal.SIGKILL else f"{moment} (it had ended)")
        if halves := half_files(end, folder):
            return Outcome(kind=kind, tried="; ".join(tried), verdict="half", done=done, seen=", ".join(halves))
        if done.code != -signal.SIGKILL:
            break
    verdict, seen, done = settle(job, end, folder, lambda: call(job.command, job.words, folder))
    return Outcome(kind=kind, tried="; ".join(tried), verdict=verdict, done=done, seen=seen)


def _stop(kind: str, job: Job, end: dict[str, Any], folder: Path, rng: np.random.Generator) -> Outcome:
    number = signal.SIGINT if rng.random() < 0.5 else signal.SIGTERM
    moment = draw_moment(rng, number, end, folder)
    moment.seconds = max(moment.seconds, 0 if moment.changes else 0.05)
    before = _names(folder)
    done = call(job.command, job.words, folder, Limits(), moment.watch)
    common = {"kind": kind, "tried": str(moment)}
    # A signal that comes when all is done and the handlers are gone ends the process by itself: 143 to a shell as well.
    if done.code not in (0, 128 + number, -number):
        return Outcome(verdict=trouble(done) or "code", done=done, **common)
    if "Traceback" in done.err or "Exception ignored" in done.err:
        return Outcome(verdict="traceback", done=done, **common)
    # Before the handlers are there a signal ends the process by itself; nothing was begun then.
    had_not_begun = done.code == -number and _names(folder) == before
    says = had_not_begun or done.code == 0 or GO_ON.search(done.err) is not None or differing(end, folder) == ([], [])
    verdict, seen, last = settle(job, end, folder, lambda: call(job.command, job.words, folder))
    if verdict == "same" and not says:
        return Outcome(verdict="silent", done=done, **common)
    return Outcome(verdict=verdict, done=last, seen=seen, **common)


def _names(folder: Path) -> frozenset[str]:
    found: list[str] = []
    for base, folders, files in os.walk(folder):
        found += [os.path.join(base, name) for name in (*folders, *files)]
    return frozenset(found)
