"""The command `separability-study`: a budget or a few numbers in; networks, probes, figures and tables out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from figures.study.budgets import BUDGETS, asked
from figures.study.definition import BESIDE, Study, Unit, begin, refuse_other
from figures.study.launch_local import launch_local
from figures.study.launch_slurm import launch_slurm, parse_options
from figures.study.work import Machine, is_complete
from layerwise.commandline import if_stopped, run, set_verbosity
from layerwise.commands.options import DataDir, Device, Download, Quiet, Verbose, takes_fields
from layerwise.errors import UsageError, UserError, unknown

log = logging.getLogger("layerwise.study")

_DEFAULT = "paper"
LAUNCHERS = ("local", "slurm")

# Completes networks of a study in its folder; returns what stopped each that failed.
Launch = Callable[[Path, Study, Sequence[Unit], Machine], dict[Unit, str]]


def study_command() -> NoReturn:
    """Run the command line of this process."""
    run(separability_study, "separability-study")


Folder = Annotated[Path, typer.Option("-o", "--output", help="Folder of the study.")]
BudgetName = Annotated[
    str | None,
    typer.Option(
        "--budget",
        help="Sizes to start from; other flags replace them. "
        + " ".join(f"{name}: {one.operations:.1e} operations, {one.time}." for name, one in BUDGETS.items()),
        show_default=_DEFAULT,
    ),
]
Ks = Annotated[str | None, typer.Option("--k", help="k of the networks, comma-separated.")]
Widths = Annotated[str | None, typer.Option("--width", help="Their widths M, comma-separated.")]
Seeds = Annotated[int | None, typer.Option("--seeds", help="Seeds of each network: how many, from 0.")]
Beside = Annotated[
    str | None,
    typer.Option("--with", help=f"Modes beside greedy training: {', '.join(BESIDE)}, comma-separated, or none."),
]
Probes = Annotated[
    str | None, typer.Option("--probe", help="Probes of every depth: linear, linear-ovr, cnn-1, cnn-2, ...")
]
ProbeWidths = Annotated[str | None, typer.Option("--probe-width", help="Widths of the CNN probes.")]
ProbeSeeds = Annotated[int | None, typer.Option("--probe-seeds", help="Seeds of each CNN probe.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any other field of layerwise-train's configuration."),
]
Launcher = Annotated[str, typer.Option("--launcher", help="local, or slurm: each network a job (needs submitit).")]
Slurm = Annotated[
    list[str] | None,
    typer.Option("--slurm", metavar="KEY=VALUE", help="Of submitit's executor, e.g. timeout_min=120."),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", min=1, help="Networks at a time here, which share the cores. Default: 2 on a CPU, 1 on a GPU."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it costs, and stop there.")]


@takes_fields("data.dataset", "data.subset", "network.depth", "network.aux_width", "training.epochs")
def separability_study(
    output: Folder,
    budget_name: BudgetName = None,
    k: Ks = None,
    width: Widths = None,
    seeds: Seeds = None,
    beside: Beside = None,
    probe: Probes = None,
    probe_width: ProbeWidths = None,
    probe_seeds: ProbeSeeds = None,
    settings: Settings = None,
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
    of other modes of training. Says first what it costs. The same command goes on
    where it was stopped, and skips what is complete; a study can grow. With other
    --epochs the learning rate drops after the same shares of them.

    Writes study.json, runs/, figures/ (separability, one for each M, training,
    attribution) and tables/ (accuracy, trends, contrasts) into its folder.

    Examples: separability-study --budget smoke -o study

    separability-study --budget cpu --data-dir DIR -o study
    """
    set_verbosity(quiet, verbose)
    launch = _launcher(launcher, slurm or [], jobs)
    study = asked(
        budget_name or _DEFAULT, fields, settings or [],
        ks=_integers(k, "--k"), widths=_integers(width, "--width"), seeds=seeds,
        modes=() if beside == "none" else _names(beside), probes=_names(probe),
        probe_widths=_integers(probe_width, "--probe-width"), probe_seeds=probe_seeds,
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
    """Say what the study costs, complete its networks, and draw those that are complete."""
    refuse_other(folder, study)
    left = _left(folder, study, machine)
    _say_cost(folder, study, left, machine)
    if dry_run:
        print("nothing was done: the same command without --dry-run does it")
        return
    begin(folder, study)
    kept = f"What is finished of networks, trainings and probes is kept in {folder}; the same command goes on."
    with if_stopped(lambda: kept):
        failed = launch(folder, study, left, machine) if left else {}
        _report(folder, study, [unit for unit in study.units() if unit not in failed])
    if failed:
        first = next(iter(failed))
        raise UserError(
            f"{len(failed)} of {len(study.units())} networks failed, the first is {first.name}: {failed[first]} "
            "The others are kept and drawn; the same command tries again."
        )


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


def _say_cost(folder: Path, study: Study, left: Sequence[Unit], machine: Machine) -> None:
    from figures.study.cost import cost_of, lines, load, speed_of

    units = study.units()
    if not left:
        print(f"{folder}: {len(units)} networks, all complete")
        return
    dataset = load(study, machine)
    kinds = {(unit.mode, unit.k, unit.width): cost_of(study, unit, dataset, machine) for unit in units if not unit.seed}
    costs = {unit: kinds[unit.mode, unit.k, unit.width] for unit in units}
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
