"""The command `image-depth`: predictions beside runs in; what single images say of depths, and an atlas, out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from figures.commands.options import Runs, Size
from figures.file_set import write
from figures.output import SIZES, SUFFIXES, outputs
from layerwise.commandline import INPUT, OUTPUT, SHOWN, run, set_verbosity
from layerwise.commands.options import Force, Quiet, RunDataDir, Verbose
from layerwise.errors import UsageError, unknown


def images_command() -> NoReturn:
    """Run the command line of this process."""
    run(image_depth, "image-depth")


Name = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="Name of what is written: NAME.images, NAME.atlas, NAME.single, NAME.pairs.",
        show_default="that of the run, beside it; of several runs it must be given",
        rich_help_panel=OUTPUT,
    ),
]


Probe = Annotated[
    str | None,
    typer.Option(
        help="Whose predictions: knn, linear, linear-ovr, ncm; several with commas.",
        show_default="knn and linear, where a run has them",
        rich_help_panel=INPUT,
    ),
]
Pool = Annotated[
    int, typer.Option(help="The grid that the probes read, as probe-depth's --pool.", rich_help_panel=INPUT)
]
VotesFile = Annotated[
    Path | None,
    typer.Option(
        metavar="COUNTS.NPZ",
        help="People's votes: an array counts [n, classes], and index or labels, which say whose they are.",
        rich_help_panel=INPUT,
    ),
]
VotesOrder = Annotated[
    str,
    typer.Option(
        help="Of which image each row of votes is. index: that of this index in the published split, or of the "
        "array index. folder: rows stand in the published order, the run's images in a folder class by class.",
        rich_help_panel=INPUT,
    ),
]
Rows = Annotated[int, typer.Option(help="Rows of images in the atlas; 0: no atlas.", rich_help_panel=SHOWN)]
Seed = Annotated[int, typer.Option(help="Draws the images of the atlas.", rich_help_panel=SHOWN)]


def image_depth(
    runs: Runs,
    output: Name = None,
    probe: Probe = None,
    pool: Pool = 2,
    votes: VotesFile = None,
    votes_order: VotesOrder = "index",
    rows: Rows = 6,
    seed: Seed = 0,
    size: Size = "double",
    data_dir: RunDataDir = None,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Tell from which depth on each test image is settled, and which ones are learnt and lost.

    Prediction depth by the kNN and the linear probe, images learnt and lost between
    depths with McNemar's tests, the disagreement of each two runs beside what their
    accuracies imply, and agreement with people's votes; means over runs that differ
    in their seed. It reads the predictions that probe-depth left beside each run.
    docs/analysis.md defines each number.

    Writes NAME.images and, of the first run, NAME.atlas as .csv, .pdf, .svg, .png and
    .txt (the caption); NAME.single.csv, a row for each image; of several runs
    NAME.pairs.csv. Prints their paths and the captions.

    Examples: image-depth run.h5

    image-depth greedy.h5 end-to-end.h5 -o both --votes votes.npz --votes-order folder
    """
    set_verbosity(quiet, verbose)
    _require_sound(runs, output, rows, size)
    paths = _paths(runs[0] if output is None else output, runs, force, rows > 0)

    from analysis.images.table import Asked, measured
    from analysis.images.votes import read_votes
    from figures.images import contents, made

    probes = None if probe is None else [name.strip() for name in probe.split(",")]
    asked = Asked(probes, pool, None if votes is None else read_votes(votes), votes_order)
    tables = measured(runs, asked)
    figures = made(runs, tables, asked, rows, seed, size, data_dir)
    files = contents(figures, tables, paths)
    write(files, force)
    for name, own in paths.items():
        for path in (path for path in own.values() if path in files):
            print(path)
        if name in figures:
            print(figures[name][2])


def _require_sound(runs: list[Path], output: Path | None, rows: int, size: str) -> None:
    """Raise UsageError for words that the command line alone shows to be wrong."""
    if size not in SIZES:
        raise unknown("size", size, SIZES)
    if rows < 0:
        raise UsageError(f"--rows is {rows}, but takes a number of rows of images, or 0 for no atlas.")
    if output is None and len(runs) > 1:
        raise UsageError("several runs were given, so what is written needs a name: -o NAME.")


def _paths(name: Path, runs: list[Path], force: bool, with_atlas: bool) -> dict[str, dict[str, Path]]:
    """Return the files of each set, by its name and suffix; refuse those that cannot be written."""
    if not name.name or name.is_dir():
        raise UsageError(f"{name} is a folder, but a name is needed: -o {name / 'images'}, say.")
    stem = name.stem if name.suffix in (*SUFFIXES, ".h5") else name.name
    sets: dict[str, tuple[str, ...]] = {"images": SUFFIXES, "single": (".csv",)}
    sets |= {"atlas": SUFFIXES} if with_atlas else {}
    sets |= {"pairs": (".csv",)} if len(runs) > 1 else {}
    return {
        one: outputs(name.with_name(f"{stem}.{one}{suffixes[0]}"), runs, force, suffixes)
        for one, suffixes in sets.items()
    }
