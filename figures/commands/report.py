"""The command `separability-report`: a study or probed run files in; one page of HTML out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from layerwise.commandline import OUTPUT, run, set_verbosity
from layerwise.commands.options import Force, Quiet, Verbose


def report_command() -> NoReturn:
    """Run the command line of this process."""
    run(separability_report, "separability-report")


def separability_report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="STUDY | RUN.H5...", help="A study's folder, or run files, probed by probe-depth."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page, e.g. report.html.", rich_help_panel=OUTPUT)],
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show a study, or run files, on one page of HTML, which needs no network.

    A summary in sentences; the separability figure, which says its numbers where it
    is pointed at, or by keyboard; tables that can be sorted; the attribution, where
    there are untrained networks; training curves; test images by prediction depth,
    where a run holds them; what was chosen and on what, certificates, digests.

    Writes the page, and prints its path. A study that is not finished is shown as far
    as it goes, and the page says what is missing.

    Examples: separability-report study -o report.html

    separability-report k1.h5 k2.h5 -o report.html
    """
    set_verbosity(quiet, verbose)
    from figures.file_set import write
    from figures.page.api import page_text, target_of

    path = target_of(output, runs, force)
    write({path: page_text(runs).encode()}, force)
    print(path)
