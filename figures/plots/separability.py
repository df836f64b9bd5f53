"""The separability figure: a panel for each probe, a line for each kind of network, the chance level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.factors import panel_columns
from figures.kit import style
from figures.kit.axis import AccuracyAxis, accuracy_axis, is_pooled_input
from figures.kit.legend import figure_with_legend
from figures.kit.panels import round_ticks
from figures.plots.lines import Key, Line, keyed, lines
from layerwise.errors import UserError

# Lines of one depth stand beside each other by this many depths, so that their intervals can be told apart.
_STEP, _SPREAD = 0.09, 0.45
_HEAD_MM = 1.0


def draw(curves: pd.DataFrame, size: str = "single", relative: bool = False) -> Figure:
    """Return the figure of accuracy (%) against depth.

    Args:
        curves: points as `analysis.separability.curves` returns them.
        size: "single" (85 mm wide, a column) or "double" (170 mm, a page).
        relative: whether depth is j / J, for networks of different depth.

    Raises:
        UserError: if depth is relative, and a table of results does not say J.
    """
    curves = curves.assign(x=_depths(curves, relative))
    # One block, in the unit of the axis; of the deepest network.
    unit = 1 / float(curves["blocks"].max()) if relative else 1.0
    with style.applied():
        panels = [panel for _, panel in curves.groupby(panel_columns(curves["by"].iloc[0]), sort=False)]
        named = lines(curves)
        first, *_ = named
        group = sum(key[0] == first[0] for key in named)  # the k of one mode
        handles = [line.handle for line in named.values()]
        figure, grid = figure_with_legend(size, len(panels), handles, group=group)
        axis = accuracy_axis(curves, grid.panel_height)
        for panel, (axes, row, column) in zip(panels, grid.panels(figure), strict=True):
            _draw_panel(axes, panel, named, axis, unit)
            axes.xaxis.set_major_locator(round_ticks(5 if relative else 9, integer=not relative))
            axes.set_title(_title(panel, curves))
            axes.set_xlim(-0.5 * unit, max(unit, curves["x"].max()) + 0.5 * unit)
            x = "relative depth $j/J$ (0 = input)" if relative else "depth $j$ (0 = input)"
            grid.label(axes, row, column, x, f"{curves['split'].iloc[0]} accuracy (%)")
        return figure


def _depths(curves: pd.DataFrame, relative: bool) -> pd.Series:
    if not relative:
        return curves["depth"].astype(float)
    if curves["blocks"].isna().any():
        raise UserError(
            "the results of an older version do not say how deep the networks are, so depth cannot be relative. "
            "Probe again with `probe-depth --force`, or leave out --relative."
        )
    return curves["depth"] / curves["blocks"].astype(float)


def _draw_panel(axes: Axes, panel: pd.DataFrame, named: dict[Key, Line], axis: AccuracyAxis, unit: float) -> None:
    axis.apply(axes)
    signed = [key for key, line in named.items() if not line.band]
    step = min(_STEP, _SPREAD / len(signed))
    shifts = {key: (place - (len(signed) - 1) / 2) * step * unit for place, key in enumerate(signed)}
    for key, line in keyed(panel):
        if named[key].band:
            _draw_band(axes, line[~is_pooled_input(line)], named[key], axis)
        else:
            _draw_line(axes, line, named[key], shifts[key], axis)
    _draw_pixels(axes, panel.iloc[0], min(shifts.values()) - _STEP * unit)
    if axis.input_below:
        _name_input(axes, panel[is_pooled_input(panel)], max(shifts.values()) + 0.18 * unit, axis)


def _draw_band(axes: Axes, line: pd.DataFrame, band: Line, axis: AccuracyAxis) -> None:
    """Draw the interval of untrained networks as an area, with its mean; their pooled input is that of the others."""
    x, low, mean, high = (line[name].to_numpy(float) for name in ("x", "ci_low", "accuracy", "ci_high"))
    low, high = (np.clip(100 * end, axis.lowest, axis.top) for end in (low, high))
    axes.fill_between(x, low, high, linewidth=0, zorder=0.5, label="_band", **band.area)
    axes.plot(x, 100 * mean, zorder=0.6, **band.sign, label=band.label)


def _draw_line(axes: Axes, line: pd.DataFrame, drawn: Line, shift: float, axis: AccuracyAxis) -> None:
    """Draw one line; a linear probe reads few features at depth 0, so that this point stands apart, hollow."""
    apart, sign = is_pooled_input(line), {**drawn.sign, "label": drawn.label}
    hollow = {**sign, "markerfacecolor": "white", "linestyle": "none", "label": "_input"}
    if axis.input_below:
        heights = [axis.input_height] * int(apart.sum())
        axes.plot(line.loc[apart, "x"] + shift, heights, transform=axes.get_xaxis_transform(), zorder=3, **hollow)
        line, apart = line[~apart], apart[~apart]
    apart |= line["not_trained"] != ""  # such a point is hollow too
    for points, properties in (
        (line[~apart], {"markeredgecolor": "white", "markeredgewidth": 0.4}),
        (line[apart], hollow),
    ):
        if points.empty:
            continue
        x, y = points["x"] + shift, 100 * points["accuracy"]
        _draw_intervals(axes, points[points["interval"] != ""], shift, sign["color"], axis)
        axes.plot(x, y, **{**sign, **properties}, zorder=3)


def _draw_intervals(axes: Axes, points: pd.DataFrame, shift: float, color: str, axis: AccuracyAxis) -> None:
    """Draw intervals; one that is cut ends in an arrowhead at the end of the axis."""
    x, low, high = points["x"] + shift, 100 * points["ci_low"], 100 * points["ci_high"]
    inset = 0.6 * _HEAD_MM / axis.panel_mm * (axis.top - axis.bottom)
    bottom, top = axis.lowest + inset, axis.top - inset
    axes.vlines(x, low.clip(lower=bottom), high.clip(upper=top), color=color, linewidth=0.7, zorder=2)
    for end, beyond, marker in ((bottom, low < axis.lowest, "v"), (top, high > axis.top, "^")):
        if beyond.any():
            size = _HEAD_MM / style.MM_PER_INCH * 72
            heads: dict[str, Any] = {"linestyle": "none", "color": color, "markersize": size, "label": "_cut"}
            axes.plot(x[beyond], [end] * int(beyond.sum()), marker=marker, **heads)


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
        differ = points["by"].iloc[0] == "pool"
        text = f"{', '.join(found) if differ else ' to '.join(found[:: max(1, len(found) - 1)])}%"
        place: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": "left", "va": "center", "fontsize": 6.5}
        axes.text(shift, axis.input_height, text, **place)


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
