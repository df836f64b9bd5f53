"""The figure's legend: where it stands, how many columns it has, in which order it is read."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from figures.kit import style
from figures.kit.panels import Grid, columns

_GAP_MM = 1.0  # between the legend and what stands above and below it
_SIDE_GAP_MM, _SIDE_SHARE = 3.0, 0.3  # of a legend beside a panel: what is between, and how much of the page it takes
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


def legend_in(axes: Axes, handles: Sequence[Handle]) -> None:
    """Draw the legend where the lines of a panel leave room, in the type of the reader's figure."""
    labels = [_label(handle) for handle in handles]
    axes.legend(handles=handles, labels=labels, handlelength=style.HANDLE_LENGTH)


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
