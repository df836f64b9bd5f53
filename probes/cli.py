"""Owns the command probe-depth: its words and its table, nothing of the probing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from layerwise import commandline
from layerwise.errors import UsageError, unknown
from probes.catalogue import LINEAR, SOURCES, TRAINED, Settings, depths_of, fit_at, hidden_convolutions

if TYPE_CHECKING:
    from layerwise.runfile import RunFile
    from probes.protocol import Fit
    from probes.results import ProbeName


def probe(
    file: Annotated[Path, typer.Argument(metavar="RUN.H5", help="Run file to probe.")],
    probes: Annotated[
        str,
        typer.Option(
            "--probe", help="linear, linear-ovr, cnn-1, cnn-2, ..., auxiliary, ensemble; several with commas."
        ),
    ] = "linear",
    widths: Annotated[
        str, typer.Option("--probe-width", help="Widths M of the CNN probes, comma-separated.")
    ] = "64,128,256",
    seeds: Annotated[int, typer.Option("--probe-seeds", help="Seeds of each CNN probe: how many, from 0.")] = 1,
    epochs: Annotated[int, typer.Option("--epochs", help="Epochs of each CNN probe.")] = 12,
    depths: Annotated[
        str | None, typer.Option("--depths", help="Depths to probe, such as 0-3 or 1,4. Default: all.")
    ] = None,
    source: Annotated[
        str,
        typer.Option("--source", help="Where maps come from: auto, stored, or recompute (images and blocks)."),
    ] = "auto",
    device: Annotated[str, typer.Option("--device", help="auto (a GPU where there is one), cpu or cuda.")] = "auto",
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Leave out progress and notes on stderr; warnings and errors stay.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more of what is done.")] = False,
) -> None:
    """Fit probes to every depth of a run, and keep each number as a row of RUN.probes.csv.

    Penalties and learning rates are chosen on the validation fold; the chosen probe is refitted on train +
    validation, and only then is the test split read.

        probe-depth run.h5 --probe linear

        probe-depth run.h5 --probe cnn-1,cnn-2 --probe-width 64,128

    Next: separability-figure run.h5 -o figure.pdf
    """
    commandline.set_verbosity(quiet, verbose)
    names = [name.strip() for name in probes.split(",")]
    for name in names:
        hidden_convolutions(name)  # an unknown name is answered before anything is loaded
    probe_widths = [_positive(word, "--probe-width") for word in widths.split(",")]
    _positive(str(seeds), "--probe-seeds")
    _positive(str(epochs), "--epochs")
    if source not in SOURCES:
        raise unknown("source", source, SOURCES)

    from layerwise.hardware import pick_device
    from layerwise.runfile import RunFile
    from probes.results import check_files, save, table_path

    settings = Settings(widths=probe_widths, seeds=seeds, epochs=epochs, source=source, device=pick_device(device))
    with RunFile(file) as run:
        check_files(file)
        for name in names:
            found = []
            for depth in parse_depths(depths, depths_of(run, name)):
                fitted = fit_at(run, depth, name, settings)
                save(run, fitted)
                found += fitted
            _print_table(run, name, found)
        print(f"rows in {table_path(file)}")


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


def _print_table(run: RunFile, name: str, found: Sequence[tuple[ProbeName, Sequence[Fit]]]) -> None:
    reads = {"linear": "A x_j (2x2-pooled)", "linear-ovr": "A x_j (2x2-pooled)"}.get(name, "whole maps x_j")
    what = "as the run trained it" if name in TRAINED else f"probe, {reads}"
    print(f"{run.path}: {name} {what}; accuracy in %")
    knob = "lambda" if name in LINEAR else "rate"
    columns = f"{'train':>6} {'valid':>6} {'test':>6}  refitted: {'test':>6}  95% interval"
    print(f"{'depth':>5} {'M':>4} {knob:>8}  {columns}")
    for probe_name, fits in found:
        first, last = fits[0], fits[-1]
        chosen = first.penalty or first.learning_rate
        value = f"{chosen:.1e}" if chosen else "-"
        cells = " ".join(_percent(first, split) for split in ("train", "validation", "test"))
        refitted = _percent(last, "test") if last.refit else f"{'-':>6}"
        line = f"{probe_name.depth:>5} {probe_name.probe_width or '-':>4} {value:>8}  {cells}"
        print(f"{line}  {'':9} {refitted}  {_interval(last)}{_warning(fits)}")


def _percent(fit: Fit, split: str) -> str:
    return f"{100 * fit.scores[split].accuracy:6.2f}" if split in fit.scores else f"{'-':>6}"


def _interval(fit: Fit) -> str:
    from probes.statistics import wilson_interval

    low, high = wilson_interval(fit.scores["test"].accuracy, len(fit.scores["test"].label))
    return f"[{100 * low:.2f}, {100 * high:.2f}]"


def _warning(fits: Sequence[Fit]) -> str:
    return " NOT CONVERGED" if any(fit.converged is False for fit in fits) else ""


def probe_command() -> NoReturn:
    """Run probe-depth."""
    commandline.run(probe, "probe-depth")
