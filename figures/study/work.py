"""The work on one network of a study: it is trained if its file is not there, and gets the probes that it lacks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from figures.study import grid
from figures.study.definition import Job, Study, Unit, difference, diverged_path, run_path
from figures.study.grid import Piece, Trial
from layerwise.errors import DivergedError, UserError
from layerwise.publication import published
from layerwise.settings import set_fields

if TYPE_CHECKING:
    from layerwise.runfile import RunFile
    from layerwise.runfile.place import Place
    from probes.probe import Family, ProbeName
    from probes.tasks.task import Task


@dataclass(frozen=True)
class Machine:
    """Where the data lie and what computes: what a study does not say of itself.

    subset_is_most: whether data of fewer images than the subset are taken whole, since nobody asked for that number.
    """

    data_dir: Path | None = None
    device: str = "auto"
    download: bool = False
    subset_is_most: bool = False


def is_complete(folder: Path, study: Study, unit: Unit, machine: Machine) -> bool:
    """Return whether a network is trained and has all its probes, or could not be trained, its loss being no number.

    Raises UserError if its file is damaged, or is of another configuration.
    """
    path = run_path(folder, unit)
    if study.free(unit.mode, unit.k) and f"{unit.mode}-k{unit.k}" not in study.chosen:
        return False  # its settings are not chosen yet
    if diverged_path(folder, unit).exists():
        return True
    if not path.exists():
        return False
    with _opened(path, study, unit, machine) as run:
        return not any(left for job in study.jobs(unit) for _, _, left in _families(run, job, machine))


def complete(folder: Path, study: Study, unit: Piece, machine: Machine) -> float:
    """Do what a network lacks: training, which goes on where it was stopped, and then each probe; return the seconds.

    A point of the grid is trained and scored. Raises UserError for what stops it, such as a damaged file or another
    process at work on it; nothing is replaced. A network that diverges is noted, since it would again. All ranks do it
    together, and what stands in the folder is what the first of them sees.
    """
    from layerwise import ranks

    start = time.perf_counter()
    if isinstance(unit, Trial):
        grid.attempt(folder, study, unit, _place(grid.run_of(folder, unit), machine))
        return time.perf_counter() - start
    path = run_path(folder, unit)
    try:
        if not ranks.by_first(path.exists):
            _train(path, study, unit, machine)  # the file appears when it is whole, so none is half trained
    except DivergedError as error:
        words = f"{error}\n"
        ranks.by_first(lambda: _note(diverged_path(folder, unit), words))
        return time.perf_counter() - start
    from probes.sweep import sweep

    with _opened(path, study, unit, machine) as run:
        for job in study.jobs(unit):
            for task, family, left in _families(run, job, machine):
                if left:
                    sweep(run, task, family, family.depths())
    return time.perf_counter() - start


def _note(path: Path, words: str) -> None:
    with published(path, force=True) as temporary:
        temporary.write_text(words, encoding="utf-8")


def _train(path: Path, study: Study, unit: Unit, machine: Machine) -> None:
    from layerwise.training.run import train_run

    train_run(study.config(unit), _place(path, machine))


def _place(path: Path, machine: Machine) -> Place:
    from layerwise.hardware import pick_device
    from layerwise.runfile.place import Place

    return Place(
        out=path, device=pick_device(machine.device), data_dir=machine.data_dir, download=machine.download,
        subset_is_most=machine.subset_is_most,
    )  # fmt: skip


@contextmanager
def _opened(path: Path, study: Study, unit: Unit, machine: Machine) -> Iterator[RunFile]:
    from layerwise.runfile import RunFile

    with RunFile(path) as run:
        other = "it was not trained here"
        if run.config is not None:
            expected = study.config(unit)
            if machine.subset_is_most and _n_images(run) < expected.data.subset:
                expected = set_fields(expected, {"data.subset": 0})
            other = difference(run.config, expected)
        if other:
            raise UserError(
                f"{path} is no network of this study: {other}. Move it away, and the same command trains the one that "
                "belongs there."
            )
        yield run


def _n_images(run: RunFile) -> int:
    """Return how many images a run was trained on, its validation fold included."""
    return sum(len(run.labels(split)) for split in run.splits if split != "test")


def _families(run: RunFile, job: Job, machine: Machine) -> Iterator[tuple[Task, Family, Mapping[int, list[ProbeName]]]]:
    """Yield the families of a job, each with what it asks and what is left of it to fit."""
    from layerwise import ranks
    from layerwise.hardware import pick_device
    from probes.families import families
    from probes.names import CNN_EPOCHS, CNN_SEEDS, Settings
    from probes.sweep import missing
    from probes.tasks.task import Task

    common = {"pools": (2,), "features": "native", "widths": (64,), "seeds": CNN_SEEDS, "epochs": CNN_EPOCHS}
    settings = Settings(**{**common, "source": "auto", "device": pick_device(machine.device), **job.settings})
    task = Task(run)
    for family in families(run, task, job.probes, settings):
        yield task, family, ranks.by_first(partial(missing, run, family, family.depths()))
