"""Owns the separability figure: a panel for each probe, a line for each kind of network, the chance level."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.tables import LINE, PANEL
from figures import style
from figures.axis import AccuracyAxis, accuracy_axis, is_pooled_input
from figures.layout import figure_with_legend
from layerwise.config import MODES

# Lines of one depth stand beside each other by this many depths, so that their intervals can be told apart.
_STEP, _SPREAD = 0.09, 0.45


def draw(curves: pd.DataFrame, size: str = "single") -> Figure:
    """Return the figure of accuracy (%) against depth.

    Args:
        curves: points as `analysis.separability.curves` returns them.
        size: "single" (85 mm wide, a column) or "double" (170 mm, a page).
    """
    with style.applied():
        panels = [panel for _, panel in curves.groupby(PANEL, sort=False)]
        signs = _signs(curves)
        handles = [Line2D([], [], **sign) for sign in signs.values()]
        figure, grid = figure_with_legend(size, len(panels), handles)
        axis = accuracy_axis(curves, grid.panel_height)
        for place, panel in enumerate(panels):
            axes = figure.add_axes(grid.rectangle(place))
            _draw_panel(axes, panel, signs, axis)
            axes.set_title(_title(panel, curves))
            axes.set_xlim(-0.5, max(1, curves["depth"].max()) + 0.5)
            if grid.is_lowest(place):
                axes.set_xlabel("depth $j$ (0 = input)")
            if grid.is_left(place):
                axes.set_ylabel(f"{curves['split'].iloc[0]} accuracy (%)")
            else:
                axes.tick_params(labelleft=False)
        return figure


def _signs(curves: pd.DataFrame) -> dict[tuple[str, int | None], dict[str, Any]]:
    """Return the properties of each line of the figure, in the legend's order."""
    lines = dict.fromkeys(key for key, _ in _lines(curves))
    alone = len({mode for mode, _ in lines}) == 1
    built_elsewhere = [line for line in lines if line[0] not in MODES]
    places = {line: built_elsewhere.index(line) if line in built_elsewhere else 0 for line in lines}
    return {
        line: {**style.line_style(*line, place), "label": style.line_label(*line, alone)}
        for line, place in places.items()
    }


def _lines(panel: pd.DataFrame) -> Iterator[tuple[tuple[str, int | None], pd.DataFrame]]:
    for (mode, k), line in panel.groupby(LINE, sort=False, dropna=False):
        yield (mode, None if pd.isna(k) else int(k)), line


def _draw_panel(axes: Axes, panel: pd.DataFrame, signs: dict[Any, dict[str, Any]], axis: AccuracyAxis) -> None:
    axis.apply(axes)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, steps=[1, 2, 5, 10]))
    step = min(_STEP, _SPREAD / len(signs))
    shifts = {line: (place - (len(signs) - 1) / 2) * step for place, line in enumerate(signs)}
    for key, line in _lines(panel):
        _draw_line(axes, line, signs[key], shifts[key], axis)
    _draw_pixels(axes, panel.iloc[0], min(shifts.values()) - _STEP)
    if axis.input_below:
        _name_input(axes, panel[is_pooled_input(panel)], max(shifts.values()), axis)


def _draw_line(axes: Axes, line: pd.DataFrame, sign: dict[str, Any], shift: float, axis: AccuracyAxis) -> None:
    """Draw one line; a linear probe reads few features at depth 0, so that this point stands apart, hollow."""
    apart = is_pooled_input(line)
    hollow = {**sign, "markerfacecolor": "white", "linestyle": "none", "label": "_input"}
    if axis.input_below:
        heights = [axis.input_height] * int(apart.sum())
        axes.plot(line.loc[apart, "depth"] + shift, heights, transform=axes.get_xaxis_transform(), zorder=3, **hollow)
        line, apart = line[~apart], apart[~apart]
    for points, properties in (
        (line[~apart], {"markeredgecolor": "white", "markeredgewidth": 0.4}),
        (line[apart], hollow),
    ):
        x, y = points["depth"] + shift, 100 * points["accuracy"]
        known = points["interval"] != ""
        low, high = 100 * points["ci_low"], 100 * points["ci_high"]
        axes.vlines(x[known], low[known], high[known], color=sign["color"], linewidth=0.7, zorder=2)
        axes.plot(x, y, **{**sign, **properties}, zorder=3)


def _draw_pixels(axes: Axes, point: pd.Series, shift: float) -> None:
    """Draw the raw pixels beside the pooled input: of no line, since they are the same for every network."""
    if pd.notna(point["pixels"]):
        low, value, high = (100 * point[name] for name in ("pixels_low", "pixels", "pixels_high"))
        axes.vlines(shift, low, high, color=style.REFERENCE, linewidth=0.7, zorder=2)
        sign: dict[str, Any] = {"marker": "D", "markersize": 3.2, "markerfacecolor": "white", "linestyle": "none"}
        axes.plot(shift, value, color=style.REFERENCE, label="_pixels", zorder=3, **sign)


def _name_input(axes: Axes, points: pd.DataFrame, shift: float, axis: AccuracyAxis) -> None:
    """Write the accuracy of the pooled input beside its signs, which stand under the break and at no height."""
    found = sorted({f"{100 * accuracy:.1f}" for accuracy in points["accuracy"]}, key=float)
    if found:
        text = f"{' to '.join(found[:: max(1, len(found) - 1)])}%"
        place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": "left", "va": "center", "fontsize": 6.5}
        axes.text(shift + 0.18, axis.input_height, text, **place)


def _title(panel: pd.DataFrame, curves: pd.DataFrame) -> str:
    """Return "linear" or "CNN-1, M = 64"; the pooling is named where panels differ in it alone."""
    probe, width, pooling = panel.iloc[0][PANEL]
    words = [{"linear-ovr": "linear (one-vs-rest)"}.get(probe, probe.replace("cnn-", "CNN-"))]
    if width:
        words.append(f"$M$ = {width}")
    alike = curves[(curves["probe"] == probe) & (curves["probe_width"] == width)]
    if alike["pooling"].nunique() > 1:
        words.append(f"{pooling}x{pooling}" if pooling else "whole maps")
    return ", ".join(words)
