"""The figure's legend: where it stands, how many columns it has, in which order it is read."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.transforms import Bbox, ScaledTranslation

from figures.kit import style
from figures.kit.panels import Grid, columns

_GAP_MM = 1.0  # between the legend and what stands above and below it
_SIDE_GAP_MM, _SIDE_SHARE = 3.0, 0.3  # of a legend beside a panel: what is between, and how much of the page it takes
# Of a legend in the reader's axes: its distance from their edge, how many places are tried to each side, and in how
# many bits a line between two points is looked at.
_PAD_MM, _STEPS, _BITS = 1.0, 13, 16
_MOST_ROWS = 6  # of a single column, before long names are broken for the sake of a second
# Of a name in lines: room for the sign before it, and how much shorter than the page its average line is, since letters
# differ in width.
_SIGN_MM, _TIGHTER = 10.4, 0.85

# What stands for a line in the legend: one artist, or several drawn over each other, of which the first has the words.
Handle = Artist | tuple[Artist, ...]


def figure_with_legend(
    size: str, panels: int, handles: Sequence[Handle], across: int | None = None, group: int = 0, names: float = 0.0
) -> tuple[Figure, Grid]:
    """Return a figure of the named width, as high as its panels and legend need, with the legend drawn.

    The legend stands in the free place of the last row of panels if it fits there, beside a panel that has the page to
    itself, which would else be flat, or in a band above all panels.

    across: panels in a row; None takes as many as suit their number.
    names: room below a panel for names on its axis, in mm.
    group: handles that belong together, each so many; where a column of the legend holds as many, it holds a group.
    """
    style.warn_of_missing("".join(map(_label, handles)))
    grid = Grid(width=style.WIDTHS_MM[size], count=panels, columns=across or columns(size, panels), names=names)
    ruler = style.new_figure(grid.width, grid.height)
    for handle in handles:
        _wrap(ruler, handle, grid.width)
    one_column = _extent_mm(ruler, handles, 1)
    if grid.free and one_column[0] <= grid.panel_width and one_column[1] <= grid.panel_height:
        figure = style.new_figure(grid.width, grid.height)
        left, bottom, width, height = grid.rectangle(panels)
        _legend(figure, handles, 1, "center", (left + width / 2, bottom + height / 2))
        return figure, grid
    beside = replace(grid, side=one_column[0] + _SIDE_GAP_MM)
    if size == "double" and panels == 1 and _fits_beside(one_column, beside):
        figure = style.new_figure(beside.width, beside.height)
        left, bottom, width, height = beside.rectangle(0)
        _legend(figure, handles, 1, "center left", (left + width + _SIDE_GAP_MM / beside.width, bottom + height / 2))
        return figure, beside
    count = _widest_that_fits(ruler, handles, grid.width)
    if count == 1 and len(handles) > _MOST_ROWS:
        for handle in handles:
            _wrap(ruler, handle, grid.width / 2 - _GAP_MM)
        count = _widest_that_fits(ruler, handles, grid.width)
    band = _extent_mm(ruler, handles, count)[1] + _GAP_MM
    grid = replace(grid, band=band)
    figure = style.new_figure(grid.width, grid.height)
    if -(-len(handles) // count) != group:
        handles = _by_rows(handles, count)
    _legend(figure, handles, count, "upper center", (0.5, 1 - _GAP_MM / grid.height))
    return figure, grid


def legend_above(width: float, height: float, handles: Sequence[Handle]) -> tuple[Figure, float]:
    """Return a figure with a legend above its panels, which are so high, and how high the band of it is, in mm."""
    if not handles:
        return style.new_figure(width, height), 0.0
    style.warn_of_missing("".join(map(_label, handles)))
    ruler = style.new_figure(width, height)
    for handle in handles:
        _wrap(ruler, handle, width)
    count = _widest_that_fits(ruler, handles, width)
    band = _extent_mm(ruler, handles, count)[1] + 2 * _GAP_MM
    figure = style.new_figure(width, height + band)
    _legend(figure, _by_rows(handles, count), count, "upper center", (0.5, 1 - _GAP_MM / (height + band)))
    return figure, band


def legend_in(every: Sequence[Axes], handles: Sequence[Handle]) -> None:
    """Draw the legend in the first panel where it covers nothing, else beside the panels, in the reader's type.

    A legend that is set where it covers least (matplotlib's "best") still covers lines where axes are small.
    """
    first, last = every[0], every[-1]
    how: dict[str, Any] = {"handles": handles, "labels": [_label(handle) for handle in handles]}
    how |= {"handlelength": style.HANDLE_LENGTH, "borderaxespad": 0.0}
    box = first.legend(**how).get_window_extent(_renderer(first))
    corner = _free_corner(first, box.width, box.height)
    if corner is not None:
        first.legend(loc="lower left", bbox_to_anchor=corner, **how)
        return
    first.legend().remove()
    around, gap = first.get_tightbbox(_renderer(first)) or first.bbox, _GAP_MM / style.MM_PER_INCH
    dpi = first.get_figure(root=True).dpi  # type: ignore[union-attr]
    outside: list[tuple[Axes, Any, tuple[float, float], float]] = [
        (last, "upper left", (1.03, 1.0), 0.0),
        (first, "upper left", (0.0, 0.0), (around.y0 - first.bbox.y0) / dpi - gap),
        (first, "lower left", (0.0, 1.0), (around.y1 - first.bbox.y1) / dpi + gap),
    ]
    for axes, loc, anchor, up in outside:
        # In inches, since a layout of the reader's shrinks the axes afterwards, but not the words beside them.
        moved = axes.transAxes + ScaledTranslation(0, up, axes.get_figure(root=True).dpi_scale_trans)  # type: ignore[union-attr]
        legend = axes.legend(loc=loc, bbox_to_anchor=anchor, bbox_transform=moved, **how)
        taken = legend.get_window_extent(_renderer(axes))
        others = [one.get_tightbbox(_renderer(axes)) for one in axes.figure.axes if one is not axes]
        if not any(other is not None and taken.overlaps(other) for other in others):
            return
        legend.remove()
    last.legend(loc="upper left", bbox_to_anchor=(1.03, 1.0), **how)


def _free_corner(axes: Axes, width: float, height: float) -> tuple[float, float] | None:
    """Return where in the axes the lower left corner of a box in pixels may be, so that it covers nothing drawn."""
    drawn, inner = _drawn_in(axes), axes.bbox.padded(-_PAD_MM / style.MM_PER_INCH * axes.figure.dpi)
    if width > inner.width or height > inner.height:
        return None
    steps = np.linspace(0, 1, _STEPS)
    for down, right in itertools.product(steps, steps):
        x, y = inner.x0 + right * (inner.width - width), inner.y1 - height - down * (inner.height - height)
        if not Bbox.from_bounds(x, y, width, height).count_overlaps(drawn):
            corner = axes.transAxes.inverted().transform((x, y))
            return float(corner[0]), float(corner[1])
    return None


def _drawn_in(axes: Axes) -> list[Bbox]:
    """Return boxes in pixels around all lines, bit by bit, with their markers, around bands, intervals and words."""
    half = max((float(line.get_markersize()) for line in axes.lines), default=0.0) / 2 / 72 * axes.figure.dpi
    paths = [line.get_transform().transform_path(line.get_path()) for line in axes.lines]
    for collection in axes.collections:
        paths += [collection.get_transform().transform_path(path) for path in collection.get_paths()]
    boxes = [text.get_window_extent(_renderer(axes)) for text in axes.texts]
    for path in paths:
        vertices = np.asarray(path.vertices, float)
        if len(vertices) > 1:
            vertices = np.asarray(path.interpolated(_BITS).vertices, float)
        for one, other in zip(vertices, [*vertices[1:], vertices[-1]], strict=True):
            if np.isfinite([one, other]).all():
                boxes.append(Bbox([np.minimum(one, other) - half, np.maximum(one, other) + half]))
    return boxes


def _renderer(axes: Axes) -> Any:
    return axes.get_figure(root=True)._get_renderer()  # type: ignore[union-attr]


def _fits_beside(legend: tuple[float, float], grid: Grid) -> bool:
    return legend[0] <= _SIDE_SHARE * grid.width and legend[1] <= grid.panel_height


def _wrap(ruler: Figure, handle: Handle, width: float) -> None:
    """Break the words of a handle that alone is wider than the page into lines."""
    label, extent = _label(handle), _extent_mm(ruler, [handle], 1)[0]
    if extent > width:
        own = extent - _SIGN_MM
        lines = textwrap.wrap(label, max(1, int(len(label) * (width - _SIGN_MM) / own * _TIGHTER)))
        for artist in handle if isinstance(handle, tuple) else (handle,):
            artist.set_label("\n".join(lines))


def _widest_that_fits(ruler: Figure, handles: Sequence[Handle], width: float) -> int:
    """Return the number of legend columns: as few rows as fit the width, and rows as equal as can be."""
    for rows in range(1, len(handles)):
        count = -(-len(handles) // rows)
        if _extent_mm(ruler, handles, count)[0] <= width:
            return count
    return 1


def _extent_mm(ruler: Figure, handles: Sequence[Handle], count: int) -> tuple[float, float]:
    legend = _legend(ruler, handles, count, "center", (0.5, 0.5))
    canvas = ruler.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    box = legend.get_window_extent(canvas.get_renderer())
    legend.remove()
    return box.width / ruler.dpi * style.MM_PER_INCH, box.height / ruler.dpi * style.MM_PER_INCH


def _by_rows(handles: Sequence[Handle], count: int) -> Sequence[Handle]:
    """Return the order in which a legend wider than high is read row by row: matplotlib fills column by column."""
    if count * count < len(handles):
        return handles
    return [handle for column in range(count) for handle in handles[column::count]]


def _label(handle: Handle) -> str:
    return str((handle[0] if isinstance(handle, tuple) else handle).get_label())


def _legend(figure: Figure, handles: Sequence[Handle], count: int, loc: Any, anchor: tuple[float, float]) -> Legend:
    return figure.legend(
        handles=handles,
        labels=[_label(handle) for handle in handles],
        ncols=count,
        loc=loc,
        bbox_to_anchor=anchor,
        frameon=False,
        borderpad=0.0,
        borderaxespad=0.0,
        handlelength=style.HANDLE_LENGTH,
        handletextpad=0.5,
        columnspacing=1.4,
        labelspacing=0.4,
    )
