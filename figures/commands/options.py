"""The arguments and options that all commands of figures share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerwise.commandline import OUTPUT, SHOWN

Runs = Annotated[list[Path], typer.Argument(metavar="RUN.H5...", help="Run files, probed by probe-depth.")]
Output = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output",
        help="The figure, e.g. figure.pdf; .svg, .png, .csv, .txt come with it.",
        rich_help_panel=OUTPUT,
    ),
]
Size = Annotated[str, typer.Option("--size", help="single (85 mm wide) or double (170 mm).", rich_help_panel=OUTPUT)]
KeepFailed = Annotated[
    bool,
    typer.Option(
        "--keep-failed",
        help="Average networks that did not train with the others. They are named and left out otherwise.",
        rich_help_panel=SHOWN,
    ),
]
