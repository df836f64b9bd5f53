"""The separability figure: a panel for each probe, a line for each kind of network, the chance level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from analysis.factors import panel_columns
from figures.kit import style
from figures.kit.axis import AccuracyAxis, accuracy_axis, is_failed
from figures.kit.legend import Handle, figure_with_legend, legend_in
from figures.kit.panels import height_mm, label_edges, round_ticks, type_scale
from figures.plots.lines import Key, Line, lines
from figures.plots.panel import draw_panel, references
from layerwise.errors import UsageError, UserError, option, unknown

XLABELS = ("depth", "module")
# Of names side by side on the axis: what each takes, and the height of a number that they stand in place of.
_NAME_MM, _NUMBER_MM = 2.8, 2.4


def draw(
    curves: pd.DataFrame,
    size: str = "single",
    relative: bool = False,
    *,
    named: dict[Key, Line] | None = None,
    xlabels: str = "depth",
    ax: Any = None,
) -> Figure:
    """Return the figure of accuracy (%) against depth.

    Args:
        curves: points as `analysis.separability.curves` returns them.
        size: "single" (85 mm wide, a column) or "double" (170 mm, a page).
        relative: whether depth is j / J, for networks of different depth.
        named: the lines, where they are others than `figures.plots.lines.lines` makes.
        xlabels: "depth", or "module": the layers' names.
        ax: axes of the reader's own figure, one for each panel; they keep its size and type.

    Raises:
        UserError: if depth is relative, and a table of results does not say J; if layers have names and other names.
        UsageError: if there are not as many axes as panels.
    """
    curves = curves.assign(x=_depths(curves, relative), failed=is_failed(curves))
    ticks = _Ticks(curves, relative, xlabels)
    panels = [panel for _, panel in curves.groupby(panel_columns(curves["by"].iloc[0]), sort=False)]
    named = lines(curves) if named is None else named
    several = curves["split"].nunique() > 1
    y = "accuracy (%)" if several else f"{curves['split'].iloc[0]} accuracy (%)"
    if ax is not None:
        own = _axes(ax, [_title(panel, curves) for panel in panels])
        with style.marks():
            axis = accuracy_axis(curves, min(map(height_mm, own)), type_scale(own[0]))
            _draw_panels(own, panels, curves, named, ticks, axis)
        label_edges(own, ticks.label, y)
        legend_in(own, _handles(named, panels))
        return cast(Figure, own[0].get_figure(root=True))
    with style.applied():
        first, *_ = named
        group = sum(key[0] == first[0] for key in named)  # the k of one mode
        handles = _handles(named, panels)
        figure, grid = figure_with_legend(size, len(panels), handles, group=group, names=ticks.names_mm)
        placed = list(grid.panels(figure))
        _draw_panels(
            [axes for axes, *_ in placed], panels, curves, named, ticks, accuracy_axis(curves, grid.panel_height)
        )
        for axes, row, column in placed:
            grid.label(axes, row, column, ticks.label, y)
        return figure


def _handles(named: dict[Key, Line], panels: list[pd.DataFrame]) -> list[Handle]:
    return [*(line.handle for line in named.values()), *references(panels)]


def _draw_panels(
    every: Sequence[Axes],
    panels: Sequence[pd.DataFrame],
    curves: pd.DataFrame,
    named: dict[Key, Line],
    ticks: _Ticks,
    axis: AccuracyAxis,
) -> None:
    for axes, panel in zip(every, panels, strict=True):
        draw_panel(axes, panel, named, axis, ticks.unit)
        ticks.apply(axes)
        axes.set_title(_title(panel, curves))


class _Ticks:
    """The axis of depth: its unit (one block), its label, and numbers or names on it."""

    def __init__(self, curves: pd.DataFrame, relative: bool, xlabels: str) -> None:
        if xlabels not in XLABELS:
            raise unknown("xlabels", xlabels, XLABELS)
        if relative and xlabels == "module":
            raise UsageError(
                f"a layer's name is of a depth j, and {option('relative', True)} draws j/J. Leave out one of the two."
            )
        self.relative = relative
        # Of the deepest network.
        self.unit = 1 / float(curves["blocks"].max()) if relative else 1.0
        self.first, self.last = float(curves["x"].min()), float(curves["x"].max())
        self.names = _names(curves) if xlabels == "module" else {}

    @property
    def label(self) -> str:
        if self.names:
            return "layer"
        words = "relative depth $j/J$" if self.relative else "depth $j$"
        return f"{words} (0 = input)" if self.first == 0 else words

    @property
    def names_mm(self) -> float:
        return max(0.0, max(map(style.length_mm, self.names.values())) - _NUMBER_MM) if self.names else 0.0

    def apply(self, axes: Axes) -> None:
        axes.set_xlim(self.first - 0.5 * self.unit, max(self.first + self.unit, self.last) + 0.5 * self.unit)
        if not self.names:
            axes.xaxis.set_major_locator(round_ticks(5 if self.relative else 9, integer=not self.relative))
            return
        width = axes.get_window_extent().width / axes.figure.dpi * style.MM_PER_INCH
        every = int(np.ceil(len(self.names) * _NAME_MM / width))  # names that do not all fit stand at every second, ...
        shown = dict(list(self.names.items())[::every])
        axes.xaxis.set_major_locator(FixedLocator(list(shown)))
        axes.set_xticklabels(list(shown.values()), rotation=90)


def _names(curves: pd.DataFrame) -> dict[float, str]:
    """Return the name of the layer at each depth, which all networks drawn must share."""
    found: dict[float, str] = {}
    for depth, points in curves.groupby("depth"):
        names = list(dict.fromkeys(points["module"]))
        if len(names) > 1 or not names[0]:
            of = f"{names[0]} and {names[1]}" if len(names) > 1 and all(names) else "several names"
            raise UserError(
                f"depth {depth} is the layer {of} of the networks drawn, so the axis has no one name for it. Leave out "
                f"{option('xlabels', 'module')}, or draw a figure for each network."
            )
        found[float(str(depth))] = names[0]
    return found


def _axes(ax: Any, titles: Sequence[str]) -> list[Axes]:
    """Return the reader's axes, one for each panel."""
    found = np.asarray(ax, dtype=object).ravel().tolist()
    if not all(isinstance(one, Axes) for one in found):
        wrong = next(one for one in found if not isinstance(one, Axes))
        raise UsageError(f"ax holds {type(wrong).__name__}, but takes axes of matplotlib, or an array of them.")
    if len(found) != len(titles):
        panels = f"{len(titles)} panel{'s' if len(titles) > 1 else ''}"
        raise UsageError(
            f"ax has {len(found)} axes for {panels} ({'; '.join(titles)}). Give plt.subplots(1, {len(titles)})[1], or "
            "other probes."
        )
    return found


def _depths(curves: pd.DataFrame, relative: bool) -> pd.Series:
    if not relative:
        return curves["depth"].astype(float)
    if curves["blocks"].isna().any():
        raise UserError(
            "the results of an older version do not say how deep the networks are, so depth cannot be relative. "
            "Probe again with `probe-depth --force`, or leave out --relative."
        )
    return curves["depth"] / curves["blocks"].astype(float)


def _title(panel: pd.DataFrame, curves: pd.DataFrame) -> str:
    """Return "linear" or "CNN-1, width 64"; the pooling is named where panels differ in it alone."""
    first = panel.iloc[0]
    words = [{"linear-ovr": "linear (one-vs-rest)"}.get(first["probe"], first["probe"].replace("cnn-", "CNN-"))]
    if first["probe_width"]:
        words.append(f"width {first['probe_width']}")
    alike = curves[(curves["probe"] == first["probe"]) & (curves["probe_width"] == first["probe_width"])]
    if alike["pooling"].nunique() > panel["pooling"].nunique():
        words.append(f"{first['pooling']}x{first['pooling']}" if first["pooling"] else "whole maps")
    return ", ".join(words)
