"""The work on one network of a study: it is trained if its file is not there, and gets the probes that it lacks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from figures.study.definition import Job, Study, Unit, difference, run_path
from layerwise.errors import UserError

if TYPE_CHECKING:
    from layerwise.runfile import RunFile
    from probes.probe import Family, ProbeName
    from probes.tasks.task import Task


@dataclass(frozen=True)
class Machine:
    """Where the data lie and what computes: what a study does not say of itself."""

    data_dir: Path | None = None
    device: str = "auto"
    download: bool = False


def is_complete(folder: Path, study: Study, unit: Unit, machine: Machine) -> bool:
    """Return whether a network is trained and has all its probes.

    Raises UserError if its file is damaged, or is of another configuration.
    """
    path = run_path(folder, unit)
    if not path.exists():
        return False
    with _opened(path, study, unit) as run:
        return not any(left for job in study.jobs(unit) for _, _, left in _families(run, job, machine))


def complete(folder: Path, study: Study, unit: Unit, machine: Machine) -> float:
    """Do what a network lacks: training, which goes on where it was stopped, and then each probe; return the seconds.

    Raises UserError for what stops it, such as a damaged file or another process at work on it; nothing is replaced.
    """
    start, path = time.perf_counter(), run_path(folder, unit)
    if not path.exists():
        _train(path, study, unit, machine)  # the file appears when it is whole, so none is half trained
    from probes.sweep import sweep

    with _opened(path, study, unit) as run:
        for job in study.jobs(unit):
            for task, family, left in _families(run, job, machine):
                if left:
                    sweep(run, task, family, family.depths())
    return time.perf_counter() - start


def _train(path: Path, study: Study, unit: Unit, machine: Machine) -> None:
    from layerwise.hardware import pick_device
    from layerwise.runfile.place import Place
    from layerwise.training.run import train_run

    place = Place(out=path, device=pick_device(machine.device), data_dir=machine.data_dir, download=machine.download)
    train_run(study.config(unit), place)


@contextmanager
def _opened(path: Path, study: Study, unit: Unit) -> Iterator[RunFile]:
    from layerwise.runfile import RunFile

    with RunFile(path) as run:
        other = "it was not trained here" if run.config is None else difference(run.config, study.config(unit))
        if other:
            raise UserError(
                f"{path} is no network of this study: {other}. Move it away, and the same command trains the one that "
                "belongs there."
            )
        yield run


def _families(run: RunFile, job: Job, machine: Machine) -> Iterator[tuple[Task, Family, dict[int, list[ProbeName]]]]:
    """Yield the families of a job, each with what it asks and what is left of it to fit."""
    from layerwise.hardware import pick_device
    from probes.families import families
    from probes.names import CNN_EPOCHS, CNN_SEEDS, Settings
    from probes.sweep import missing
    from probes.tasks.task import Task

    common = {"pools": (2,), "features": "native", "widths": (64,), "seeds": CNN_SEEDS, "epochs": CNN_EPOCHS}
    settings = Settings(**{**common, "source": "auto", "device": pick_device(machine.device), **job.settings})
    task = Task(run)
    for family in families(run, task, job.probes, settings):
        yield task, family, dict(missing(run, family, family.depths()))
