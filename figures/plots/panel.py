"""One panel of the separability figure: its lines and bands, the input, the raw pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from figures.kit import style
from figures.kit.axis import AccuracyAxis, is_apart, is_pooled_input
from figures.kit.hover import tell
from figures.kit.words import percent
from figures.plots.lines import Key, Line, keyed

# Lines of one depth stand beside each other by this many depths, so that their intervals can be told apart.
_STEP, _SPREAD = 0.09, 0.45
_HEAD_MM = 1.0
_ALIKE = 0.001
# What all networks have in common has no network's colour.
_INPUT: dict[str, Any] = {"color": style.REFERENCE, "marker": "o", "markersize": 3.8, "linestyle": "none"}
_PIXELS: dict[str, Any] = {"color": style.REFERENCE, "marker": "D", "markersize": 3.2, "linestyle": "none"}
_HOLLOW: dict[str, Any] = {"markerfacecolor": "white"}
_CROSS: dict[str, Any] = {"marker": "x", "markersize": 6.5, "linestyle": "none", "label": "_not trained", "zorder": 3.2}
_FILLED: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.4}


def draw_panel(axes: Axes, panel: pd.DataFrame, named: dict[Key, Line], axis: AccuracyAxis, unit: float) -> None:
    """Draw the lines of one panel, of points with `x` and `failed`; unit: one block, in the unit of x."""
    axis.apply(axes)
    signed = [key for key, line in named.items() if not line.band]
    step = min(_STEP, _SPREAD / max(1, len(signed)))
    shifts = {key: (place - (len(signed) - 1) / 2) * step * unit for place, key in enumerate(signed)}
    shared = has_shared_input(panel)
    for key, line in keyed(panel):
        if named[key].band:
            _draw_band(axes, line[(line["depth"] > 0) if shared else ~is_apart(line)], named[key], axis)
        else:
            _draw_line(axes, line, named[key], shifts[key], axis, shared)
    if shared:
        _draw_shared_input(axes, panel[panel["depth"] == 0], axis)
    left, right = (0.0, 0.0) if shared else (min(shifts.values()), max(shifts.values()))
    _draw_pixels(axes, panel, min(left, min(shifts.values(), default=0.0)) - _STEP * unit)
    if axis.input_below:
        _name_input(axes, panel[is_pooled_input(panel)], right, axis)
    axis.name_failed(axes, panel[panel["failed"]])


def has_shared_input(panel: pd.DataFrame) -> bool:
    """Return whether the probe says the same of the input in every line of a panel, to a tenth of a point.

    Networks that take the same images with other means and deviations may differ by single images.
    """
    inputs = panel[panel["depth"] == 0]
    return len(inputs) > 0 and inputs["reads"].nunique() == 1 and bool(np.ptp(inputs["accuracy"]) < _ALIKE)


def is_not_trained(points: pd.DataFrame) -> pd.Series:
    """Return which points are means of CNN probes of which more than half are marked as not trained."""
    marked = points["not_trained"].map(lambda files: len(files.split(", ")) if files else 0)
    return marked > points["n_runs"] / 2


def references(panels: list[pd.DataFrame]) -> list[Line2D]:
    """Return what stands in the legend for signs of no line: the input, where lines share it, the raw pixels."""
    inputs = [panel[is_apart(panel)] for panel in panels if has_shared_input(panel)]
    grids = dict.fromkeys(grid for points in inputs for grid in points.loc[is_pooled_input(points), "reads"])
    is_whole = any((~is_pooled_input(points)).any() for points in inputs)
    pooled = f"{' or '.join(grids)}-pooled"
    name = (f"input (linear: {pooled})" if is_whole else f"{pooled} input") if grids else "input"
    found = [Line2D([], [], label=name, **_INPUT, **_HOLLOW)] if grids or is_whole else []
    if any(panel["pixels"].notna().any() for panel in panels):
        found.append(Line2D([], [], label="raw pixels", **_PIXELS, **_HOLLOW))
    return found


def _draw_band(axes: Axes, line: pd.DataFrame, band: Line, axis: AccuracyAxis) -> None:
    """Draw the interval of untrained networks as an area, with its mean; their pooled input is that of the others."""
    x, low, mean, high = (line[name].to_numpy(float) for name in ("x", "ci_low", "accuracy", "ci_high"))
    low, high = (np.clip(100 * end, axis.lowest, axis.top) for end in (low, high))
    tell(axes, band.name, x, 100 * mean, _words(line, band.name))
    axes.fill_between(x, low, high, linewidth=0, label="_band", **band.area)
    axes.plot(x, 100 * mean, zorder=0.6, **band.sign, label=band.label)


def _draw_line(
    axes: Axes, line: pd.DataFrame, drawn: Line, shift: float, axis: AccuracyAxis, shared_input: bool
) -> None:
    """Draw one line; what stands apart from it at depth 0 is hollow, and no line leads there.

    shared_input: the point at depth 0 is drawn once for all lines, which begin there where they include it.
    """
    apart, sign = is_apart(line), {**drawn.sign, "label": drawn.label}
    hollow = {**sign, **_HOLLOW, "linestyle": "none", "label": "_input"}
    if shared_input:
        line, apart = line[~apart], apart[~apart]
    elif axis.input_below:
        below = is_pooled_input(line)
        heights = [axis.input_height] * int(below.sum())
        across = axes.get_xaxis_transform()
        axes.plot(line.loc[below, "x"] + shift, heights, transform=across, zorder=3, **hollow)
        tell(axes, drawn.name, line.loc[below, "x"] + shift, heights, _words(line[below], drawn.name), across)
        line, apart = line[~below], apart[~below]
    line = line.assign(own=~(shared_input & (line["depth"] == 0)))
    for points, properties in ((line[~apart], _FILLED), (line[apart & line["own"]], hollow)):
        if points.empty:
            continue
        x = points["x"] + shift * points["own"]
        own = points[points["own"]]
        _draw_intervals(axes, own[(own["interval"] != "") & ~own["failed"]], shift, sign["color"], axis)
        tell(axes, drawn.name, own["x"] + shift, axis.place(own), _words(own, drawn.name))
        axes.plot(x, axis.place(points), markevery=np.flatnonzero(points["own"]), **{**sign, **properties}, zorder=3)
    crossed = line[is_not_trained(line) & line["own"]]
    if len(crossed):
        axes.plot(crossed["x"] + shift, axis.place(crossed), **{**_CROSS, "color": sign["color"]})


def _draw_shared_input(axes: Axes, inputs: pd.DataFrame, axis: AccuracyAxis) -> None:
    """Draw the input once, with the widest of the intervals: lines of more seeds have others around the same number."""
    is_hollow = is_apart(inputs).any()
    sign = {**_INPUT, **(_HOLLOW if is_hollow else _FILLED), "label": "_input", "zorder": 3.5}
    widest = inputs.assign(width=inputs["ci_high"] - inputs["ci_low"]).sort_values("width", na_position="first")
    said = list(_words(widest.tail(1).assign(n_runs=1), "input, the same for all lines"))
    if axis.input_below and is_pooled_input(inputs).any():
        across = axes.get_xaxis_transform()
        axes.plot([0.0], [axis.input_height], transform=across, **sign)
        tell(axes, "input", [0.0], [axis.input_height], said, across)
        return
    tell(axes, "input", [0.0], [100 * inputs["accuracy"].mean()], said)
    _draw_intervals(axes, widest[widest["interval"] != ""].tail(1), 0.0, style.REFERENCE, axis)
    axes.plot([0.0], [100 * inputs["accuracy"].mean()], **sign)


def _draw_intervals(axes: Axes, points: pd.DataFrame, shift: float, color: str, axis: AccuracyAxis) -> None:
    """Draw intervals; one that is cut ends in an arrowhead at the end of the axis."""
    x, low, high = points["x"] + shift, 100 * points["ci_low"], 100 * points["ci_high"]
    inset = 0.6 * _HEAD_MM / axis.panel_mm * (axis.top - axis.bottom)
    bottom, top = axis.lowest + inset, axis.top - inset
    axes.vlines(x, low.clip(lower=bottom), high.clip(upper=top), color=color, linewidth=0.7, zorder=2)
    for end, beyond, marker in ((bottom, low < axis.lowest, "v"), (top, high > axis.top, "^")):
        if beyond.any():
            size = _HEAD_MM / style.MM_PER_INCH * style.POINTS_PER_INCH
            heads: dict[str, Any] = {"linestyle": "none", "color": color, "markersize": size, "label": "_cut"}
            axes.plot(x[beyond], [end] * int(beyond.sum()), marker=marker, **heads)


def _draw_pixels(axes: Axes, panel: pd.DataFrame, shift: float) -> None:
    """Draw the raw pixels beside the pooled input, of no line: once, but where penalties are not chosen alike."""
    columns = ["pixels_low", "pixels", "pixels_high"]
    for low, value, high in 100 * panel[columns].dropna().drop_duplicates("pixels").to_numpy(float):
        axes.vlines(shift, low, high, color=style.REFERENCE, linewidth=0.7, zorder=2)
        axes.plot(shift, value, label="_pixels", zorder=3, **_PIXELS, **_HOLLOW)
        tell(axes, "raw pixels", [shift], [value], [f"raw pixels: {percent(value / 100, low / 100, high / 100)}"])


def _name_input(axes: Axes, points: pd.DataFrame, shift: float, axis: AccuracyAxis) -> None:
    """Write the accuracy of the pooled input beside its signs, which stand under the break and at no height."""
    found = sorted({f"{100 * accuracy:.1f}" for accuracy in points["accuracy"]}, key=float)
    if found:
        differ = points["by"].iloc[0] == "pool"
        text = f"{', '.join(found) if differ else ' to '.join(found[:: max(1, len(found) - 1)])}%"
        place: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
        place |= {"ha": "left", "va": "center", "fontsize": axis.type_size}
        axes.annotate(text, (shift, axis.input_height), (4.0 * axis.scale, 0.0), **place)


def _words(points: pd.DataFrame, name: str) -> Iterator[str]:
    """Yield what each point of a line says on a page: whose it is, where, and its numbers."""
    for point in points[["depth", "module", "n_runs", "accuracy", "ci_low", "ci_high"]].to_dict("records"):
        own = ("", "input", f"blocks.{point['depth']}")  # which say no more than the depth
        module = "" if point["module"] in own else f" ({point['module']})"
        networks = f"; mean of {point['n_runs']} networks" if point["n_runs"] > 1 else ""
        said = percent(point["accuracy"], point["ci_low"], point["ci_high"])
        yield f"{name}, depth {point['depth']}{module}: {said}{networks}"
