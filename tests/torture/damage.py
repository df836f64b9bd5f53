"""The damage trials: a file is damaged, commands read it, and their numbers are compared."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.torture.bytes_damage import ANY, TEXT
from tests.torture.children import Child, Done, Limits, call, in_fork
from tests.torture.contents import content
from tests.torture.hdf5_datasets import DATASETS
from tests.torture.hdf5_objects import OBJECTS
from tests.torture.jobs import CNN, RUN, TABLES, TINY
from tests.torture.material import Material, numbers_of
from tests.torture.seal import seal
from tests.torture.verdicts import Outcome, trouble

HDF5 = OBJECTS | DATASETS
SECONDS = 20.0  # at least; a busy machine lengthens what a command takes on whole files, and this with it
EXTRA = 400 * 2**20  # bytes above the peak of the same command on whole files


@dataclass(frozen=True, kw_only=True)
class Check:
    """A command that reads the file, and what of its end is compared: files, and what it prints."""

    command: str
    line: str
    files: tuple[str, ...] = ()
    prints: bool = False

    @property
    def words(self) -> list[str]:
        """The words of its command line."""
        return self.line.split()


@dataclass(frozen=True, kw_only=True)
class Target:
    """A file to damage. file: its name. begins: the material beside it, {name there: name of the material}."""

    file: str
    begins: dict[str, str]
    checks: tuple[Check, ...]
    stopped: bool = False
    first: tuple[str, ...] = field(default=())


def _probe(flags: str) -> Check:
    return Check(command="probe-depth", line=f"{RUN} {flags} --quiet", files=("run.probes.csv",), prints=True)


INSPECT = Check(command="layerwise-inspect", line=f"{RUN} --verify", prints=True)
NCM, CNN1, AUXILIARY = _probe("--probe ncm"), _probe(f"--probe cnn-1 {CNN}"), _probe("--probe auxiliary,ensemble")
KNN = _probe("--probe knn")
HISTORY = Check(command="training-figure", line=f"{RUN} -o h.pdf --quiet", files=("h.csv", "h.txt"))
FIGURE = Check(command="separability-figure", line=f"{RUN} -o f.pdf --quiet", files=("f.csv", "f.txt"))
TABLE = Check(command="separability-table", line=f"{RUN} -o t.md --quiet", files=("t.md", "t.csv"))
TRAIN = Check(command="layerwise-train", line=f"digits {TINY} -o out.h5", files=("out.h5",))
BASELINE = _probe("--probe ncm --baseline untrained.h5")

WITH_TABLES = {RUN: RUN} | {name: name for name in TABLES}
TARGETS = {
    "run.h5": Target(file=RUN, begins={RUN: RUN}, checks=(INSPECT, NCM, CNN1, AUXILIARY, HISTORY, INSPECT, NCM)),
    "run.h5, untrained": Target(file=RUN, begins={RUN: "untrained.h5"}, checks=(INSPECT, NCM, AUXILIARY)),
    "run.h5, maps": Target(file=RUN, begins={RUN: "maps.h5"}, checks=(INSPECT, NCM, CNN1)),
    "run.h5, arrays": Target(file=RUN, begins={RUN: "arrays.h5"}, checks=(INSPECT, NCM, KNN)),
    "run.h5, compressed": Target(file=RUN, begins={RUN: "packed.h5"}, checks=(INSPECT, NCM, HISTORY)),
    "run.probes.csv": Target(file=TABLES[0], begins=WITH_TABLES, checks=(FIGURE, TABLE, NCM, KNN)),
    "run.candidates.csv": Target(file=TABLES[1], begins={RUN: RUN, TABLES[1]: TABLES[1]}, checks=(CNN1,)),
    "run.predictions.h5": Target(
        file=TABLES[2],
        begins={RUN: RUN, "untrained.h5": "untrained.h5"},
        checks=(NCM, BASELINE),
        first=("probe-depth", RUN, "--probe", "ncm", "--depths", "0-1", "--quiet"),
    ),
    "state.h5": Target(file="out.h5.state/state.h5", begins={}, checks=(TRAIN,), stopped=True),
}
RUNS = [name for name in TARGETS if name.startswith("run.h5")]


def _kinds() -> list[str]:
    found = []
    for name in TARGETS:
        is_text = name.endswith(".csv")
        ways = [*TEXT] if is_text else [*ANY, *HDF5]
        found += [f"damage {name}: {way}" for way in ways]
        found += [f"damage {name}: {way}, digests made to fit" for way in HDF5 if name in RUNS]
    return found


KINDS = _kinds()


def trial(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Damage one file in one way and let commands read it; the first verdict that does not hold decides."""
    name, _, way = kind.removeprefix("damage ").partition(": ")
    target, sealed = TARGETS[name], way.endswith(", digests made to fit")
    with material.trial((), "damage") as folder:
        prepare(target, name, folder, material)
        try:
            # In a fork: files that hang or kill their reader do so to h5py here as well.
            plain = way.removesuffix(", digests made to fit")
            tried = in_fork(lambda: _damage(folder / target.file, plain, rng, folder, sealed), seconds=20)
        except RuntimeError:
            nothing = Done(command="", code=0, out="", err="", seconds=0, peak=0, hung=False)
            return Outcome(kind=kind, tried="nothing: h5py does not make it", verdict="skipped", done=nothing)
        outcome = None
        for check in _chosen(target, rng):
            verdict, seen, done = _read(check, name, target, sealed, folder, material)
            outcome = Outcome(kind=kind, tried=tried, verdict=verdict, done=done, seen=seen)
            if not outcome.held:
                break
        assert outcome is not None
        return outcome


def _chosen(target: Target, rng: np.random.Generator) -> list[Check]:
    """Return one or two checks: a second one only behind one that leaves the tables as they are."""
    picked = [target.checks[int(i)] for i in rng.permutation(len(target.checks))[:2]]
    readers = [check for check in picked if check.command != "probe-depth"]
    return [*readers, *[check for check in picked if check not in readers][:1]]


def prepare(target: Target, name: str, folder: Path, material: Material) -> None:
    """Put a target's files into a folder: copies, what a first command makes of them, or a training that was killed."""
    for there, source in target.begins.items():
        (folder / there).write_bytes((material.folder / source).read_bytes())
    if target.first:
        _kept(material, f"first {name}", [TABLES[0], TABLES[2]], folder, target.first)
    if target.stopped:
        (folder / "out.h5.state").mkdir()
        _kept_state(material, folder)


def _kept(material: Material, name: str, files: Sequence[str], folder: Path, words: Sequence[str]) -> None:
    """Copy what a command made here once, or let it make it."""
    store = material.folder / name.replace(" ", "-")
    if not store.exists():
        done = call(words[0], words[1:], folder)
        assert done.code == 0, done.err
        store.mkdir()
        for file in files:
            (store / file).write_bytes((folder / file).read_bytes())
    for path in store.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())


def _kept_state(material: Material, folder: Path) -> None:
    store = material.folder / "state.h5"
    if not store.exists():
        with material.trial((), "state") as other:
            saved = other / "out.h5.state" / "state.h5"

            def watch(child: Child) -> None:
                if saved.exists():
                    child.send(signal.SIGKILL)

            call(TRAIN.command, TRAIN.words, other, watch=watch)
            store.write_bytes(saved.read_bytes())
    (folder / "out.h5.state" / "state.h5").write_bytes(store.read_bytes())


def _damage(path: Path, way: str, rng: np.random.Generator, folder: Path, sealed: bool) -> str:
    if way in HDF5:
        with h5py.File(path, "r+", libver=("v110", "v110")) as file:
            tried = HDF5[way](file, rng, folder)
        if sealed:
            seal(path)
        return tried
    return (TEXT | ANY)[way](path, rng)


def _read(
    check: Check, name: str, target: Target, sealed: bool, folder: Path, material: Material
) -> tuple[str, str, Done]:
    end = _undamaged(check, name, target, material)
    done = call(check.command, check.words, folder, Limits(seconds=max(SECONDS, 10 * end["seconds"])))
    if (found := trouble(done)) is not None:
        return found, "", done
    if done.peak > end["peak"] + EXTRA:
        return "memory", f"{done.peak >> 20} MB, whole {end['peak'] >> 20} MB", done
    if done.code:
        return "refused", "", done
    if sealed:
        return "answered", "", done
    if end["code"]:
        return "wrong", "an answer where the whole file gives none", done
    wrong = [file for file in check.files if content(folder / file) != end["left"][file]]
    if check.prints and numbers_of(done) != end["printed"]:
        wrong.append("what it printed")
    return ("wrong", ", ".join(wrong), done) if wrong else ("harmless", "", done)


_UNDAMAGED: dict[tuple[str, str], dict[str, Any]] = {}


def _undamaged(check: Check, name: str, target: Target, material: Material) -> dict[str, Any]:
    """Return how a check ends on whole files."""
    key = (name, check.line)
    if key not in _UNDAMAGED:
        with material.trial((), "undamaged") as folder:
            prepare(target, name, folder, material)
            done = call(check.command, check.words, folder)
            # An untrained run has no auxiliaries to score: there a success is the wrong answer.
            if trouble(done):
                raise SystemExit(f"{check.command} {check.line} fails on whole files of {name}: {done.err}")
            left = {file: content(folder / file) for file in check.files}
            about = {"peak": done.peak, "seconds": done.seconds, "code": done.code}
            _UNDAMAGED[key] = about | {"left": left, "printed": numbers_of(done)}
    return _UNDAMAGED[key]
