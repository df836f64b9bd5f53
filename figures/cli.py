"""Owns the command `separability-figure`: run files in; a figure, as PDF and PNG, and its points out."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from layerwise.commandline import run, set_verbosity
from layerwise.errors import UsageError, UserError, unknown
from layerwise.publication import published, refuse_existing

if TYPE_CHECKING:
    import pandas as pd

_SUFFIXES = (".pdf", ".png", ".csv")
_SIZES = ("single", "double")
_BY = ("depth", "probe-width")


def figure_command() -> NoReturn:
    """Run the command line of this process."""
    run(separability_figure, "separability-figure")


def separability_figure(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN.H5...", help="Run files, probed by probe-depth.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The figure, e.g. figure.pdf.")],
    probe: Annotated[
        str | None,
        typer.Option(
            help="Probes to draw, e.g. linear,cnn-1 or auxiliary,ensemble.",
            show_default="those fitted to every run",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit",
            help="Probes refitted on train + validation, or fitted on the train fold only.",
            show_default="refit, but for the validation split",
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(help="depth; or probe-width: accuracy and selectivity of CNN probes against their width."),
    ] = "depth",
    size: Annotated[str, typer.Option(help="single (85 mm wide) or double (170 mm).")] = "single",
    force: Annotated[bool, typer.Option("--force", help="Replace existing outputs.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say only warnings.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say details.")] = False,
) -> None:
    """Draw accuracy against depth: a panel for each probe, a line for each k, with intervals and chance.

    Reads the results that probe-depth wrote beside each run file (x.probes.csv), writes figure.pdf,
    figure.png (300 dpi) and figure.csv (the points drawn), and prints their paths and a caption.

    A line of one network has the interval over the images of the split. A line of several is the mean,
    over the widths M, of the means over seeds, and has a t interval over seeds.

    Example: separability-figure k1.h5 k2.h5 k3.h5 --probe linear,cnn-1 --size double -o figure.pdf
    """
    set_verbosity(quiet, verbose)
    for what, found, choices in (("size", size, _SIZES), ("x axis", by, _BY)):
        if found not in choices:
            raise unknown(what, found, choices)
    outputs = _outputs(output, runs, force)
    probes = None if probe is None else [name.strip() for name in probe.split(",")]
    refitted = split != "validation" if refit is None else refit
    make = _by_depth if by == "depth" else _by_probe_width
    contents, words = make(runs, probes, split, refitted, size)
    _publish({outputs[suffix]: content for suffix, content in contents.items()}, force)
    for path in outputs.values():
        print(path)
    print(words)


def _by_depth(
    runs: list[Path], probes: list[str] | None, split: str, refit: bool, size: str
) -> tuple[dict[str, bytes], str]:
    """Return the figure's files by suffix, and its caption."""
    from analysis.separability import curves
    from analysis.tables import read

    points = curves(read(runs), probes, split, refit)
    from figures.caption import caption
    from figures.separability import draw
    from figures.style import rendered

    return rendered(draw(points, size)) | {".csv": _csv(points)}, caption(points)


def _by_probe_width(
    runs: list[Path], probes: list[str] | None, split: str, refit: bool, size: str
) -> tuple[dict[str, bytes], str]:
    from analysis.tables import read
    from analysis.widths import against_width

    points = against_width(read(runs), probes, split, refit)
    from figures.style import rendered
    from figures.widths import caption, draw

    return rendered(draw(points, size)) | {".csv": _csv(points)}, caption(points)


def _csv(points: pd.DataFrame) -> bytes:
    return points.to_csv(index=False, lineterminator="\n").encode()


def _outputs(output: Path, runs: list[Path], force: bool) -> dict[str, Path]:
    """Return the three paths by suffix; refuse, before anything is read, those that cannot be written."""
    from probes.results import table_path

    if output.suffix not in ("", *_SUFFIXES):
        raise UsageError(
            f"-o {output} ends in {output.suffix}, but a figure is written as {', '.join(_SUFFIXES)}. "
            f"Give -o {output.with_suffix('.pdf')}."
        )
    outputs = {suffix: output.with_suffix(suffix) for suffix in _SUFFIXES}
    results = {table_path(run).resolve() for run in runs}
    for path in outputs.values():
        if path.resolve() in results:
            raise UsageError(f"-o {output} would write over the probe results {path}. Give another name.")
    existing = [str(path) for path in outputs.values() if path.exists()]
    if existing and not force:
        exist, them = ("exists", "it") if len(existing) == 1 else ("exist", "them")
        raise UserError(f"{', '.join(existing)} {exist} already. Give another name, or --force to replace {them}.")
    for path in outputs.values():
        refuse_existing(path, force)
    return outputs


def _publish(contents: dict[Path, bytes], force: bool) -> None:
    """Write all files under temporary names first, then give each its own."""
    with ExitStack() as stack:
        for path, content in contents.items():
            temporary = stack.enter_context(published(path, force=force))
            try:
                temporary.write_bytes(content)
            except OSError as error:
                raise UserError(f"{path} cannot be written: {error.strerror}. No file was made.") from None
