"""What happens where several processes meet: at one output, at one table, at a lock that is not what it was."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.torture.children import Child, Done, Limits, call
from tests.torture.contents import rows
from tests.torture.jobs import JOBS, RUN, Job
from tests.torture.material import Material, differing
from tests.torture.verdicts import Outcome, trouble

Scene = Callable[[str, np.random.Generator, Material], Outcome]
JOB = {job.name: job for job in JOBS}
LONG = JOB["train long dump"]
SIDE_BY_SIDE = ("ncm", "knn", "linear", "auxiliary")
SAFE = "kept by somebody else\n"


def probes_side_by_side(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Fit several probes of one run at once: the table must hold the rows of each."""
    words = {name: [RUN, "--probe", name, "--quiet"] for name in SIDE_BY_SIDE}
    with material.trial((RUN,), "one-by-one") as folder:
        for one in words.values():
            call("probe-depth", one, folder)
        expected = _numbers(folder)
    with material.trial((RUN,), "side-by-side") as folder:
        children = [Child("probe-depth", one, folder) for one in words.values()]
        ends = [child.wait() for child in children]
        found = _numbers(folder)
    bad = next((done for done in ends if trouble(done) or done.code), None)
    verdict = (trouble(bad) or "unclear") if bad else "same" if found == expected else "lost"
    seen = f"{len(found)} of {len(expected)} rows"
    return Outcome(kind=kind, tried="four probes at once", verdict=verdict, done=bad or ends[0], seen=seen)


def _numbers(folder: Path) -> list[tuple[tuple[str, str], ...]]:
    return rows(folder / "run.probes.csv")


def two_trainings(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Start a second training to the output of one that runs: it must end at once, naming the other's process."""
    return _second(kind, LONG, material, Path("out.h5.state"))


def two_extractions(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Start a second extraction to the output of one that runs: the first must not be disturbed."""
    return _race(kind, JOB["extract network"], material)


def two_studies(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Start a study twice in one folder."""
    return _race(kind, JOB["study"], material)


def two_exports(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Export twice to one name: one wins, and what stands there is whole."""
    return _race(kind, JOB["layerwise-export model.pt2"], material)


def _second(kind: str, job: Job, material: Material, sign: Path) -> Outcome:
    """Start a job again while a first one, which has shown a sign of its work, is held still."""
    with material.trial(job.inputs, "second") as folder:
        first = Child(job.command, job.words, folder)
        while not (folder / sign).exists() and first.elapsed < 30:
            pass
        first.send(signal.SIGSTOP)
        second = call(job.command, job.words, folder, Limits(seconds=20))
        first.send(signal.SIGCONT)
        done = first.wait()
        wrong, extra = differing(material.end_of(job), folder)
        common = {"kind": kind, "tried": f"{job.command} twice to one output", "done": second}
        if done.code or wrong or extra:
            return Outcome(verdict="lost", seen=f"of the first: {done.err[-200:]} {wrong} {extra}", **common)
        if second.hung or second.code != 1 or trouble(second):
            return Outcome(verdict=trouble(second) or "code", **common)
        named = str(first.pid) in second.err
        return Outcome(verdict="refused" if named else "unclear", seen="" if named else "no process named", **common)


def _race(kind: str, job: Job, material: Material) -> Outcome:
    """Start a job twice at once: one must succeed, both must end clearly, and the end be that of one alone."""
    with material.trial(job.inputs, "race") as folder:
        ends = [child.wait() for child in [Child(job.command, job.words, folder) for _ in range(2)]]
        wrong, extra = differing(material.end_of(job), folder)
        bad = next((done for done in ends if trouble(done)), None)
        common = {"kind": kind, "tried": f"{job.command} twice at once", "done": bad or ends[1]}
        if bad is not None:
            return Outcome(verdict=trouble(bad) or "", **common)
        if all(done.code for done in ends) or wrong:
            return Outcome(verdict="lost" if wrong else "stuck", seen=", ".join(wrong), **common)
        # Who comes second at the very end keeps what it made under another name, and says which.
        extra = [name for name in extra if not any(f"is kept beside it as {name}." in done.err for done in ends)]
        return Outcome(verdict="leftover" if extra else "same", seen=", ".join(extra), **common)


def stale_lock(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Leave the locks of a process that died: the same command must not wait for it."""
    return _lock(kind, material, "the lock of a dead process", _write_stale)


def fifo_as_lock(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Put a FIFO in the place of a lock: nobody writes into it, so opening it must not wait."""
    return _lock(kind, material, "a FIFO for a lock", lambda lock, folder: os.mkfifo(lock))


def link_as_lock(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Put a symbolic link in the place of a lock: the file behind it must stay as it is."""

    def plant(lock: Path, folder: Path) -> None:
        lock.symlink_to(folder / "precious.txt")

    return _lock(kind, material, "a symbolic link for a lock", plant)


def folder_as_lock(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Put a folder in the place of a lock."""
    return _lock(kind, material, "a folder for a lock", lambda lock, folder: lock.mkdir())


def held_table(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Hold the lock of a table for two seconds: a probe waits, and ends as ever."""
    job = JOB["probe ncm"]
    with material.trial(job.inputs, "held") as folder, open(_lock_of(job, material, folder), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = Child(job.command, job.words, folder)

        def release(child: Child) -> None:
            if child.elapsed > 2:
                fcntl.flock(lock, fcntl.LOCK_UN)

        done = child.wait(release)
        wrong, _ = differing(material.end_of(job), folder)
        verdict = trouble(done) or ("stuck" if done.code else "lost" if wrong else "same")
        return Outcome(kind=kind, tried="the lock held for two seconds", verdict=verdict, done=done)


def _write_stale(lock: Path, folder: Path) -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    lock.write_text(f"{pid}\n")


def _lock_of(job: Job, material: Material, folder: Path) -> Path:
    """Return where a job keeps its lock, as its undisturbed end or a killed one shows it."""
    if job.command == "layerwise-train":
        return folder / "out.h5.state" / "lock"
    names = [name for name in material.end_of(job)["left"] if name.endswith("lock")]
    return folder / (names[0] if names else ".run.h5.results.lock")


def _lock(kind: str, material: Material, tried: str, plant: Callable[[Path, Path], None]) -> Outcome:
    """Plant something in the place of the locks of a training and of a probe; what is behind must stay."""
    outcome = None
    for job in (JOB["train greedy"], JOB["probe ncm"]):
        with material.trial(job.inputs, "lock") as folder:
            (folder / "precious.txt").write_text(SAFE)
            lock = _lock_of(job, material, folder)
            lock.parent.mkdir(exist_ok=True)
            plant(lock, folder)
            done = call(job.command, job.words, folder, Limits(seconds=15))
            escaped = (folder / "precious.txt").read_text() != SAFE
            wrong, _ = differing(material.end_of(job), folder)
            verdict = "escaped" if escaped else trouble(done) or _ended(done, wrong)
            outcome = Outcome(kind=kind, tried=f"{tried} ({job.name})", verdict=verdict, done=done)
            if not outcome.held:
                return outcome
    assert outcome is not None
    return outcome


def _ended(done: Done, wrong: list[str]) -> str:
    return "refused" if done.code else "wrong" if wrong else "same"


SCENES: dict[str, Scene] = {
    "processes: probes side by side": probes_side_by_side,
    "processes: two trainings to one output": two_trainings,
    "processes: two extractions to one output": two_extractions,
    "processes: two exports to one output": two_exports,
    "processes: two studies in one folder": two_studies,
    "processes: a stale lock": stale_lock,
    "processes: a FIFO for a lock": fifo_as_lock,
    "processes: a link for a lock": link_as_lock,
    "processes: a folder for a lock": folder_as_lock,
    "processes: a lock that is held for a while": held_table,
}
KINDS = list(SCENES)


def trial(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Play one scene."""
    return SCENES[kind](kind, rng, material)
