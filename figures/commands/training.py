"""The command `training-figure`: run files in; the training curves of their auxiliary problems out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from figures.commands.options import KeepFailed, Output, Runs, Size
from figures.output import write_figure
from layerwise.commandline import SHOWN, run, set_verbosity
from layerwise.commands.options import Force, Quiet, Verbose
from layerwise.config import TRAINED_MODES

if TYPE_CHECKING:
    from figures.output import Made


def training_command() -> NoReturn:
    """Run the command line of this process."""
    run(training_figure, "training-figure")


def training_figure(
    runs: Runs,
    output: Output,
    mode: Annotated[
        str, typer.Option(help=f"Draw the runs of one mode: {', '.join(TRAINED_MODES)}.", rich_help_panel=SHOWN)
    ] = "greedy",
    keep_failed: KeepFailed = False,
    size: Size = "single",
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw loss and accuracy of each auxiliary problem against its epochs: a column for each k.

    Reads the history in each run file; the runs need no probes. Runs of one k are
    averaged, over widths and seeds.

    Writes training.pdf, .svg, .png, .csv (the points drawn) and .txt (the caption),
    and prints their paths and the caption.

    Example: training-figure k1.h5 k2.h5 k3.h5 -o training.pdf
    """
    set_verbosity(quiet, verbose)

    def make() -> Made:
        from figures.parts import training_made

        return training_made(runs, mode, size, keep_failed)

    write_figure(make, output, runs, size, force)
