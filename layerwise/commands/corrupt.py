"""The command layerwise-corrupt: its options and its output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from layerwise import commandline
from layerwise.commandline import EXPORTED, OUTPUT
from layerwise.commands.options import Force, Quiet, RunDataDir, Verbose
from layerwise.errors import UsageError


def corrupt(
    file: Annotated[Path, typer.Argument(metavar="RUN.H5", help="Run file whose test images are corrupted.")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder to write: CORRUPTION/SEVERITY/CLASS/*.png.", rich_help_panel=OUTPUT),
    ],
    corruptions: Annotated[
        str | None,
        typer.Option(
            "--corruptions",
            help="Which, with commas: gaussian_noise, shot_noise, impulse_noise, speckle_noise, defocus_blur, "
            "gaussian_blur, brightness, contrast, jpeg_compression, pixelate.",
            show_default="all",
            rich_help_panel=EXPORTED,
        ),
    ] = None,
    severities: Annotated[
        str, typer.Option("--severities", help="Which of 1 to 5, with commas.", rich_help_panel=EXPORTED)
    ] = "1,2,3,4,5",
    seed: Annotated[int, typer.Option("--seed", help="Of the noise.", rich_help_panel=EXPORTED)] = 0,
    data_dir: RunDataDir = None,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the test images of a run as image files, corrupted, for probe-depth --evaluate.

    Ten of the corruptions of CIFAR-10-C (Hendrycks and Dietterich 2019) with their
    constants, which are meant for 32 x 32 pixels; the noise is drawn from the seed.
    What is there already is left as it is; --force makes anew what is asked for.
    recipe.json says of each set from which images and seed it was made.

        layerwise-corrupt run.h5 -o images-c --corruptions gaussian_noise,contrast

        probe-depth run.h5 --probe linear --evaluate images-c
    """
    commandline.set_verbosity(quiet, verbose)
    wanted = [word.strip() for word in severities.split(",")]
    if not all(word.isdigit() for word in wanted):
        raise UsageError(f"--severities has {severities!r}, but takes numbers from 1 to 5, with commas.")

    from layerwise.export import corrupt_run
    from layerwise.runfile import RunFile

    names = None if corruptions is None else [word.strip() for word in corruptions.split(",")]
    with RunFile(file, data_dir) as run:
        made = corrupt_run(
            run, out, corruptions=names, severities=[int(word) for word in wanted], seed=seed, force=force
        )
        count = len(run.indices("test"))
    print(f"{len(made)} sets of {count:,} images in {out}")


def corrupt_command() -> NoReturn:
    """Run layerwise-corrupt."""
    commandline.run(corrupt, "layerwise-corrupt")
