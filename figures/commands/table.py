"""The command `separability-table`: run files in; a table as Markdown, LaTeX and CSV out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from figures.commands.options import KeepFailed
from figures.file_set import write
from figures.output import outputs
from layerwise.commandline import OUTPUT, SHOWN, run, set_verbosity
from layerwise.commands.options import Force, Quiet, Verbose


def table_command() -> NoReturn:
    """Run the command line of this process."""
    run(separability_table, "separability-table")


def separability_table(
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="The table, e.g. table.md; .tex and .csv come with it.", rich_help_panel=OUTPUT
        ),
    ],
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN.H5...", help="Run files, probed by probe-depth.")
    ] = None,
    what: Annotated[
        str,
        typer.Option(
            help="accuracy (of each depth, beside published numbers), top5 (the same of the five likeliest classes), "
            "trends (Page's test), contrasts (of early gain, slope and final level, between k and between modes), "
            "differences (two runs at each depth), shifts (on test images that layerwise-corrupt changed), "
            "codelength (and how many images a loss takes), or published (all published numbers; takes no runs).",
            rich_help_panel=SHOWN,
        ),
    ] = "accuracy",
    probe: Annotated[
        str | None,
        typer.Option(
            help="Probes to show, e.g. linear,cnn-1 or auxiliary,ensemble.",
            show_default="those that the runs have",
            rich_help_panel=SHOWN,
        ),
    ] = None,
    columns: Annotated[
        str,
        typer.Option(
            help="Accuracy: a column for each probe (a row for each depth), or for each depth.", rich_help_panel=SHOWN
        ),
    ] = "probe",
    split: Annotated[
        str,
        typer.Option(
            help="train, validation or test, or a set that probe-depth --evaluate named.", rich_help_panel=SHOWN
        ),
    ] = "test",
    bound: Annotated[
        float | None,
        typer.Option(
            help="Contrasts: the largest difference, in percentage points, that counts as none (default 1).",
            rich_help_panel=SHOWN,
        ),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(
            help="Codelength: the loss on the test split, in bits a label, that images are counted for (default 0.5).",
            rich_help_panel=SHOWN,
        ),
    ] = None,
    keep_failed: KeepFailed = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make a table of probe results: Markdown, LaTeX (booktabs, siunitx) and CSV.

    Reads the results that probe-depth wrote beside each run file (x.probes.csv).
    Writes table.md, .tex and .csv (all digits), and prints their paths and the table.

    Example: separability-table k1.h5 k2.h5 k3.h5 -o accuracy.md
    """
    from analysis.geometry.decoding import EPSILON
    from figures.kit.terminal import on_terminal
    from figures.parts import TABLE_FILES, check_table, share_of  # pandas, which --help does without
    from figures.tables import made, rendered

    set_verbosity(quiet, verbose)
    given = runs or []
    probes = None if probe is None else [name.strip() for name in probe.split(",")]
    check_table(what, len(given), bound, probes, epsilon)
    paths = outputs(output, given, force, TABLE_FILES, "table")
    data, table = made(
        given, what, split, share_of(bound), columns, probes=probes, keep_failed=keep_failed,
        epsilon=EPSILON if epsilon is None else epsilon,
    )  # fmt: skip
    contents = rendered(data, table)
    write({paths[suffix]: content for suffix, content in contents.items()}, force)
    for path in paths.values():
        print(path)
    print(on_terminal(table, shutil.get_terminal_size().columns))
