"""The command layerwise-export: its options and its output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from layerwise import commandline
from layerwise.commandline import EXPORTED, OUTPUT
from layerwise.commands.options import Force, Quiet, RunDataDir, RunNetwork, Verbose


def export(
    file: Annotated[Path, typer.Argument(metavar="RUN.H5", help="Run file of layerwise-train.")],
    depth: Annotated[
        int | None,
        typer.Option(
            "--depth",
            help="Depth whose auxiliary classifier predicts. Default: the last one.",
            rich_help_panel=EXPORTED,
        ),
    ] = None,
    ensemble: Annotated[
        str | None,
        typer.Option(
            "--ensemble",
            help="Join all auxiliaries up to that depth: logits (weights 2^j on logits), softmax (2^j on "
            "probabilities) or uniform (equal, on probabilities).",
            rich_help_panel=EXPORTED,
        ),
    ] = None,
    takes: Annotated[
        str,
        typer.Option(
            "--input",
            help="What the network takes: uint8 (pixels from 0 to 255), float (pixels from 0 to 1), both normalised "
            "inside; or normalised (as the first block reads them).",
            rich_help_panel=EXPORTED,
        ),
    ] = "uint8",
    data_dir: RunDataDir = None,
    network: RunNetwork = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="File to write: .pt2 for PyTorch, .onnx for ONNX (needs its packages).",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("model.pt2"),
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Export a trained network, up to a depth, as a file that needs nothing of this package.

    It maps any number of images to class scores. It is written only if its scores are those of the run within rounding.

        layerwise-export run.h5 --depth 4 -o model.pt2

        layerwise-export run.h5 --depth 4 --ensemble logits -o model.onnx
    """
    commandline.set_verbosity(quiet, verbose)
    from layerwise.export import export_run
    from layerwise.export.write import describe_export
    from layerwise.model.custom import register
    from layerwise.runfile import RunFile

    if network is not None:
        register(network)
    with RunFile(file, data_dir) as run:
        done = export_run(run, out, depth=depth, weighting=ensemble, takes=takes, force=force)
    for line in describe_export(done):
        print(line)
    print(f"wrote {out}")


def export_command() -> NoReturn:
    """Run layerwise-export."""
    commandline.run(export, "layerwise-export")
