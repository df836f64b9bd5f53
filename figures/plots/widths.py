"""Accuracy and teacher gap against the width of the probe, and the caption."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.widths import MEASURES
from figures.kit import style
from figures.kit.axis import AccuracyAxis, accuracy_axis
from figures.kit.legend import figure_with_legend
from figures.kit.panels import limits, round_ticks
from figures.kit.words import who_trained
from figures.plots.caption import kind_of_network
from figures.plots.fits import convergence, protocol
from layerwise.errors import UsageError

_MOST = {"single": 2, "double": 4}  # columns of panels
# Lines of one width stand beside each other by this share of a doubling, so that their intervals can be told apart.
_STEP, _SPREAD = 0.05, 0.3
_MARGIN = 0.08


def draw(points: pd.DataFrame, size: str = "single") -> Figure:
    """Return the figure: a column for each p, accuracy (%) above teacher gap (points), a line for each depth.

    Args:
        points: as `analysis.widths.against_width` returns them.
        size: "single" (85 mm wide, up to two p) or "double" (170 mm, up to four).
    """
    probes = list(dict.fromkeys(points["probe"]))
    if len(probes) > _MOST[size]:
        wider = " or --size double" if size == "single" else ""
        raise UsageError(f"{len(probes)} probes do not fit a {size} figure: give {_MOST[size]} by --probe{wider}.")
    measures = [measure for measure in MEASURES if measure in set(points["measure"])]
    with style.applied():
        signs = _signs(sorted(set(points["depth"])))
        handles = [Line2D([], [], label=f"$j$ = {depth}", **sign) for depth, sign in signs.items()]
        figure, grid = figure_with_legend(size, len(probes) * len(measures), handles, across=len(probes))
        axis = accuracy_axis(_accuracies(points), grid.panel_height)
        for axes, row, column in grid.panels(figure):
            measure, probe = measures[row], probes[column]
            own = points[points["measure"] == measure]
            _set_axes(axes, own, axis if measure == "accuracy" else None)
            for depth, line in own[own["probe"] == probe].groupby("depth"):
                _draw_line(axes, line, signs[int(depth)], list(signs).index(int(depth)), len(signs))
            if row == 0:
                axes.set_title(probe.replace("cnn-", "CNN-"))
            grid.label(axes, row, column, "probe width $M$", _label(measure, points))
        return figure


def _signs(depths: list[int]) -> dict[int, dict[str, Any]]:
    """Return the properties of each depth's line: from light to dark with depth, the input grey and dashed."""
    blocks = [depth for depth in depths if depth > 0]
    signs: dict[int, dict[str, Any]] = {}
    if 0 in depths:
        signs[0] = {"color": style.GREY, "marker": "o", "linestyle": style.UNTRAINED_DASHES}
    return signs | dict(zip(blocks, style.ordered_styles(len(blocks)), strict=True))


def _accuracies(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points as the accuracy axis takes them; whole maps have no pooled input and no raw pixels beside."""
    own = points[points["measure"] == "accuracy"].rename(columns={"value": "accuracy"})
    return own.assign(pooling=0, reads="", pixels=np.nan, pixels_low=np.nan, pixels_high=np.nan)


def _label(measure: str, points: pd.DataFrame) -> str:
    return f"{points['split'].iloc[0]} accuracy (%)" if measure == "accuracy" else "teacher gap (points)"


def _set_axes(axes: Axes, points: pd.DataFrame, axis: AccuracyAxis | None) -> None:
    widths = sorted(set(points["probe_width"]))
    axes.set_xscale("log", base=2)
    axes.set_xlim(widths[0] / 2**0.5, widths[-1] * 2**0.5)
    axes.xaxis.set_major_locator(FixedLocator(widths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda width, _: f"{width:g}"))
    if axis is not None:
        axis.apply(axes)
        return
    values = 100 * points[["value", "ci_low", "ci_high"]].to_numpy(float)
    low, high = limits(values, _MARGIN, 0.5)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(round_ticks(5))
    if low < 0 < high:
        axes.axhline(0, color="black", linewidth=0.8, linestyle=style.CHANCE_DASHES, label="_zero", zorder=1)


def _draw_line(axes: Axes, line: pd.DataFrame, sign: dict[str, Any], place: int, count: int) -> None:
    shift = (place - (count - 1) / 2) * min(_STEP, _SPREAD / count)
    x, y = line["probe_width"] * 2**shift, 100 * line["value"]
    known = line["interval"] != ""
    axes.vlines(
        x[known],
        100 * line["ci_low"][known],
        100 * line["ci_high"][known],
        color=sign["color"],
        linewidth=0.7,
        zorder=2,
    )
    axes.plot(x, y, markeredgecolor="white", markeredgewidth=0.4, zorder=3, label=f"{line['depth'].iloc[0]}", **sign)


def caption(points: pd.DataFrame) -> str:
    """Return the caption, one paragraph."""
    first = points.iloc[0]
    sentences = [
        f"Accuracy of CNN-p probes against their width M on {first['dataset']}, {first['split']} split "
        f"({first['n_samples']:,} images): a line for each depth j (0 = input) of {kind_of_network(points)}.",
        "CNN-p: a CNN with p hidden layers, trained on the whole maps.",
        *convergence(points[points["measure"] == "accuracy"].rename(columns={"value": "accuracy"})),
    ]
    sentences += who_trained(points)
    if "teacher_gap" in set(points["measure"]):
        sentences.append(
            "Teacher gap: accuracy on the classes minus that on balanced labels from a fixed random network, in "
            "percentage points."
        )
    for measure in MEASURES:
        bars = " and ".join(dict.fromkeys(i for i in points["interval"][points["measure"] == measure] if i))
        sentences += [f"Bars of {measure.replace('_', ' ')}: {bars}."] if bars else []
    return " ".join([*sentences, f"Dotted: chance ({100 * first['chance']:.3g}%).", *protocol(points)])
