"""The command layerwise-inspect: its options and its output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from layerwise import commandline
from layerwise.commandline import OUTPUT
from layerwise.commands.options import Quiet, Verbose


def inspect(
    file: Annotated[Path, typer.Argument(metavar="RUN.H5", help="Run file to show.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Also read every byte and check it.", rich_help_panel=OUTPUT)
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Show all of it as JSON.", rich_help_panel=OUTPUT)] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show what a run file holds, and check it.

    Opening checks the structure; --verify also checks every block of rows against its SHA-256.
    """
    commandline.set_verbosity(quiet, verbose)
    from layerwise.runfile import RunFile
    from layerwise.runfile.describe import describe_run, run_facts, verify_run

    with RunFile(file) as run:
        if as_json:
            print(json.dumps(run_facts(run) | ({"verified": verify_run(run)} if verify else {}), indent=1))
            return
        for line in describe_run(run):
            print(line)
        if verify:
            print(verify_run(run))


def inspect_command() -> NoReturn:
    """Run layerwise-inspect."""
    commandline.run(inspect, "layerwise-inspect")
