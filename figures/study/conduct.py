"""A study carried out: its cost is said, settings are chosen, networks completed, figures and tables drawn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures.study import grid as grids
from figures.study.budgets import asked
from figures.study.definition import Study, Unit, begin, refuse_other, run_path
from figures.study.grid import Piece
from figures.study.launch_local import launch_local
from figures.study.launch_slurm import launch_slurm, parse_options
from figures.study.work import Machine, is_complete
from layerwise.commandline import if_stopped
from layerwise.errors import UsageError, UserError, unknown
from layerwise.settings import parse_setting
from layerwise.spoken import python_call
from probes.names import whole_numbers

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("layerwise.study")

# Of the configuration, those that the command has a flag for; the others it takes as text.
FIELDS = (
    "data.dataset", "data.subset", "data.test_share", "data.image_size", "network.depth", "network.aux_width",
    "training.epochs",
)  # fmt: skip
LAUNCHERS = ("local", "slurm")

# Completes networks of a study in its folder; returns what stopped each that failed.
Launch = Callable[[Path, Study, Sequence[Piece], Machine], dict[Piece, str]]


@python_call("separability-study")
def run_study(
    folder: Path | str,
    budget: str = "smoke",
    *,
    settings: Mapping[str, Any] | None = None,
    k: int | Sequence[int] | None = None,
    width: int | Sequence[int] | None = None,
    seeds: int | None = None,
    beside: str | Sequence[str] | None = None,
    probes: str | Sequence[str] | None = None,
    widths: int | Sequence[int] | None = None,
    probe_seeds: int | None = None,
    probe_epochs: int | None = None,
    vary_fold: bool = False,
    match: str | None = None,
    grid: str | None = None,
    data_dir: Path | str | None = None,
    download: bool = False,
    device: str = "auto",
    launcher: str = "local",
    slurm: Mapping[str, Any] | None = None,
    jobs: int = 1,
    quiet: bool = False,
) -> pd.DataFrame:
    """Train every network of a separability study, probe every depth and draw it, as separability-study does.

    Args:
        folder: of the study: study.json, choices.csv, runs/, figures/ and tables/ are written there. The same call goes
            on where it was stopped, and a study can grow.
        budget: sizes to start from: smoke, cpu, gpu, paper. What is None below is the budget's own.
        settings: fields of the configuration by dotted path, of one mode by "end-to-end:training.learning_rate".
        k, width, seeds: of the networks: their k and widths M, how many seeds. beside: modes beside greedy and
            untrained networks, which every study has: "parallel", "end-to-end"; [] for none.
        probes, widths, probe_seeds, probe_epochs: probes of every depth; of CNN probes widths, seeds and epochs.
        vary_fold: whether each seed has a validation fold of its own. match: operations or epochs.
        grid: small or none: what is chosen for each mode and k on the validation fold.
        data_dir, download: the folder of the data, and whether they are fetched into it. device: auto, cpu or cuda.
        launcher: local or slurm, whose options are in `slurm`.
        jobs: networks at a time, each in a process; a script that asks for more than one does so under
            `if __name__ == "__main__":`.
        quiet: whether nothing is shown meanwhile.

    Returns:
        The probe results of all complete networks, as `analysis.read` returns them.

    Raises UserError where networks failed, after the others are kept and drawn.
    """
    from analysis.tables import read

    options = [f"{name}={value}" for name, value in (slurm or {}).items()]
    launch = launcher_named(launcher, options, None if launcher == "slurm" else jobs)
    # As the command takes them, so that either goes on with a study of the other.
    fields = {name: value for name, value in (settings or {}).items() if name in FIELDS}
    words = [f"{name}={value}" for name, value in (settings or {}).items() if name not in FIELDS]
    study = asked(
        budget, fields, words, ks=_numbers("k", k), widths=_numbers("width", width), seeds=_number("seeds", seeds),
        modes=_words("beside", beside), probes=_words("probes", probes), probe_widths=_numbers("widths", widths),
        probe_seeds=_number("probe_seeds", probe_seeds), probe_epochs=_number("probe_epochs", probe_epochs),
        vary_fold=vary_fold, match=match, grid=grid,
    )  # fmt: skip
    machine = Machine(None if data_dir is None else Path(data_dir), device, download, not types_subset(settings or {}))
    conduct(Path(folder), study, machine, launch, tell=log.info)
    runs = [path for unit in study.units() if (path := run_path(Path(folder), unit)).exists()]
    return read(runs)


def types_subset(fields: Mapping[str, Any], words: Sequence[str] = ()) -> bool:
    """Return whether a subset was asked for: one that the budget has of its own is "at most"."""
    settings = [parse_setting(word)[0].rpartition(":")[2] for word in words]
    return fields.get("data.subset") is not None or "data.subset" in settings


def _numbers(name: str, given: object) -> tuple[int, ...] | None:
    return None if given is None else whole_numbers(name, given)


def _number(name: str, given: object) -> int | None:
    if given is None or isinstance(given, Integral):
        return None if given is None else int(given)
    raise UsageError(f"{name} is {given!r}; expected a whole number.")


def _words(name: str, given: object) -> tuple[str, ...] | None:
    """Return one word, or several, each once, as a tuple; raise UsageError for anything else."""
    if given is None:
        return None
    found = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    if not all(isinstance(one, str) for one in found):
        raise UsageError(f"{name} is {given!r}; expected a word, or several in a list.")
    return tuple(dict.fromkeys(found))


def launcher_named(name: str, slurm: Sequence[str], jobs: int | None) -> Launch:
    """Return what completes networks: jobs of a cluster, processes here, or this process alone."""
    if name not in LAUNCHERS:
        raise unknown("launcher", name, LAUNCHERS)
    options = parse_options(slurm)
    if name == "slurm":
        if jobs:
            raise UsageError("--jobs is of --launcher local; on a cluster each network is a job. Leave it out.")
        return partial(launch_slurm, options=options)
    if slurm:
        raise UsageError("--slurm is of --launcher slurm. Give both.")
    return partial(launch_local, jobs=jobs)


def conduct(
    folder: Path, study: Study, machine: Machine, launch: Launch, *, dry_run: bool = False, tell: Callable[[str], None]
) -> None:
    """Say what the study costs, choose its settings, complete its networks, and draw those that are complete.

    dry_run: say what it costs, and do nothing. tell: is given each line that is said.

    Raises UserError where networks failed; the others are kept and drawn.
    """
    refuse_other(folder, study)
    study = grids.with_choices(folder, study)
    left = _left(folder, study, machine)
    for line in _cost(folder, study, [*grids.left(folder, study), *left], machine):
        tell(line)
    if dry_run:
        tell("nothing was done: the same command without --dry-run does it")
        return
    begin(folder, study)
    kept = f"What is finished of networks, trainings and probes is kept in {folder}; the same command goes on."
    with if_stopped(lambda: kept):
        study = _choose(folder, study, machine, launch, tell)
        failed = launch(folder, study, left, machine) if left else {}
        for path in _report(folder, study, [unit for unit in study.units() if unit not in failed]):
            tell(str(path))
    if failed:
        first = next(iter(failed))
        raise UserError(
            f"{len(failed)} of {len(study.units())} networks failed, the first is {first.name}: {failed[first]} "
            "The others are kept and drawn; the same command tries again."
        )


def _choose(folder: Path, study: Study, machine: Machine, launch: Launch, tell: Callable[[str], None]) -> Study:
    """Return the study with the settings of each mode and k; those that are not chosen yet are tried first."""
    left = grids.left(folder, study)
    if left and (failed := launch(folder, study, left, machine)):
        first = next(iter(failed))
        raise UserError(
            f"{len(failed)} of {len(left)} settings could not be tried, the first is {first.name}: {failed[first]} "
            "What was tried is kept; the same command tries again."
        )
    if rows := grids.results(folder, study):
        grids.require_choices(rows)
        from figures.study.choices import write_choices

        tell(write_choices(folder, rows))
    return grids.with_choices(folder, study)


def _left(folder: Path, study: Study, machine: Machine) -> list[Unit]:
    """Return the networks that are not complete; a damaged file is among them, and says so when its turn comes."""
    left = []
    for unit in study.units():
        try:
            done = is_complete(folder, study, unit, machine)
        except UserError:
            done = False
        left += [] if done else [unit]
    return left


def _cost(folder: Path, study: Study, left: Sequence[Piece], machine: Machine) -> Iterator[str]:
    from figures.study.cost import cost_of, lines, sizes_of, speed_of

    units: list[Piece] = [*grids.trials(study), *study.units()]
    if not left:
        yield f"{folder}: {len(study.units())} networks, all complete"
        return
    sizes = sizes_of(study, machine)
    firsts = {unit: replace(unit, seed=0) if isinstance(unit, Unit) else unit for unit in units}
    kinds = {first: cost_of(study, first, sizes, machine) for first in dict.fromkeys(firsts.values())}
    costs = {unit: kinds[firsts[unit]] for unit in units}
    yield from lines(units, left, costs, speed_of(study, sizes, machine))


def _report(folder: Path, study: Study, units: Sequence[Unit]) -> list[Path]:
    from figures.study.report import report

    if not any(unit.mode == "greedy" for unit in units):
        log.warning("no greedy network is complete, so nothing is drawn.")
        return []
    return list(report(folder, study, units))
