"""Owns the words that several commands take alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Quiet = Annotated[
    bool, typer.Option("--quiet", help="Leave out progress and notes on stderr; warnings and errors stay.")
]


Verbose = Annotated[bool, typer.Option("--verbose", help="Say more of what is done.")]


DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", envvar="LAYERWISE_DATA", help="Folder that holds the data set, where it is not bundled."
    ),
]


Device = Annotated[str, typer.Option("--device", help="auto (a GPU where there is one), cpu or cuda.")]
