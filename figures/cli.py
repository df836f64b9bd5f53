"""Owns the command `separability-figure`: run files in; a figure, its points and its caption out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from figures.options import Force, Output, Quiet, Runs, Size, Verbose
from figures.output import check_size, outputs, publish, say
from layerwise.commandline import run, set_verbosity
from layerwise.errors import unknown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_BY = ("depth", "probe-width")


def figure_command() -> NoReturn:
    """Run the command line of this process."""
    run(separability_figure, "separability-figure")


def separability_figure(
    runs: Runs,
    output: Output,
    probe: Annotated[
        str | None,
        typer.Option(
            help="Probes to draw, e.g. linear,cnn-1 or auxiliary,ensemble.",
            show_default="those fitted to every run",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit",
            help="Probes refitted on train + validation, or fitted on the train fold only.",
            show_default="refit, but for the validation split",
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(help="depth; or probe-width: accuracy and selectivity of CNN probes against their width."),
    ] = "depth",
    size: Size = "single",
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw accuracy against depth: a panel for each probe, a line for each k, with intervals and chance.

    Reads the results that probe-depth wrote beside each run file (x.probes.csv), writes figure.pdf,
    figure.svg, figure.png (300 dpi), figure.csv (the points drawn) and figure.txt (the caption), and
    prints their paths and the caption.

    A line of one network has the interval over the images of the split. A line of several is the mean,
    over the widths M, of the means over seeds, and has a t interval over seeds.

    Example: separability-figure k1.h5 k2.h5 k3.h5 --probe linear,cnn-1 --size double -o figure.pdf
    """
    set_verbosity(quiet, verbose)
    check_size(size)
    if by not in _BY:
        raise unknown("x axis", by, _BY)
    paths = outputs(output, runs, force)
    probes = None if probe is None else [name.strip() for name in probe.split(",")]
    refitted = split != "validation" if refit is None else refit
    make = _by_depth if by == "depth" else _by_probe_width
    figure, points, words = make(runs, probes, split, refitted, size)
    publish(figure, points, words, paths, force)
    say(paths, words)


def _by_depth(
    runs: list[Path], probes: list[str] | None, split: str, refit: bool, size: str
) -> tuple[Figure, pd.DataFrame, str]:
    """Return the figure, its points and its caption."""
    from analysis.separability import curves
    from analysis.tables import read

    points = curves(read(runs), probes, split, refit)
    from figures.caption import caption
    from figures.separability import draw

    return draw(points, size), points, caption(points)


def _by_probe_width(
    runs: list[Path], probes: list[str] | None, split: str, refit: bool, size: str
) -> tuple[Figure, pd.DataFrame, str]:
    from analysis.tables import read
    from analysis.widths import against_width

    points = against_width(read(runs), probes, split, refit)
    from figures.widths import caption, draw

    return draw(points, size), points, caption(points)
