"""The command `separability-figure`: run files in; a figure, its points and its caption out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from figures.commands.options import KeepFailed, Output, Runs, Size
from figures.output import write_figure
from layerwise.commandline import SHOWN, run, set_verbosity
from layerwise.commands.options import Force, Quiet, Verbose

if TYPE_CHECKING:
    from figures.output import Made


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
            rich_help_panel=SHOWN,
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            help="train, validation or test, or a set that probe-depth --evaluate named; several with commas, for "
            "--by split.",
            rich_help_panel=SHOWN,
        ),
    ] = "test",
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit",
            help="Probes refitted on train + validation, or fitted on the train fold only.",
            show_default="refit, but for the validation split",
            rich_help_panel=SHOWN,
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="What the lines of a panel stand for: k, mode, width (M), seed, pool (of linear probes), or split "
            "(test and other images); probe-width: accuracy and teacher gap of CNN probes against their width.",
            rich_help_panel=SHOWN,
        ),
    ] = "k",
    relative: Annotated[
        bool, typer.Option("--relative", help="Depth as j/J, for networks of different depth.", rich_help_panel=SHOWN)
    ] = False,
    xlabels: Annotated[
        str, typer.Option(help="What stands on the axis: depth, or module (the layers' names).", rich_help_panel=SHOWN)
    ] = "depth",
    labels: Annotated[
        str | None,
        typer.Option(
            help="Words for the lines, in the legend's order, with commas between.",
            show_default="their own",
            rich_help_panel=SHOWN,
        ),
    ] = None,
    palette: Annotated[
        str | None,
        typer.Option(
            help="Colours of the lines, likewise, or a palette of seaborn, e.g. deep.",
            show_default="its own",
            rich_help_panel=SHOWN,
        ),
    ] = None,
    keep_failed: KeepFailed = False,
    size: Size = "single",
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw accuracy against depth: a panel for each probe, a line for each k and mode.

    Reads the results that probe-depth wrote beside each run file (x.probes.csv).
    Writes figure.pdf, .svg, .png (300 dpi), .csv (the points drawn) and .txt (the
    caption), and prints their paths and the caption.

    A line of one network has the interval over the images of the split. A line of
    several is the mean, over the widths M (and over k, where lines stand for
    another factor), of the means over seeds, and has a t interval over seeds.
    Untrained networks of several seeds, beside others, are bands.

    Other images, by probe-depth --evaluate, beside the test images:

        separability-figure run.h5 --by split --split test,noise/3 -o shift.pdf

    Example: separability-figure k1.h5 k2.h5 --probe linear,cnn-1 -o figure.pdf
    """
    set_verbosity(quiet, verbose)
    probes = None if probe is None else [name.strip() for name in probe.split(",")]
    refitted = split != "validation" if refit is None else refit

    def make() -> Made:
        from figures.api import drawn

        words = None if labels is None else [word.strip() for word in labels.split(",")]
        colours = palette.split(",") if palette and ("," in palette or palette.startswith("#")) else palette
        own: dict[str, Any] = {"xlabels": xlabels, "labels": words, "palette": colours, "keep_failed": keep_failed}
        splits = [word.strip() for word in split.split(",")]
        return drawn(runs, probes, splits if len(splits) > 1 else split, refitted, by, relative, size, **own)

    write_figure(make, output, runs, size, force)
