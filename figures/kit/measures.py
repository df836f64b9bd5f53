"""Small panels of measures against depth: in axes of the reader's, or in rows on a page of our own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures.kit import style
from figures.kit.legend import legend_above

Panel = TypeVar("Panel")

# On the page, in mm: room left of a panel, right of the last, below each, and below the last row for the axis's name.
_LEFT, _RIGHT, _BOTTOM, _NAME = 10.0, 2.0, 5.0, 4.5
_HEIGHT = 28.0
# Above a panel: a gap, and each line of its title.
_GAP, _LINE = 1.5, 3.3


def draw_panels(
    panels: Sequence[Panel],
    draw_panel: Callable[[Axes, Panel], None],
    styles: dict[str, dict[str, Any]],
    ax: Any = None,
    *,
    size: str = "single",
    across: int | None = None,
    title_lines: Sequence[int] | None = None,
) -> Figure:
    """Return the figure: each panel drawn by `draw_panel`, and a legend where there are several lines.

    Args:
        styles: how each line is drawn, by its words.
        ax: axes of a figure of the reader's, one for each panel; else the figure is our own.
        size: "single" (85 mm wide, two panels in a row) or "double" (170 mm, four). across: panels in a row, where
            not that number.
        title_lines: lines of each panel's title; None for one.
    """
    handles = [Line2D([], [], label=words.replace("$", r"\$"), **how) for words, how in styles.items()]
    handles = handles if len(handles) > 1 else []
    if ax is not None:
        every = list(np.atleast_1d(ax).ravel())
        with style.marks():
            for axes, panel in zip(every, panels, strict=True):
                draw_panel(axes, panel)
                axes.set_xlabel("depth $j$")
            if handles:
                every[0].legend(handles=handles)
        return every[0].get_figure(root=True)
    with style.applied():
        across = across or min(len(panels), 4 if size == "double" else 2)
        return _in_rows(panels, draw_panel, handles, style.WIDTHS_MM[size], across, title_lines or [1] * len(panels))


def _in_rows(
    panels: Sequence[Panel],
    draw_panel: Callable[[Axes, Panel], None],
    handles: Sequence[Line2D],
    width: float,
    across: int,
    title_lines: Sequence[int],
) -> Figure:
    # A row of panels is as high as its longest title asks.
    rows = [max(title_lines[first : first + across]) for first in range(0, len(panels), across)]
    ends = np.cumsum([_GAP + _LINE * lines + _HEIGHT + _BOTTOM for lines in rows])
    figure, band = legend_above(width, float(ends[-1]) + _NAME, handles)
    height, side = band + float(ends[-1]) + _NAME, (width - _RIGHT) / across - _LEFT
    for place, panel in enumerate(panels):
        row, column = divmod(place, across)
        left, bottom = _LEFT + column * (side + _LEFT), height - band - float(ends[row]) + _BOTTOM
        axes = figure.add_axes((left / width, bottom / height, side / width, _HEIGHT / height))
        draw_panel(axes, panel)
        if place + across >= len(panels):
            axes.set_xlabel("depth $j$")
    return figure
