"""The command `separability-study`: a budget or a few numbers in; networks, probes, figures and tables out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from figures.study.budgets import BUDGETS, asked
from figures.study.conduct import FIELDS, conduct, launcher_named, types_subset
from figures.study.definition import BESIDE
from figures.study.work import Machine
from layerwise.commandline import FITTED, INPUT, MACHINE, NETWORK, OUTPUT, TRAINING, run, set_verbosity
from layerwise.commands.options import DataDir, Device, Download, Quiet, Verbose, takes_fields
from layerwise.errors import UsageError

_DEFAULT = "smoke"


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


@takes_fields(*FIELDS)
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
    launch = launcher_named(launcher, slurm or [], jobs)
    study = asked(
        budget_name or _DEFAULT, fields, settings or [],
        ks=_integers(k, "--k"), widths=_integers(width, "--width"), seeds=seeds,
        modes=() if beside == "none" else _names(beside), probes=_names(probe),
        probe_widths=_integers(probe_width, "--probe-width"), probe_seeds=probe_seeds, probe_epochs=probe_epochs,
        vary_fold=vary_fold, match=match, grid=grid,
    )  # fmt: skip
    machine = Machine(data_dir, device, download, not types_subset(fields, settings or []))
    conduct(output, study, machine, launch, dry_run=dry_run, tell=_show)


def _show(line: str) -> None:
    print(line, flush=True)


def _integers(text: str | None, flag: str) -> tuple[int, ...] | None:
    """Return the integers of a flag; None where it was not given."""
    words = _names(text)
    wrong = [word for word in words or () if not word.isdecimal() or int(word) < 1]
    if wrong:
        raise UsageError(f"{flag} has {wrong[0]!r}, but takes positive integers with commas.")
    return None if words is None else tuple(dict.fromkeys(map(int, words)))


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(dict.fromkeys(word.strip() for word in text.split(",")))
