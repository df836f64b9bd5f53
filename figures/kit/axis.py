"""The accuracy axis: its range, its ticks, and how a chance level far below the data is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from analysis.separability import VECTOR
from figures.kit import style
from figures.kit.panels import limits, round_ticks

# Below the data: room for the chance line with its label under it, and above that for the signs of the break.
_LABEL_MM, _BREAK_MM = 3.6, 2.6
# Between the two: room for the pooled input, where it lies so far below the rest that it would squeeze it.
# And for points near chance, within this share of the way from it to the best.
_INPUT_MM, _SQUEEZED = 3.4, 2.0
_FAILED_MM, _NEAR_CHANCE = 2.6, 0.1
_TYPE_SIZE = 6.5
# Above and below the data; half a point at least, since accuracies that are all the same would have no axis.
_MARGIN, _LEAST_MARGIN = 0.05, 0.5
# An interval over this many times as wide as their median is cut where with it the axis would be that much longer.
_WIDE, _LONGER = 4.0, 1.5
_FEWEST_TICKS = 4  # between two or three alone a reader cannot tell a value to a point


@dataclass(frozen=True, kw_only=True)
class AccuracyAxis:
    """An axis in percent of accuracy, alike in all panels.

    Attributes:
        bottom, top: limits of the axis, in percent.
        lowest: limit of the data above the chance line and the break, in percent.
        ticks: where the axis has a number, in percent.
        chance: chance level, in percent.
        failed_below: whether points that `is_failed` names stand under the break, on the chance line's shoulder.
        broken: whether the chance line stands under a break of the axis and not at its height.
        input_below: whether the pooled input, too, stands under the break, with its value beside it.
        panel_mm: height of a panel, as if its type had the size of `style`.
        scale: how much larger its type is than that.
    """

    bottom: float
    top: float
    lowest: float
    ticks: tuple[float, ...]
    chance: float
    broken: bool
    input_below: bool
    failed_below: bool
    panel_mm: float
    scale: float = 1.0

    @property
    def type_size(self) -> float:
        return _TYPE_SIZE * self.scale

    @property
    def input_height(self) -> float:
        """Height of the pooled input under the break, as a share of the panel's."""
        return (_LABEL_MM + self.failed_below * _FAILED_MM + _INPUT_MM / 2) / self.panel_mm

    def place(self, points: pd.DataFrame) -> pd.Series:
        """Return the height of each point, in the unit of the axis; those that failed stand side by side at none."""
        share = (_LABEL_MM + _FAILED_MM / 2) / self.panel_mm
        return (100 * points["accuracy"]).mask(points["failed"], self.bottom + share * (self.top - self.bottom))

    def name_failed(self, axes: Axes, failed: pd.DataFrame) -> None:
        """Write the accuracies of points that failed, which stand at no height, under them."""
        if len(failed):
            axes.text(
                0.01,
                (_LABEL_MM - 0.6) / self.panel_mm,
                span(failed),
                transform=axes.transAxes,
                ha="left",
                va="top",
                fontsize=self.type_size,
            )

    def apply(self, axes: Axes) -> None:
        """Give `axes` these limits and ticks, and draw the chance line with its label.

        The label stands in the room that is kept below the data: under the line, or where data lie below chance further
        down, and then it says which line is meant.
        """
        axes.set_ylim(self.bottom, self.top)
        axes.yaxis.set_major_locator(FixedLocator(self.ticks))
        height = _LABEL_MM / self.panel_mm
        if not self.broken:
            height = (self.chance - self.bottom) / (self.top - self.bottom)
        axes.plot(
            [0, 1],
            [height, height],
            transform=axes.transAxes,
            color="black",
            linewidth=0.8,
            linestyle=style.CHANCE_DASHES,
            label="_chance",
            zorder=1,
        )
        is_under_line = self.broken or self.lowest >= self.chance
        axes.text(
            1.0,
            (_LABEL_MM - 0.6) / self.panel_mm,
            f"{'' if is_under_line else 'dotted: '}chance {self.chance:.3g}%",
            transform=axes.transAxes,
            ha="right",
            va="top",
            fontsize=self.type_size,
        )
        if self.broken:
            self._draw_break(axes)

    def _draw_break(self, axes: Axes) -> None:
        """Cut the axis line by two short strokes, the sign that it jumps there."""
        rows = self.failed_below * _FAILED_MM + self.input_below * _INPUT_MM
        middle = (_LABEL_MM + rows + _BREAK_MM / 2) / self.panel_mm
        gap = 0.45 / self.panel_mm
        white: dict[str, Any] = {
            "transform": axes.transAxes,
            "clip_on": False,
            "color": "white",
            "label": "_break",
        }
        axes.plot([0, 0], [middle - gap, middle + gap], linewidth=2.0, zorder=4, solid_capstyle="butt", **white)
        stroke = [(-1, -0.5), (1, 0.5)]
        for end in (middle - gap, middle + gap):
            axes.plot(
                [0, 0],
                [end, end],
                transform=axes.transAxes,
                clip_on=False,
                color="black",
                linestyle="none",
                marker=stroke,
                markersize=5,
                markeredgewidth=0.6,
                label="_break",
                zorder=5,
            )


def accuracy_axis(curves: pd.DataFrame, panel_mm: float, scale: float = 1.0) -> AccuracyAxis:
    """Return the axis that shows every point, the chance level, and every interval that `is_cut` does not name.

    Points that failed go under the break. The axis is broken where the gap between the data and chance would take more
    than a third of it. The pooled input goes under the break where the axis would be over twice as long with it as
    without.
    """
    panel_mm /= scale
    chance = 100 * float(curves["chance"].iloc[0])
    failed = is_failed(curves)
    curves, failed_below = curves[~failed], bool(failed.any())
    low, high = _extent(curves)
    others = curves[~is_pooled_input(curves)]
    input_below = False
    if len(others):
        low_others, high_others = _extent(others)
        input_below = chance < low_others and high - low > _SQUEEZED * (high_others - low_others)
        low = low_others if input_below else low
    broken = input_below or failed_below or low - chance > (high - chance) / 3
    lowest, top = limits(np.array([low, high]), _MARGIN, _LEAST_MARGIN)
    lowest = lowest if broken else min(lowest, chance)
    below_mm = _LABEL_MM + broken * _BREAK_MM + input_below * _INPUT_MM + failed_below * _FAILED_MM
    bottom = lowest - (top - lowest) * below_mm / (panel_mm - below_mm)
    ticks = _ticks(max(0.0, lowest), min(100.0, top))
    return AccuracyAxis(
        bottom=bottom, top=top, lowest=lowest, ticks=ticks, chance=chance, broken=broken, input_below=input_below,
        failed_below=failed_below, panel_mm=panel_mm, scale=scale,
    )  # fmt: skip


def is_pooled_input(points: pd.DataFrame) -> pd.Series:
    """Return which points are a probe of A x_0: few features, no part of the line. A vector is not averaged."""
    return (points["depth"] == 0) & ~points["reads"].isin(["", VECTOR])


def is_apart(points: pd.DataFrame) -> pd.Series:
    """Return which points stand apart from their line: the pooled input, and the input of a CNN probe.

    A CNN probe's rate is chosen at blocks alone, so that what it gains over the input is no result.
    """
    return is_pooled_input(points) | ((points["depth"] == 0) & points["probe"].str.startswith("cnn-"))


def is_failed(points: pd.DataFrame) -> pd.Series:
    """Return which points are near chance, where with them the axis would be over twice as long.

    A network that did not train, or lost at a depth what it had: its points would make all others too small to read.
    """
    chance, best = points["chance"].iloc[0], points["accuracy"].max()
    low = points["accuracy"] <= chance + _NEAR_CHANCE * (best - chance)
    others = points[~low & ~is_pooled_input(points)]
    if len(others) < 2:  # a single point needs no axis of its own
        return low & False
    least, greatest = _extent(others)
    return (
        low
        & ~is_pooled_input(points)
        & (greatest - 100 * points["accuracy"][low].min() > _SQUEEZED * (greatest - least))
    )


def span(points: pd.DataFrame) -> str:
    """Return "10.0 to 12.3%", or the one accuracy that all points have."""
    low, high = (f"{100 * end:.1f}" for end in (points["accuracy"].min(), points["accuracy"].max()))
    return f"{low}%" if low == high else f"{low} to {high}%"


def is_cut(points: pd.DataFrame) -> pd.Series:
    """Return which points have an interval that the axis does not show whole.

    It is four times as wide as the median one or wider, and with such intervals the axis would be over 1.5 times as
    long: two seeds, one of which failed, would make all else too small to read.
    """
    others = points[~is_pooled_input(points)]
    wide = _is_wide(others)
    if not wide.any():
        return pd.Series(False, index=points.index)
    (low, high), (least, greatest) = _whole_extent(others), _whole_extent(others, wide)
    if high - low <= _LONGER * (greatest - least):
        return pd.Series(False, index=points.index)
    beyond = (100 * others["ci_low"] < least) | (100 * others["ci_high"] > greatest)
    return (wide & beyond).reindex(points.index, fill_value=False)


def _is_wide(points: pd.DataFrame) -> pd.Series:
    widths = points["ci_high"] - points["ci_low"]
    return widths > _WIDE * widths[widths > 0].median()


def _extent(points: pd.DataFrame) -> tuple[float, float]:
    """Return the least and the greatest of the values to be shown, in percent."""
    return _whole_extent(points, is_cut(points))


def _whole_extent(points: pd.DataFrame, without: pd.Series | None = None) -> tuple[float, float]:
    intervals = points if without is None else points[~without]
    values = [
        100 * table[column].to_numpy(dtype=float)
        for table, columns in ((intervals, ("ci_low", "ci_high")), (points, ("accuracy", "pixels_low", "pixels_high")))
        for column in columns
    ]
    every = np.concatenate(values)
    return float(np.nanmin(every)), float(np.nanmax(every))


def _ticks(low: float, high: float) -> tuple[float, ...]:
    """Return the roundest numbers from `low` to `high`, four at least."""
    shown: tuple[float, ...] = ()
    for intervals in range(_FEWEST_TICKS, 3 * _FEWEST_TICKS):
        ticks = round_ticks(intervals).tick_values(low, high)
        shown = tuple(float(tick) for tick in ticks if low <= tick <= high)
        if len(shown) >= _FEWEST_TICKS:
            break
    return shown
