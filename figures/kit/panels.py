"""Panels: where they stand on the page, in millimetres, and the limits and ticks of their axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from figures.kit.style import LABEL_SIZE, MM_PER_INCH

# Room for axis label and tick labels (left, bottom), for a title (top), and between neighbours.
_LEFT, _RIGHT, _BOTTOM, _TITLE = 11.0, 2.5, 9.0, 5.5
_COLUMN_GAP, _ROW_GAP = 4.0, 5.0
# A panel is almost square, but not so low that its ticks touch, nor so high that a page holds no text beside it.
_PANEL_HEIGHTS = (34.0, 50.0)
_PANEL_ASPECT = 0.9
# Of the only panel of a page, which at the greatest height would be three times as wide as high.
_ALONE_ASPECT = 0.5


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Panels of equal size in rows from the top left; all lengths in mm.

    count: how many panels. band: room above them for the legend, side: room right of them; 0 where it stands elsewhere.
    names: room below a panel for names on its axis, beyond that of numbers.
    """

    width: float
    count: int
    columns: int
    band: float = 0.0
    side: float = 0.0
    names: float = 0.0

    @property
    def rows(self) -> int:
        return -(-self.count // self.columns)

    @property
    def free(self) -> int:
        """Places of the last row that hold no panel."""
        return self.rows * self.columns - self.count

    @property
    def panel_width(self) -> float:
        return (self.width - self.side - _LEFT - _RIGHT - (self.columns - 1) * _COLUMN_GAP) / self.columns

    @property
    def panel_height(self) -> float:
        low, high = _PANEL_HEIGHTS
        high = max(high, _ALONE_ASPECT * self.panel_width) if self.count == 1 else high
        return min(max(_PANEL_ASPECT * self.panel_width, low), high)

    @property
    def height(self) -> float:
        rows = self.rows * (_TITLE + self.panel_height) + (self.rows - 1) * self.row_gap
        return self.band + rows + _BOTTOM + self.names

    @property
    def row_gap(self) -> float:
        return _ROW_GAP + (self.names if self.free else 0.0)  # names also stand below a panel above a free place

    def rectangle(self, place: int) -> tuple[float, float, float, float]:
        """Return left, bottom, width and height of a place, as fractions of the figure."""
        row, column = divmod(place, self.columns)
        left = _LEFT + column * (self.panel_width + _COLUMN_GAP)
        bottom = self.height - self.band - (row + 1) * (_TITLE + self.panel_height) - row * self.row_gap
        return (
            left / self.width,
            bottom / self.height,
            self.panel_width / self.width,
            self.panel_height / self.height,
        )

    def panels(self, figure: Figure) -> Iterator[tuple[Axes, int, int]]:
        """Add the panels to a figure, row by row; yield each with its row and column."""
        for place in range(self.count):
            row, column = divmod(place, self.columns)
            yield figure.add_axes(self.rectangle(place)), row, column

    def label(self, axes: Axes, row: int, column: int, x: str, y: str) -> None:
        """Name the axes of a panel that stand at the edge of the grid; those of a row share the numbers of y."""
        if (row + 1) * self.columns + column >= self.count:  # no panel stands below this one
            axes.set_xlabel(x)
        elif self.names:
            axes.tick_params(labelbottom=False)
        if column == 0:
            axes.set_ylabel(y)
        else:
            axes.tick_params(labelleft=False)


def height_mm(axes: Axes) -> float:
    """Return the height of axes on the page."""
    return float(axes.get_window_extent().height) / axes.figure.dpi * MM_PER_INCH


def type_scale(axes: Axes) -> float:
    """Return how much larger the type of a figure of the reader's is than that of `style`."""
    return float(axes.yaxis.label.get_fontsize()) / LABEL_SIZE


def label_edges(every: Sequence[Axes], x: str, y: str) -> None:
    """Name the axes of panels in a figure of the reader's: in a grid, those with no other panel to the left or below.

    What else stands in that figure says nothing of these axes.
    """
    places = [axes.get_subplotspec() for axes in every]
    for axes, place in zip(every, places, strict=True):
        grid = None if place is None else place.get_gridspec()
        others = [other for other in places if place and other and other.get_gridspec() is grid]
        stacked = [other for other in others if place and _meet(place.colspan, other.colspan)]
        beside = [other for other in others if place and _meet(place.rowspan, other.rowspan)]
        if not any(place and other.rowspan.start >= place.rowspan.stop for other in stacked):
            axes.set_xlabel(x)
        if not any(place and other.colspan.stop <= place.colspan.start for other in beside):
            axes.set_ylabel(y)


def _meet(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


def columns(size: str, panels: int) -> int:
    """Return in how many columns panels stand: up to two in a paper's column, three or four on its page."""
    if size == "single":
        return min(panels, 2)
    if panels <= 4:
        return panels
    return min((3, 4), key=lambda count: -panels % count)


def limits(values: np.ndarray, share: float, least: float) -> tuple[float, float]:
    """Return the limits of an axis: the least and the greatest value, and beyond each a margin.

    The margin is a share of the distance of the two, and no less than `least`: values that are all the same would
    else have an axis of no length. Values that are missing (NaN) do not count.
    """
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = max(share * (high - low), least)
    return low - margin, high + margin


def round_ticks(most: int, integer: bool = False) -> MaxNLocator:
    """Return ticks at 1, 2 or 5 times a power of ten, `most` intervals of them at most."""
    return MaxNLocator(nbins=most, integer=integer, steps=[1, 2, 5, 10])
