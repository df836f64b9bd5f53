"""The command `depth-figure`: probed run files in; accuracy against depth, and measures below it, out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from figures.commands.options import Output, Runs, Size
from figures.output import write_figure
from layerwise.commandline import SHOWN, run, set_verbosity
from layerwise.commands.options import Force, Quiet, Verbose

if TYPE_CHECKING:
    from figures.output import Made


def depth_command() -> NoReturn:
    """Run the command line of this process."""
    run(depth_figure, "depth-figure")


def depth_figure(
    runs: Runs,
    output: Output,
    measures: Annotated[
        str,
        typer.Option(
            help="What is drawn below accuracy, as analyze-depth names it; also codelength, of probe-depth.",
            rich_help_panel=SHOWN,
        ),
    ] = "effective_rank,twonn,cdnv,margin",
    probe: Annotated[
        str, typer.Option(help="A probe with one number at a depth: linear, ncm, ...", rich_help_panel=SHOWN)
    ] = "linear",
    split: Annotated[str, typer.Option(help="train, validation or test.", rich_help_panel=SHOWN)] = "test",
    pool: Annotated[
        int, typer.Option(help="The grid that the probe reads, as probe-depth's --pool.", rich_help_panel=SHOWN)
    ] = 2,
    size: Size = "single",
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw accuracy against depth, and measures of the same features below it.

    Reads the results that probe-depth wrote beside each run file, and measures each
    depth as analyze-depth does, on the images of the split. Runs that differ in
    their seed alone are averaged.

    Writes depth.pdf, .svg, .png, .csv (the points drawn) and .txt (the caption), and
    prints their paths and the caption.

    Example: depth-figure run.h5 --measures twonn,nc1 -o depth.pdf
    """
    set_verbosity(quiet, verbose)

    def make() -> Made:
        from analysis.geometry.table import Asked
        from figures.depths import depths_made

        names = [name.strip() for name in measures.split(",")]
        return depths_made(runs, names, probe, Asked(split, pool=pool), size)

    write_figure(make, output, runs, size, force)
