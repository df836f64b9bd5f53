"""The command probe-depth: its options, and which work they ask for."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from layerwise import commandline, launch
from layerwise.commandline import FITTED, INPUT, MACHINE, OUTPUT
from layerwise.commands.options import Device, Quiet, RunDataDir, RunNetwork, Verbose
from layerwise.errors import UsageError, UserError, one_line, unknown
from probes.families import families
from probes.names import (
    CNN_EPOCHS,
    CNN_SEEDS,
    CNN_WIDTHS,
    CODELENGTH,
    FEATURES,
    POOLS,
    QUICK_EPOCHS,
    SOURCES,
    Settings,
    hidden_convolutions,
)

if TYPE_CHECKING:
    from layerwise.datasets.shown import ShownFolder
    from layerwise.runfile import RunFile
    from probes.probe import Family
    from probes.tasks.task import Task

log = logging.getLogger("layerwise.probes")

Probes = Annotated[
    str,
    typer.Option(
        "--probe",
        help="linear, linear-ovr, cnn-1, cnn-2, ..., knn, ncm, codelength, auxiliary, ensemble; several with commas.",
        rich_help_panel=FITTED,
    ),
]
Depths = Annotated[
    str | None,
    typer.Option("--depths", help="Depths to probe, such as 0-3 or 1,4. Default: all.", rich_help_panel=INPUT),
]
Pools = Annotated[
    str,
    typer.Option(
        "--pool",
        help="linear, knn, ncm read each map averaged over SIDE x SIDE regions: 1, 2, 4, 8.",
        rich_help_panel=FITTED,
    ),
]
Features = Annotated[
    str,
    typer.Option(
        help="native; matched or input: random projections of every depth to the least width, or to the number of "
        "features of the pooled input.",
        rich_help_panel=FITTED,
    ),
]
Pixels = Annotated[
    bool,
    typer.Option(
        "--pixels/--no-pixels",
        help="Whether linear probes read the raw pixels too, as a reference; equal in all runs on the same folds.",
        rich_help_panel=FITTED,
    ),
]
MaxMemory = Annotated[
    str,
    typer.Option(
        help="Features that would take more than this (twice) are streamed, with the same result. Of several ranks "
        "each may take as much.",
        rich_help_panel=MACHINE,
    ),
]
Control = Annotated[
    str,
    typer.Option(
        help="Labels of a control task: permuted (memorisation) or teacher (the gap to a random network's labels).",
        rich_help_panel=INPUT,
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="LABELS.CSV", help="Probe for another property: a table of split, index, label.", rich_help_panel=INPUT
    ),
]
Evaluate = Annotated[
    list[Path] | None,
    typer.Option(
        "--evaluate",
        metavar="FOLDER",
        help="Other images of the same classes, in FOLDER/CLASS or FOLDER/NAME/CLASS: the probes are scored on them as "
        "they are. May be given again.",
        rich_help_panel=INPUT,
    ),
]
Baseline = Annotated[
    Path | None,
    typer.Option(
        metavar="UNTRAINED.H5",
        help="Another run on the same images, probed too and shown beside this one.",
        rich_help_panel=INPUT,
    ),
]
Widths = Annotated[
    str, typer.Option("--probe-width", help="Widths M of the CNN probes, comma-separated.", rich_help_panel=FITTED)
]
Seeds = Annotated[
    int,
    typer.Option(
        "--probe-seeds",
        help="Seeds of each CNN probe, orders of a codelength: how many, from 0.",
        rich_help_panel=FITTED,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", help="Epochs of each CNN probe.", show_default=str(CNN_EPOCHS), rich_help_panel=FITTED),
]
Quick = Annotated[
    bool,
    typer.Option(
        "--quick",
        help=f"{QUICK_EPOCHS} epochs for each CNN probe, for a first look; table and figures say so.",
        rich_help_panel=FITTED,
    ),
]
Source = Annotated[
    str,
    typer.Option(
        "--source",
        help="Where maps come from: auto, stored, recompute (images and blocks), or folder (its images and blocks).",
        rich_help_panel=MACHINE,
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Fit again what the table already holds, reading the test split again.", rich_help_panel=OUTPUT
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Say what is left to fit and what linear and CNN probes would take; do nothing.",
        rich_help_panel=OUTPUT,
    ),
]


def probe(
    files: Annotated[list[Path], typer.Argument(metavar="RUN.H5...", help="Run files to probe, one after the other.")],
    probes: Probes = "linear",
    depths: Depths = None,
    pools: Pools = "2",
    features: Features = "native",
    pixels: Pixels = True,
    max_memory: MaxMemory = "8GB",
    control: Control = "none",
    target: Labels = None,
    baseline: Baseline = None,
    evaluate: Evaluate = None,
    widths: Widths = CNN_WIDTHS,
    seeds: Seeds = CNN_SEEDS,
    epochs: Epochs = None,
    quick: Quick = False,
    source: Source = "auto",
    data_dir: RunDataDir = None,
    network: RunNetwork = None,
    device: Device = "auto",
    force: Force = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Fit probes to every depth of each run, and keep each number as a row of its RUN.probes.csv.

    Penalties and learning rates are chosen on the validation fold; the chosen
    probe is refitted on train + validation, and only then is the test split read.
    Probes that the table holds are not fitted again.

        probe-depth run.h5 --probe linear

        probe-depth k1.h5 k2.h5 k3.h5 --probe cnn-1,cnn-2 --probe-width 64,128

        probe-depth run.h5 --probe linear --control teacher

        probe-depth run.h5 --probe linear --evaluate shifted-images

    Next: separability-figure run.h5 -o figure.pdf
    """
    commandline.set_verbosity(quiet, verbose)
    # What is wrong with these words is answered before anything is loaded.
    names = list(dict.fromkeys(name.strip() for name in probes.split(",")))
    for name in names:
        hidden_convolutions(name)
    sides, probe_widths = _sides(pools), [_positive(word, "--probe-width") for word in widths.split(",")]
    _positive(str(seeds), "--probe-seeds")
    if quick and epochs is not None:
        raise UsageError(f"--quick means --epochs {QUICK_EPOCHS}, so it takes no --epochs. Give one of the two.")
    epochs = QUICK_EPOCHS if quick else CNN_EPOCHS if epochs is None else epochs
    _positive(str(epochs), "--epochs")
    for what, found, choices in (("source", source, SOURCES), ("kind of features", features, FEATURES)):
        if found not in choices:
            raise unknown(what, found, choices)

    from layerwise.hardware import pick_device
    from layerwise.units import parse_size

    settings = Settings(
        pools=sides, features=features, max_memory=parse_size(max_memory), widths=probe_widths, seeds=seeds,
        epochs=epochs, source=source, pixels=pixels, device=pick_device(device),
    )  # fmt: skip
    if evaluate:
        from probes.shown.evaluate import require_plain

        require_plain(names, control, target)
    asked = Asked(names, settings, depths, target, control, data_dir, force, evaluate=tuple(evaluate or ()))
    if not dry_run:
        from layerwise import ranks

        with ranks.joined(settings.device):
            _answer(files, baseline, asked, network=network, dry_run=False)
    elif launch.number() == 0:
        _answer(files, baseline, asked, network=network, dry_run=True)


@dataclass(frozen=True)
class Asked:
    """What is asked of each run: probes by name, at depths such as "0-3", for the labels of a target and a control.

    evaluate: folders of other images, on which the probes are scored too.
    data_dir: the folder of the images of runs that hold none; None for where they were.
    """

    names: Sequence[str]
    settings: Settings
    depths: str | None
    target: Path | None
    control: str
    data_dir: Path | None
    force: bool
    evaluate: tuple[Path, ...] = ()


def _answer(files: Sequence[Path], baseline: Path | None, asked: Asked, *, network: str | None, dry_run: bool) -> None:
    """Fit what is asked of each run, and of the baseline beside it; or, for a dry run, say what that would be.

    What stops one of several runs stops no other; but where ranks work together, a rank may be alone in what stops it.
    """
    from layerwise.model.custom import register

    if network is not None:
        register(network)
    files, of_baseline = list(dict.fromkeys(files)), replace(asked, evaluate=())
    failed: dict[Path, Exception] = {}
    for file in files:
        try:
            _answer_one(file, baseline, asked, of_baseline, dry_run=dry_run)
            of_baseline = replace(of_baseline, force=False)  # all runs share it: it is fitted again once
        except (UserError, OSError) as error:
            if len(files) == 1 or launch.several():
                raise
            failed[file] = error
            log.error("%s failed: %s", file, one_line(error))
    if dry_run:
        print("nothing was done: the same command without --dry-run does it")
    if failed:
        raise _failure(failed, len(files))


def _failure(failed: Mapping[Path, Exception], count: int) -> UserError:
    """Return the error that names the runs which failed; what stopped each was said when it did."""
    kind = UsageError if all(isinstance(error, UsageError) for error in failed.values()) else UserError
    return kind(
        f"{len(failed)} of {count} runs failed: {', '.join(map(str, failed))}. What was fitted is kept; the same "
        "command goes on."
    )


def _answer_one(file: Path, baseline: Path | None, asked: Asked, of_baseline: Asked, *, dry_run: bool) -> None:
    from layerwise.runfile import RunFile
    from probes.results.baseline import require_same_images
    from probes.results.table import table_path
    from probes.shown.run import ShownRun
    from probes.tasks.controls import asked_task

    work: Callable[[RunFile, Task, Asked], None] = _forecast if dry_run else _probe
    with ExitStack() as opened:
        run = opened.enter_context(
            ShownRun(file, asked.settings.device, asked.data_dir) if asked.evaluate else RunFile(file, asked.data_dir)
        )
        other = None if baseline is None else opened.enter_context(RunFile(baseline, asked.data_dir))
        if other is not None:
            require_same_images(run, other)
        task = asked_task(run, asked.target, asked.control)
        work(run, task, asked)
        if other is not None:
            work(other, asked_task(other, asked.target, asked.control), of_baseline)
            if not dry_run and launch.number() == 0:
                _print_beside(run, other, task, asked)
    if not dry_run and launch.number() == 0:
        print(f"rows in {table_path(file)}")


def _probe(run: RunFile, task: Task, asked: Asked) -> None:
    from probes.results.report import codelength_lines, lines
    from probes.sweep import rows_at, sweep

    sets = _sets(run, asked)
    found = [
        (family, _chosen(family, run, asked.depths)) for family in families(run, task, asked.names, asked.settings)
    ]
    for family, chosen in found:
        if sets:
            family.fitted = {}
        sweep(run, task, family, chosen, force=asked.force)
        if launch.number():  # of several ranks the first speaks for all
            continue
        shown = codelength_lines if family.title.startswith(CODELENGTH) else lines
        for line in shown(rows_at(run, family, chosen), f"{run.path}: {family.title}{_labels(task)}"):
            print(line)
    if sets:
        _evaluate(run, task, found, sets, force=asked.force)


def _sets(run: RunFile, asked: Asked) -> list[ShownFolder]:
    """Return the sets of other images that are asked for: what is wrong with them is said before a probe is fitted."""
    from probes.shown.evaluate import sets_of
    from probes.shown.run import ShownRun

    return sets_of(run, asked.evaluate) if isinstance(run, ShownRun) else []


def _evaluate(
    run: RunFile, task: Task, found: Sequence[tuple[Family, list[int]]], sets: Sequence[ShownFolder], *, force: bool
) -> None:
    from probes.shown.evaluate import evaluate
    from probes.shown.report import lines
    from probes.shown.run import ShownRun
    from probes.sweep import rows_at

    assert isinstance(run, ShownRun)
    evaluate(run, task, found, sets, force=force)
    for family, chosen in found if launch.number() == 0 else ():
        for line in lines(rows_at(run, family, chosen), [one.name for one in sets], str(run.path)):
            print(line)


def _forecast(run: RunFile, task: Task, asked: Asked) -> None:
    from probes.cnn import forecast as cnn
    from probes.cnn.probe import CnnFamily
    from probes.linear import forecast as linear
    from probes.linear.probe import LinearFamily
    from probes.sweep import missing

    for family in families(run, task, asked.names, asked.settings):
        left = missing(run, family, _chosen(family, run, asked.depths), force=asked.force)
        count = sum(map(len, left.values()))
        print(f"{run.path}: {family.title}{_labels(task)}: {count} to fit")
        shown: Iterable[str] = ()
        if count and isinstance(family, CnnFamily):
            shown = cnn.lines(cnn.forecast_sweep(family, left), family)
        elif count and isinstance(family, LinearFamily):
            shown = linear.lines(linear.forecast_sweep(family, left), family)
        for line in shown:
            print(line)
    for one in _sets(run, asked):
        print(f"{run.path}: to evaluate on {one.name}: {len(one):,} images of {len(one.files)} classes")


def _print_beside(run: RunFile, other: RunFile, task: Task, asked: Asked) -> None:
    from probes.results.baseline import beside
    from probes.results.report import beside_lines

    for family in families(run, task, asked.names, asked.settings):
        wanted = [name for depth in _chosen(family, run, asked.depths) for name in family.names(depth)]
        for line in beside_lines(beside(run, other, wanted), str(other.path)):
            print(line)


def _chosen(family: Family, run: RunFile, depths: str | None) -> list[int]:
    """Return the depths to probe: those asked for, which the family must be able to probe, or all that it can."""
    if depths is not None:
        family.check(parse_depths(depths, run.depths))
    return parse_depths(depths, family.depths())


def _labels(task: Task) -> str:
    words = [] if task.target == "class" else [f"target {task.target}"]
    words += [] if task.control == "none" else [f"control {task.control}"]
    return "".join(f", {word}" for word in words)


def _sides(text: str) -> list[int]:
    sides = [_positive(word, "--pool") for word in text.split(",")]
    wrong = [side for side in sides if side not in POOLS]
    if wrong:
        raise unknown("--pool", wrong[0], POOLS)
    return sides


def _positive(text: str, flag: str) -> int:
    if not re.fullmatch(r"\s*[1-9][0-9]*\s*", text):
        raise UsageError(f"{flag} has {text!r}, but takes positive integers.")
    return int(text)


def parse_depths(text: str | None, available: Sequence[int]) -> list[int]:
    """Return the depths that a text such as "0-3,5" names, ascending; None names all of them.

    Raises UsageError for a text that is no list of depths, or a depth that the run lacks, listing those it has.
    """
    if text is None:
        return list(available)
    chosen: set[int] = set()
    for word in text.split(","):
        match = re.fullmatch(r"\s*([0-9]+)(?:\s*-\s*([0-9]+))?\s*", word)
        if match is None:
            raise UsageError(f"--depths has {word!r}, but takes depths and ranges such as 0-3 or 1,4.")
        first, last = int(match[1]), int(match[2] or match[1])
        for depth in (first, last):
            if depth not in available:
                raise unknown("depth", depth, available)
        if first > last:
            raise UsageError(f"--depths has {word!r}, a range that ends before it begins; write {last}-{first}.")
        chosen |= {depth for depth in available if first <= depth <= last}
    return sorted(chosen)


def probe_command() -> NoReturn:
    """Run probe-depth."""
    commandline.run(probe, "probe-depth")
