"""Owns where panels and legend stand on the page, in millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from figures.kit import style

# Room for axis label and tick labels (left, bottom), for a title (top), and between neighbours.
_LEFT, _RIGHT, _BOTTOM, _TITLE = 11.0, 2.5, 9.0, 5.5
_COLUMN_GAP, _ROW_GAP = 4.0, 5.0
_LEGEND_GAP = 1.0
_PANEL_HEIGHTS = (34.0, 50.0)
_PANEL_ASPECT = 0.9


# Drawn over each other where there are several; the first has the words.
Handle = Artist | tuple[Artist, ...]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Panels of equal size in rows from the top left; all lengths in mm.

    The legend stands in the free place of the last row if it fits there, else in a band above the panels.
    """

    width: float
    panels: int
    columns: int
    band: float = 0.0

    @property
    def rows(self) -> int:
        return -(-self.panels // self.columns)

    @property
    def free(self) -> int:
        """Places of the last row that hold no panel."""
        return self.rows * self.columns - self.panels

    @property
    def panel_width(self) -> float:
        return (self.width - _LEFT - _RIGHT - (self.columns - 1) * _COLUMN_GAP) / self.columns

    @property
    def panel_height(self) -> float:
        low, high = _PANEL_HEIGHTS
        return min(max(_PANEL_ASPECT * self.panel_width, low), high)

    @property
    def height(self) -> float:
        return self.band + self.rows * (_TITLE + self.panel_height) + (self.rows - 1) * _ROW_GAP + _BOTTOM

    def rectangle(self, place: int) -> tuple[float, float, float, float]:
        """Return left, bottom, width and height of a place, as fractions of the figure."""
        row, column = divmod(place, self.columns)
        left = _LEFT + column * (self.panel_width + _COLUMN_GAP)
        bottom = self.height - self.band - (row + 1) * (_TITLE + self.panel_height) - row * _ROW_GAP
        return (
            left / self.width,
            bottom / self.height,
            self.panel_width / self.width,
            self.panel_height / self.height,
        )

    def label(self, axes: Axes, place: int, x: str, y: str) -> None:
        """Name the axes of a panel that stand at the edge of the grid; those of a row share the numbers of y."""
        if self.is_lowest(place):
            axes.set_xlabel(x)
        if self.is_left(place):
            axes.set_ylabel(y)
        else:
            axes.tick_params(labelleft=False)

    def is_left(self, place: int) -> bool:
        return place % self.columns == 0

    def is_lowest(self, place: int) -> bool:
        """Say whether no panel stands below this one."""
        return place + self.columns >= self.panels


def columns(size: str, panels: int) -> int:
    """Return in how many columns panels stand: up to two in a paper's column, three or four on its page."""
    if size == "single":
        return min(panels, 2)
    if panels <= 4:
        return panels
    return min((3, 4), key=lambda count: -panels % count)


def figure_with_legend(
    size: str, panels: int, handles: Sequence[Handle], across: int | None = None, group: int = 0
) -> tuple[Figure, Grid]:
    """Return a figure of the named width, as high as its panels and legend need, with the legend drawn.

    across: panels in a row; None takes as many as suit their number.
    group: handles that belong together, each so many; where a column of the legend holds as many, it holds a group.
    """
    grid = Grid(width=style.WIDTHS_MM[size], panels=panels, columns=across or columns(size, panels))
    ruler = style.new_figure(grid.width, grid.height)
    one_column = _extent_mm(ruler, handles, 1)
    if grid.free and one_column[0] <= grid.panel_width and one_column[1] <= grid.panel_height:
        figure = style.new_figure(grid.width, grid.height)
        left, bottom, width, height = grid.rectangle(panels)
        _legend(figure, handles, 1, "center", (left + width / 2, bottom + height / 2))
        return figure, grid
    count = _widest_that_fits(ruler, handles, grid.width)
    band = _extent_mm(ruler, handles, count)[1] + _LEGEND_GAP
    grid = Grid(width=grid.width, panels=panels, columns=grid.columns, band=band)
    figure = style.new_figure(grid.width, grid.height)
    if -(-len(handles) // count) != group:
        handles = _by_rows(handles, count)
    _legend(figure, handles, count, "upper center", (0.5, 1 - _LEGEND_GAP / grid.height))
    return figure, grid


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


def _legend(figure: Figure, handles: Sequence[Handle], count: int, loc: Any, anchor: tuple[float, float]) -> Legend:
    return figure.legend(
        handles=handles,
        labels=[(handle[0] if isinstance(handle, tuple) else handle).get_label() for handle in handles],
        ncols=count,
        loc=loc,
        bbox_to_anchor=anchor,
        frameon=False,
        borderpad=0.0,
        borderaxespad=0.0,
        handlelength=3.4,
        handletextpad=0.5,
        columnspacing=1.6,
        labelspacing=0.4,
    )
