"""The command `separability-study`: a budget or a few numbers in; networks, probes, figures and tables out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from figures.study import grid as grids
from figures.study.budgets import BUDGETS, asked
from figures.study.definition import BESIDE, Study, Unit, begin, refuse_other
from figures.study.grid import Piece
from figures.study.launch_local import launch_local
from figures.study.launch_slurm import launch_slurm, parse_options
from figures.study.work import Machine, is_complete
from layerwise.commandline import FITTED, INPUT, MACHINE, NETWORK, OUTPUT, TRAINING, if_stopped, run, set_verbosity
from layerwise.commands.options import (
    DataDir,
    Device,
    Download,
    Quiet,
    Verbose,
    takes_fields,
)
from layerwise.errors import UsageError, UserError, unknown

log = logging.getLogger("layerwise.study")

_DEFAULT = "smoke"
LAUNCHERS = ("local", "slurm")

# Completes networks of a study in its folder; returns what stopped each that failed.
Launch = Callable[[Path, Study, Sequence[Piece], Machine], dict[Piece, str]]


def study_command() -> NoReturn:
    """Run the command line of this process."""
    run(separability_study, "separability-study")


Folder = Annotated[Path, typer.Option("-o", "--output", help="Folder of the study.", rich_help_panel=OUTPUT)]
BudgetName = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="Sizes to start from; other flags replace them. "
        + " ".join(f"{name}: {one.operations:.1e} operations, {one.time}." for name, one in BUDGETS.items()),
        show_default=_DEFAULT,
        rich_help_panel=INPUT,
    ),
]
Ks = Annotated[str | None, typer.Option("--k", help="k of the networks, comma-separated.", rich_help_panel=NETWORK)]
Widths = Annotated[
    str | None, typer.Option("--width", help="Their widths M, comma-separated.", rich_help_panel=NETWORK)
]
Seeds = Annotated[
    int | None, typer.Option("--seeds", help="Seeds of each network: how many, from 0.", rich_help_panel=NETWORK)
]
Beside = Annotated[
    str | None,
    typer.Option(
        "--with",
        help=f"Modes beside greedy training: {', '.join(BESIDE)}, comma-separated, or none.",
        rich_help_panel=NETWORK,
    ),
]
Probes = Annotated[
    str | None,
    typer.Option(
        "--probe", help="Probes of every depth: linear, linear-ovr, cnn-1, cnn-2, ...", rich_help_panel=FITTED
    ),
]
ProbeWidths = Annotated[
    str | None, typer.Option("--probe-width", help="Widths of the CNN probes.", rich_help_panel=FITTED)
]
ProbeSeeds = Annotated[
    int | None, typer.Option("--probe-seeds", help="Seeds of each CNN probe.", rich_help_panel=FITTED)
]
VaryFold = Annotated[
    bool,
    typer.Option(
        "--vary-fold",
        help="Give each seed a validation fold of its own, so that intervals include that choice.",
        rich_help_panel=TRAINING,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="[MODE:]KEY=VALUE",
        help="Any other field of layerwise-train's configuration; of one mode by end-to-end:KEY=VALUE, of one mode and "
        "k by end-to-end-k1:KEY=VALUE.",
        rich_help_panel=TRAINING,
    ),
]
Match = Annotated[
    str | None,
    typer.Option(
        "--match",
        help="What networks trained end to end or in parallel share with the greedy one of their k and M: the "
        "operations of its training, or epochs.",
        show_default="operations",
        rich_help_panel=TRAINING,
    ),
]
Grid = Annotated[
    str | None,
    typer.Option(
        "--grid",
        help="small: each mode and k gets the initialisation (default, kaiming) and the learning rate (the recipe's, "
        "a third of it) that reach most on the validation fold, at the smallest M and with a seed of their own; none: "
        "the recipe's for all.",
        show_default="small",
        rich_help_panel=TRAINING,
    ),
]
ProbeEpochs = Annotated[
    int | None, typer.Option("--probe-epochs", help="Epochs of each CNN probe.", rich_help_panel=FITTED)
]
Launcher = Annotated[
    str,
    typer.Option("--launcher", help="local, or slurm: each network a job (needs submitit).", rich_help_panel=MACHINE),
]
Slurm = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm", metavar="KEY=VALUE", help="Of submitit's executor, e.g. timeout_min=120.", rich_help_panel=MACHINE
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        help="Networks at a time here, which share the cores. Default: 2 on a CPU, 1 on a GPU.",
        rich_help_panel=MACHINE,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it costs, and stop there.", rich_help_panel=OUTPUT)]


@takes_fields("data.dataset", "data.subset", "network.depth", "network.aux_width", "training.epochs")
def separability_study(
    *,
    budget_name: BudgetName = None,
    k: Ks = None,
    width: Widths = None,
    seeds: Seeds = None,
    beside: Beside = None,
    vary_fold: VaryFold = False,
    match: Match = None,
    grid: Grid = None,
    settings: Settings = None,
    probe: Probes = None,
    probe_width: ProbeWidths = None,
    probe_seeds: ProbeSeeds = None,
    probe_epochs: ProbeEpochs = None,
    output: Folder,
    data_dir: DataDir = None,
    download: Download = False,
    device: Device = "auto",
    launcher: Launcher = "local",
    slurm: Slurm = None,
    jobs: Jobs = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **fields: Any,
) -> None:
    """Train every network of the separability study, probe every depth, and draw it.

    Greedy networks of each k, width and seed; untrained ones; with --with, those
    of other modes of training. Says first what it costs, and chooses the settings
    of each mode and k on the validation fold (--grid). The same command goes on
    where it was stopped, and skips what is complete; a study can grow. With other
    --epochs the learning rate drops after the same shares of them.

    Writes study.json, choices.csv, runs/, figures/ (separability, one for each M,
    training, attribution) and tables/ (accuracy, trends, contrasts, choices) into
    its folder.

    Examples: separability-study --budget smoke -o study

    separability-study --budget cpu --data-dir DIR -o study
    """
    set_verbosity(quiet, verbose)
    launch = _launcher(launcher, slurm or [], jobs)
    study = asked(
        budget_name or _DEFAULT, fields, settings or [],
        ks=_integers(k, "--k"), widths=_integers(width, "--width"), seeds=seeds,
        modes=() if beside == "none" else _names(beside), probes=_names(probe),
        probe_widths=_integers(probe_width, "--probe-width"), probe_seeds=probe_seeds, probe_epochs=probe_epochs,
        vary_fold=vary_fold, match=match, grid=grid,
    )  # fmt: skip
    _work(output, study, Machine(data_dir, device, download), launch, dry_run)


def _launcher(name: str, slurm: Sequence[str], jobs: int | None) -> Launch:
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


def _work(folder: Path, study: Study, machine: Machine, launch: Launch, dry_run: bool) -> None:
    """Say what the study costs, choose its settings, complete its networks, and draw those that are complete."""
    refuse_other(folder, study)
    study = grids.with_choices(folder, study)
    left = _left(folder, study, machine)
    _say_cost(folder, study, [*grids.left(folder, study), *left], machine)
    if dry_run:
        print("nothing was done: the same command without --dry-run does it")
        return
    begin(folder, study)
    kept = f"What is finished of networks, trainings and probes is kept in {folder}; the same command goes on."
    with if_stopped(lambda: kept):
        study = _choose(folder, study, machine, launch)
        failed = launch(folder, study, left, machine) if left else {}
        _report(folder, study, [unit for unit in study.units() if unit not in failed])
    if failed:
        first = next(iter(failed))
        raise UserError(
            f"{len(failed)} of {len(study.units())} networks failed, the first is {first.name}: {failed[first]} "
            "The others are kept and drawn; the same command tries again."
        )


def _choose(folder: Path, study: Study, machine: Machine, launch: Launch) -> Study:
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

        print(write_choices(folder, rows))
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


def _say_cost(folder: Path, study: Study, left: Sequence[Piece], machine: Machine) -> None:
    from figures.study.cost import cost_of, lines, load, speed_of

    units: list[Piece] = [*grids.trials(study), *study.units()]
    if not left:
        print(f"{folder}: {len(study.units())} networks, all complete")
        return
    dataset = load(study, machine)
    firsts = {unit: replace(unit, seed=0) if isinstance(unit, Unit) else unit for unit in units}
    kinds = {first: cost_of(study, first, dataset, machine) for first in dict.fromkeys(firsts.values())}
    costs = {unit: kinds[firsts[unit]] for unit in units}
    for line in lines(units, left, costs, speed_of(study, dataset, machine)):
        print(line, flush=True)


def _report(folder: Path, study: Study, units: Sequence[Unit]) -> None:
    from figures.study.report import report

    if not any(unit.mode == "greedy" for unit in units):
        log.warning("no greedy network is complete, so nothing is drawn.")
        return
    for path in report(folder, study, units):
        print(path)


def _integers(text: str | None, flag: str) -> tuple[int, ...] | None:
    """Return the integers of a flag; None where it was not given."""
    words = _names(text)
    wrong = [word for word in words or () if not word.isdecimal() or int(word) < 1]
    if wrong:
        raise UsageError(f"{flag} has {wrong[0]!r}, but takes positive integers with commas.")
    return None if words is None else tuple(dict.fromkeys(map(int, words)))


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(dict.fromkeys(word.strip() for word in text.split(",")))
