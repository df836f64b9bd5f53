"""Owns the command `separability-study`: a budget or a few numbers in; networks, probes, figures and tables out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from figures.study.budgets import BUDGETS, budget
from figures.study.definition import BESIDE, Study, Unit, begin, refuse_other
from figures.study.launchers import LAUNCHERS, default_jobs, launch_here, launch_jobs, launch_processes, parse_options
from figures.study.work import Machine, is_complete
from layerwise.commandline import run, set_verbosity
from layerwise.commands.options import Quiet, Verbose
from layerwise.errors import UsageError, UserError, unknown
from layerwise.settings import parse_setting

log = logging.getLogger("layerwise.study")

_DEFAULT = "paper"


def study_command() -> NoReturn:
    """Run the command line of this process."""
    run(separability_study, "separability-study")


def separability_study(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the study.")],
    budget_name: Annotated[
        str | None,
        typer.Option(
            "--budget",
            help="Sizes to start from; other flags replace them. "
            + " ".join(f"{name}: {one.operations:.1e} operations, {one.time}." for name, one in BUDGETS.items()),
            show_default=_DEFAULT,
        ),
    ] = None,
    k: Annotated[str | None, typer.Option("--k", help="k of the networks, comma-separated.")] = None,
    width: Annotated[str | None, typer.Option("--width", help="Their widths M, comma-separated.")] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Seeds of each network: how many, from 0.")] = None,
    beside: Annotated[
        str | None,
        typer.Option("--with", help=f"Modes beside greedy training: {', '.join(BESIDE)}, comma-separated, or none."),
    ] = None,
    probe: Annotated[
        str | None, typer.Option("--probe", help="Probes of every depth: linear, linear-ovr, cnn-1, cnn-2, ...")
    ] = None,
    probe_width: Annotated[str | None, typer.Option("--probe-width", help="Widths of the CNN probes.")] = None,
    probe_seeds: Annotated[int | None, typer.Option("--probe-seeds", help="Seeds of each CNN probe.")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="As of layerwise-train.")] = None,
    subset: Annotated[int | None, typer.Option("--subset", help="Images of the train split; 0 for all.")] = None,
    depth: Annotated[int | None, typer.Option("--depth", help="J, the number of blocks.")] = None,
    aux_width: Annotated[int | None, typer.Option("--aux-width", help="M~, channels of the auxiliaries.")] = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", help="Epochs for each block; the learning rate drops at the same shares of them."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other field of layerwise-train's configuration."),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", envvar="LAYERWISE_DATA", help="Folder that holds the data set.")
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the data set into --data-dir.")] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    launcher: Annotated[
        str, typer.Option("--launcher", help="local, or slurm: each network a job (needs submitit).")
    ] = "local",
    slurm: Annotated[
        list[str] | None,
        typer.Option("--slurm", metavar="KEY=VALUE", help="Of submitit's executor, e.g. timeout_min=120."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", min=1, help="Networks at a time here, which share the cores. Default: 2 on a CPU, 1 on a GPU."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it costs, and stop there.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train every network of the separability study, probe every depth, and draw it.

    Greedy networks of each k, width and seed; untrained ones; with --with, those of
    other modes of training. Says first what it costs. The same command goes on
    where it was stopped, and skips what is complete; a study can grow.

    Writes study.json, runs/, figures/ (separability, one for each M, training,
    attribution) and tables/ (accuracy, trends, contrasts) into its folder.

    Examples: separability-study --budget smoke -o study

    separability-study --budget cpu --data-dir DIR -o study
    """
    set_verbosity(quiet, verbose)
    if launcher not in LAUNCHERS:
        raise unknown("launcher", launcher, LAUNCHERS)
    if slurm and launcher != "slurm":
        raise UsageError("--slurm is of --launcher slurm. Give both.")
    if jobs and launcher == "slurm":
        raise UsageError("--jobs is of --launcher local; on a cluster each network is a job. Leave it out.")
    options = parse_options(slurm or [])
    flags = {
        "data.dataset": dataset, "data.subset": subset, "network.depth": depth, "network.aux_width": aux_width,
        "training.epochs": epochs,
    }  # fmt: skip
    study = asked(
        budget_name or _DEFAULT, flags, settings or [], k, width, seeds, beside, probe, probe_width, probe_seeds
    )
    machine = Machine(data_dir, device, download)
    refuse_other(output, study)
    left = _left(output, study, machine)
    _say_cost(output, study, left, machine)
    if dry_run:
        print("nothing was done: the same command without --dry-run does it")
        return
    begin(output, study)
    if launcher == "slurm" and left:
        failed = launch_jobs(output, study, left, machine, options)
    elif (count := min(jobs or default_jobs(machine), len(left))) > 1:
        failed = launch_processes(output, study, left, machine, count)
    else:
        failed = launch_here(output, study, left, machine)
    _report(output, study, [unit for unit in study.units() if unit not in failed])
    if failed:
        first = next(iter(failed))
        raise UserError(
            f"{len(failed)} of {len(study.units())} networks failed, the first is {first.name}: {failed[first]} "
            "The others are kept and drawn; the same command tries again."
        )


def asked(
    name: str,
    flags: dict[str, Any],
    words: Sequence[str],
    k: str | None,
    width: str | None,
    seeds: int | None,
    beside: str | None,
    probe: str | None,
    probe_width: str | None,
    probe_seeds: int | None,
) -> Study:
    """Return the study of a budget with what the flags replace."""
    sizes = budget(name)
    settings = dict(sizes.settings) | {path: value for path, value in flags.items() if value is not None}
    if flags.get("training.epochs") is not None:
        settings["training.lr_every"] = _drops(sizes.recipe, flags["training.epochs"])
    settings |= dict(map(parse_setting, words))
    return Study(
        recipe=sizes.recipe,
        ks=sizes.ks if k is None else _integers(k, "--k"),
        widths=sizes.widths if width is None else _integers(width, "--width"),
        seeds=sizes.seeds if seeds is None else seeds,
        modes=sizes.modes if beside is None else _names(beside) if beside != "none" else (),
        probes=sizes.probes if probe is None else _names(probe),
        probe_widths=sizes.probe_widths if probe_width is None else _integers(probe_width, "--probe-width"),
        probe_seeds=sizes.probe_seeds if probe_seeds is None else probe_seeds,
        settings=settings,
    )


def _drops(recipe_name: str, epochs: int) -> int:
    """Return after how many epochs the learning rate drops, the recipe's share of them."""
    from layerwise.recipes import recipe

    training = recipe(recipe_name).training
    return max(1, round(epochs * training.lr_every / training.epochs))


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
    for line in lines(study, units, left, costs, speed_of(study, dataset, machine)):
        print(line, flush=True)


def _report(folder: Path, study: Study, units: Sequence[Unit]) -> None:
    from figures.study.report import report

    if not any(unit.mode == "greedy" for unit in units):
        log.warning("no greedy network is complete, so nothing is drawn.")
        return
    for path in report(folder, study, units):
        print(path)


def _integers(text: str, flag: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if not word.isdecimal() or int(word) < 1]
    if wrong:
        raise UsageError(f"{flag} has {wrong[0]!r}, but takes positive integers with commas.")
    return tuple(dict.fromkeys(map(int, words)))


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",")))
