"""The files of a figure: PDF, SVG, PNG, its points as CSV and its caption as text; all of them appear, or none."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from figures.file_set import remove_unfinished, write
from layerwise.errors import UsageError, UserError, unknown
from layerwise.publication import refuse_existing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    # A figure, the points drawn in it, and its caption, one paragraph.
    Made = tuple[Figure, pd.DataFrame, str]

SUFFIXES = (".pdf", ".svg", ".png", ".csv", ".txt")
SIZES = ("single", "double")
# What probe-depth keeps beside x.h5, of the suffixes above.
_RESULTS = (".probes.csv", ".candidates.csv")


def write_figure(make: Callable[[], Made], output: Path, runs: Sequence[Path], size: str, force: bool) -> None:
    """Make a figure of `runs` and write it, its points and its caption; print the paths and the caption.

    What cannot be written is refused before anything is read (see `outputs`), and so is a size that there is not.
    """
    if size not in SIZES:
        raise unknown("size", size, SIZES)
    paths = outputs(output, runs, force)
    figure, points, caption = make()
    publish(figure, points, caption, paths, force)
    for path in paths.values():
        print(path)
    print(caption)


def outputs(
    path: Path, inputs: Sequence[Path], force: bool, suffixes: Sequence[str] = SUFFIXES, what: str = "figure"
) -> dict[str, Path]:
    """Return where each output goes, by suffix; refuse, before anything is read, those that cannot be written.

    Args:
        path: as the user gave it, with one of the suffixes or none.
        inputs: run files; the results beside them are never written over, not with `force` either.
        force: whether existing outputs are replaced.
        suffixes, what: of outputs that are no figure.

    Raises:
        UsageError: another suffix, or a name that would write over results. UserError: outputs that exist, a folder
            that is missing or closed.
    """
    if not path.name or path.name == ".." or path.is_dir():
        raise UsageError(f"-o {path} is a folder, but the name of a {what} is needed: -o {path / what}, say.")
    if path.suffix not in ("", *suffixes):
        raise UsageError(
            f"-o {path} ends in {path.suffix}, but a {what} is written as {', '.join(suffixes)}. "
            f"Give -o {path.with_suffix(suffixes[0])}."
        )
    if nameless := [run for run in inputs if not run.name]:
        raise UsageError(f"{nameless[0]} is a folder, but a run file (.h5) is needed.")
    found = {suffix: path.with_suffix(suffix) for suffix in suffixes}
    # Not Path.resolve, which raises where links stand in a circle.
    results = {os.path.realpath(run.with_name(f"{run.stem}{ending}")) for run in inputs for ending in _RESULTS}
    for one in found.values():
        if os.path.realpath(one) in results:
            raise UsageError(f"-o {path} would write over the probe results {one}. Give another name.")
    remove_unfinished(list(found.values()))
    existing = [str(one) for one in found.values() if one.exists()]
    if existing and not force:
        exist, them = ("exists", "it") if len(existing) == 1 else ("exist", "them")
        raise UserError(f"{', '.join(existing)} {exist} already. Give another name, or --force to replace {them}.")
    for one in found.values():
        refuse_existing(one, force)
    return found


def publish(figure: Figure, points: pd.DataFrame, caption: str, paths: Mapping[str, Path], force: bool) -> None:
    """Write a figure as PDF, SVG and PNG, its points as CSV and its caption as text; all, or none.

    Args:
        figure: as a `draw` of this package returns it.
        points: the table that was drawn.
        caption: one paragraph.
        paths: as `outputs` returns them.
        force: whether existing files are replaced.

    Drawn twice, the files have the same bytes.
    """
    from figures.kit.style import rendered
    from probes.csvfile import write_csv

    contents = rendered(figure) | {
        ".csv": str(write_csv(points)).encode(),
        ".txt": f"{caption}\n".encode(),
    }
    write({path: contents[suffix] for suffix, path in paths.items()}, force)
