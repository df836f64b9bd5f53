"""The command `separability-table`: run files in; a table as Markdown, LaTeX and CSV out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from figures.file_set import write
from figures.output import outputs
from layerwise.commandline import OUTPUT, SHOWN, run, set_verbosity
from layerwise.commands.options import Force, Quiet, Verbose
from layerwise.errors import UsageError, unknown

SUFFIXES = (".md", ".tex", ".csv")
_WHAT = ("accuracy", "trends", "contrasts", "differences", "published")


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
            help="accuracy (of each depth, beside published numbers), trends (Page's test), contrasts (of early "
            "gain, slope and final level, between k and between modes), differences (two runs at each depth), or "
            "published (all published numbers; takes no runs).",
            rich_help_panel=SHOWN,
        ),
    ] = "accuracy",
    columns: Annotated[
        str,
        typer.Option(
            help="Accuracy: a column for each probe (a row for each depth), or for each depth.", rich_help_panel=SHOWN
        ),
    ] = "probe",
    split: Annotated[str, typer.Option(help="train, validation or test.", rich_help_panel=SHOWN)] = "test",
    bound: Annotated[
        float | None,
        typer.Option(
            help="Contrasts: the largest difference, in percentage points, that counts as none (default 1).",
            rich_help_panel=SHOWN,
        ),
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make a table of probe results: Markdown, LaTeX (booktabs, siunitx) and CSV.

    Reads the results that probe-depth wrote beside each run file (x.probes.csv).
    Writes table.md, .tex and .csv (all digits), and prints their paths and the table.

    Example: separability-table k1.h5 k2.h5 k3.h5 -o accuracy.md
    """
    from analysis.contrasts import BOUND
    from figures.tables import made, rendered  # pandas, which --help does without

    set_verbosity(quiet, verbose)
    if what not in _WHAT:
        raise unknown("table", what, _WHAT)
    _check_bound(what, bound)
    given = runs or []
    _check_count(what, len(given))
    paths = outputs(output, given, force, SUFFIXES, "table")
    data, table = made(given, what, split, BOUND if bound is None else bound / 100, columns)
    contents = rendered(data, table)
    write({paths[suffix]: content for suffix, content in contents.items()}, force)
    for path in paths.values():
        print(path)
    shown = contents[".md"].decode()
    widest = max(len(line) for line in shown.splitlines() if line.startswith("|"))
    if widest <= shutil.get_terminal_size().columns:
        print(shown, end="")
    else:
        print(f"{len(table.rows)} rows, {widest} columns wide: not shown on this terminal")


def _check_bound(what: str, bound: float | None) -> None:
    if bound is None:
        return
    if what != "contrasts":
        raise UsageError(f"--bound is of contrasts, but --what is {what}. Leave one of them out.")
    if not 0 < bound <= 100:
        raise UsageError(f"--bound is {bound:g}, but takes percentage points above 0, up to 100.")


def _check_count(what: str, count: int) -> None:
    if what == "differences" and count != 2:
        raise UsageError(f"differences are between two runs, but {count} were given. Give two run files.")
    if what == "published" and count:
        raise UsageError("published numbers are of no run. Leave the run files out.")
    if what != "published" and not count:
        raise UsageError(f"no run file was given. separability-table RUN.H5... --what {what} -o table.md")
