"""The command `attribution-figure`: run files in; a figure of what gives the gain of each depth out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from figures.commands.options import KeepFailed, Output, Runs, Size
from figures.output import write_figure
from layerwise.commandline import SHOWN, run, set_verbosity
from layerwise.commands.options import Force, Quiet, Verbose

if TYPE_CHECKING:
    from figures.output import Made


def attribution_command() -> NoReturn:
    """Run the command line of this process."""
    run(attribution_figure, "attribution-figure")


def attribution_figure(
    runs: Runs,
    output: Output,
    probe: Annotated[str, typer.Option(help="linear or linear-ovr.", rich_help_panel=SHOWN)] = "linear",
    split: Annotated[str, typer.Option(help="train, validation or test.", rich_help_panel=SHOWN)] = "test",
    pool: Annotated[
        int, typer.Option(help="The grid that the probe reads, as probe-depth's --pool.", rich_help_panel=SHOWN)
    ] = 2,
    keep_failed: KeepFailed = False,
    size: Size = "single",
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Split the gain of each depth over the input into what architecture and training give.

    Takes greedy and untrained runs of the same widths, seeds and initialisation,
    untrained ones without relu (--set network.activation=none), which are also
    probed by `probe-depth run.h5 --features input`, and those trained end to end
    where there are. The parts add up: pooling and width (of random linear
    features), relu (untrained - linear), training (greedy - untrained), and what
    greedy training leaves (end-to-end - greedy).

    Writes attribution.pdf, .svg, .png, .csv (the points drawn) and .txt (the
    caption), and prints their paths and the caption.

    Example: attribution-figure greedy*.h5 untrained*.h5 end*.h5 -o attribution.pdf
    """
    set_verbosity(quiet, verbose)

    def make() -> Made:
        from figures.parts import attribution_made

        return attribution_made(runs, probe, split, pool, size, keep_failed)

    write_figure(make, output, runs, size, force)
