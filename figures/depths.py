"""What analyze-depth draws: what each depth is like, and how alike two are; for the command and for Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis import depth_geometry, depth_similarity
from analysis.geometry.accuracy import with_accuracy
from analysis.geometry.measures import ACCURACY, DECODING, MEASURES, SIMILARITIES
from analysis.geometry.table import Asked, measured
from figures import output
from figures.kit.style import rendered
from figures.plots import geometry, similarity
from layerwise.errors import UsageError, unknown
from layerwise.runfile.given import Runs, paths_of
from layerwise.spoken import python_call
from probes.csvfile import write_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from figures.output import Made

# Of each of the two sets of files that the command writes, what stands before the suffix.
SETS = ("geometry", "similarity")
# Of the depth figure, unless others are named: how many dimensions, and how far classes are apart.
CHOSEN = ("effective_rank", "twonn", "cdnv", "margin")


@python_call("analyze-depth")
def draw_geometry(
    runs: Runs | pd.DataFrame,
    measures: str | Sequence[str] | None = None,
    *,
    size: str = "single",
    ax: Any = None,
    **how: Any,
) -> Figure:
    """Return the figure of what the features of each depth are like: dimension, sparsity, and how classes lie.

    Args:
        runs: run files on the same images, or the rows that `analysis.depth_geometry` returned of them.
        measures: names in docs/analysis.md, a panel each; None draws all, kin measures in one panel.
        size: "single" (85 mm wide) or "double" (170 mm).
        ax: axes of a figure of your own, one for each panel; they keep their size and type.
        how: of `analysis.depth_geometry`, where runs are given.
    """
    _check_size(size)
    table = _table(runs, "measure", depth_geometry, how)
    panels: Sequence[Sequence[str]] = geometry.PANELS
    if measures is not None:
        panels = [(name,) for name in _named(measures, MEASURES)]
    _check_axes(ax, len(panels))
    return geometry.draw(table, size, panels, ax)


@python_call("analyze-depth")
def draw_similarity(
    runs: Runs | pd.DataFrame,
    measures: str | Sequence[str] = similarity.DRAWN,
    *,
    size: str = "single",
    ax: Any = None,
    **how: Any,
) -> Figure:
    """Return the heat map of how alike each two depths are, of one run or of several on the same images.

    Args:
        runs: run files, or the rows that `analysis.depth_similarity` returned of them.
        measures: "cka" (debiased), "cka_biased", "procrustes" (shape distance), a panel each.
        size: "single" (85 mm wide) or "double" (170 mm). ax: axes of a figure of your own, one for each panel.
        how: of `analysis.depth_similarity`, where runs are given.
    """
    _check_size(size)
    table = _table(runs, "depth_b", depth_similarity, how)
    names = _named(measures, SIMILARITIES)
    _check_axes(ax, len(names))
    return similarity.draw(table, size, names, ax)


@python_call("depth-figure")
def draw_depths(
    runs: Runs,
    measures: str | Sequence[str] = CHOSEN,
    probe: str = "linear",
    *,
    split: str = "test",
    pool: int = 2,
    size: str = "single",
    ax: Any = None,
) -> Figure:
    """Return the figure of accuracy against depth, and of measures of the features below it, on one axis.

    Args:
        runs: probed run files on the same images.
        measures: names in docs/analysis.md, or "codelength" of runs that have it, a panel each.
        probe: one that has one number at a depth, as linear.
        split: train, validation or test. pool: side of the averages that are measured, and that the probe reads.
        size: "single" (85 mm wide) or "double" (170 mm).
        ax: axes of a figure of your own, one for each panel: one for accuracy, and one for each measure.

    Raises UserError where a run was not probed, or the runs are of different images.
    """
    _check_size(size)
    panels = panels_of(measures)
    _check_axes(ax, len(panels))
    table = with_accuracy(paths_of(runs), Asked(split, pool=pool), probe, [name for (name,) in panels])
    return geometry.draw(table, size, panels, ax, across=1)


def panels_of(measures: str | Sequence[str]) -> list[tuple[str, ...]]:
    """Return the panels of the depth figure: accuracy, and below it each of the measures."""
    return [(ACCURACY,), *((name,) for name in _named(measures, MEASURES | DECODING))]


def depths_made(runs: Sequence[Path], measures: Sequence[str], probe: str, asked: Asked, size: str) -> Made:
    """Return the figure of `draw_depths`, its points and its caption."""
    panels = panels_of(measures)
    table = with_accuracy(paths_of(runs), asked, probe, [name for (name,) in panels])
    points = table[table["measure"].isin([name for (name,) in panels])]
    return geometry.draw(points, size, panels, across=1), points, geometry.caption(points, panels)


def _table(runs: Any, column: str, make: Any, how: Mapping[str, Any]) -> pd.DataFrame:
    if not isinstance(runs, pd.DataFrame):
        found: pd.DataFrame = make(runs, **how)
    elif how:
        raise UsageError(f"the rows are given, so {', '.join(how)} cannot change them. Leave it out, or give the runs.")
    elif column not in runs or "value" not in runs:
        raise UsageError(f"the table lacks {column} or value, which rows of analysis.{make.__name__} have.")
    else:
        found = runs
    if found.empty:
        raise UsageError("there is nothing to draw: similarity is of two depths, and one alone was given.")
    return found


def _named(measures: str | Sequence[str], known: Mapping[str, Any]) -> list[str]:
    names = [measures] if isinstance(measures, str) else list(measures)
    for name in names:
        if name not in known:
            raise unknown("measure", name, known)
    return names


def _check_size(size: str) -> None:
    if size not in output.SIZES:
        raise unknown("size", size, output.SIZES)


def _check_axes(ax: Any, panels: int) -> None:
    import numpy as np

    if ax is not None and np.size(ax) != panels:
        raise UsageError(f"{np.size(ax)} axes were given for {panels} panels. Give one for each.")


def analysed(runs: Sequence[Path], asked: Asked, size: str) -> dict[str, Made]:
    """Return both figures with their tables and captions, by name; similarity alone of one depth is left out."""
    tables = measured(paths_of(runs), asked)
    made = {"geometry": (geometry.draw(tables.geometry, size), tables.geometry, geometry.caption(tables.geometry))}
    if len(tables.similarity):
        table = tables.similarity
        made["similarity"] = similarity.draw(table, size), table, similarity.caption(table)
    return made


def contents(made: Mapping[str, Made], paths: Mapping[str, Mapping[str, Path]]) -> dict[Path, bytes]:
    """Return what each file holds: of each figure PDF, SVG, PNG, its table as CSV, its caption as text."""
    found: dict[Path, bytes] = {}
    for name, (figure, table, words) in made.items():
        files = rendered(figure) | {".csv": str(write_csv(table)).encode(), ".txt": f"{words}\n".encode()}
        found |= {path: files[suffix] for suffix, path in paths[name].items()}
    return found
