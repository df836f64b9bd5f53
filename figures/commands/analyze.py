"""The command `analyze-depth`: run files in; what each depth is like, and how alike depths are, out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from figures.commands.options import Size
from figures.file_set import write
from figures.output import SIZES, SUFFIXES, outputs
from layerwise.commandline import INPUT, MACHINE, OUTPUT, run, set_verbosity
from layerwise.commands.options import Device, Force, Quiet, RunNetwork, Verbose
from layerwise.errors import UsageError, unknown


def analyze_command() -> NoReturn:
    """Run the command line of this process."""
    run(analyze_depth, "analyze-depth")


Name = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="Name of what is written: NAME.geometry.csv, NAME.similarity.csv, and the figures of both.",
        show_default="that of the run, beside it; of several runs it must be given",
        rich_help_panel=OUTPUT,
    ),
]


def analyze_depth(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN.H5...", help="Run files on the same images, not probed.")],
    output: Name = None,
    split: Annotated[
        str, typer.Option(help="Whose images are measured: train, validation or test.", rich_help_panel=INPUT)
    ] = "test",
    depths: Annotated[
        str | None,
        typer.Option(
            help="Depths, such as 0-3 or 1,4; those that a run has.", show_default="all", rich_help_panel=INPUT
        ),
    ] = None,
    pool: Annotated[
        int,
        typer.Option(
            help="Each map averaged over SIDE x SIDE regions, as probe-depth's --pool.", rich_help_panel=INPUT
        ),
    ] = 2,
    subsample: Annotated[
        int, typer.Option(help="Images that intrinsic dimensions are estimated from.", rich_help_panel=INPUT)
    ] = 5000,
    max_memory: Annotated[
        str,
        typer.Option(
            help="Features that a file does not hold take so much memory, and a file beside the run beyond that.",
            rich_help_panel=MACHINE,
        ),
    ] = "8GB",
    network: RunNetwork = None,
    device: Device = "auto",
    size: Size = "double",
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure what each depth is like, and how alike each two depths are.

    Effective rank, participation ratio, intrinsic dimension, sparsity, dead units,
    neural collapse NC1 to NC4, class variance and margins of each depth; debiased
    and biased linear CKA and the shape distance of each two depths, of one run and
    of different ones. Each has a 95% interval over images; means over runs that
    differ in their seed have one over seeds. docs/analysis.md says what each
    answers, and what it does not.

    Writes NAME.geometry and NAME.similarity as .csv, .pdf, .svg, .png and .txt (the
    caption), and prints their paths and the captions.

    Examples: analyze-depth run.h5

    analyze-depth greedy.h5 end-to-end.h5 -o both
    """
    set_verbosity(quiet, verbose)
    if size not in SIZES:
        raise unknown("size", size, SIZES)
    if output is None and len(runs) > 1:
        raise UsageError("several runs were given, so what is written needs a name: -o NAME.")
    paths = _paths(runs[0] if output is None else output, runs, force)

    from analysis.geometry.table import Asked
    from figures.depths import analysed, contents
    from layerwise.model.custom import register
    from layerwise.units import parse_size

    if network is not None:
        register(network)
    made = analysed(runs, Asked(split, depths, pool, subsample, device, parse_size(max_memory)), size)
    write(contents(made, paths), force)
    for one, (_, _, caption) in made.items():
        for path in paths[one].values():
            print(path)
        print(caption)


def _paths(name: Path, runs: list[Path], force: bool) -> dict[str, dict[str, Path]]:
    """Return the files of both figures, by name and suffix; refuse those that cannot be written."""
    if not name.name or name.is_dir():
        raise UsageError(f"{name} is a folder, but a name is needed: -o {name / 'analysis'}, say.")
    stem = name.stem if name.suffix in (*SUFFIXES, ".h5") else name.name
    # The last suffix is a stand-in: `outputs` puts those of the files in its place.
    return {one: outputs(name.with_name(f"{stem}.{one}.pdf"), runs, force) for one in ("geometry", "similarity")}
