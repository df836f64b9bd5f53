"""Every point and the chance level are on it, and the break is where it helps."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from figures.kit import style
from figures.kit.axis import accuracy_axis, is_cut

PANEL_MM = 40.0


def points(accuracies: list[float], chance: float, half: float = 0.0) -> pd.DataFrame:
    made = pd.DataFrame({"accuracy": accuracies, "chance": chance, "depth": 1, "probe": "linear", "reads": "2x2"})
    return made.assign(
        ci_low=made["accuracy"] - half, ci_high=made["accuracy"] + half, pixels_low=math.nan, pixels_high=math.nan
    )


@pytest.mark.parametrize(
    ("accuracies", "chance", "broken"),
    [
        ([0.95, 0.97, 0.98], 0.1, True),
        ([0.30, 0.6, 0.8], 0.1, False),
        ([0.2, 0.3], 0.1, True),
        ([0.05, 0.3], 0.1, False),
        ([0.05, 0.06], 0.1, False),
        ([0.9], 0.1, True),
        ([0.1], 0.1, False),
        ([1.0, 1.0], 0.1, True),
        ([0.0, 1.0], 0.001, False),
    ],
)
def test_range_and_break(accuracies: list[float], chance: float, broken: bool) -> None:
    axis = accuracy_axis(points(accuracies, chance, half=0.005), PANEL_MM)
    assert axis.broken == broken
    inner = axis.top - axis.bottom
    for value in accuracies:
        assert axis.bottom < 100 * value - 0.5 and 100 * value + 0.5 < axis.top
        if broken:  # the data keep above the chance line, its label and the signs of the break
            assert (100 * value - 0.5 - axis.bottom) / inner * PANEL_MM > 6.0
    if not broken:  # room for the label under the line
        assert (100 * chance - axis.bottom) / inner * PANEL_MM > 3.5


@pytest.mark.parametrize("accuracies", [[0.95, 0.98], [0.3, 0.8], [0.4, 0.97], [0.1, 1.0], [0.5], [0.412, 0.413]])
def test_ticks_are_four_to_six_within_the_scale(accuracies: list[float]) -> None:
    axis = accuracy_axis(points(accuracies, 0.1), PANEL_MM)
    assert 4 <= len(axis.ticks) <= 7
    assert all(max(0, axis.bottom) <= tick <= min(100, axis.top) for tick in axis.ticks)


def test_points_without_interval_count() -> None:
    made = points([0.5, 0.9], 0.1).assign(ci_low=math.nan, ci_high=math.nan)
    assert accuracy_axis(made, PANEL_MM).top > 90


@pytest.mark.parametrize(("accuracies", "height"), [([0.3, 0.8], None), ([0.95, 0.98], 3.6 / PANEL_MM)])
def test_the_chance_line_is_drawn_and_labelled(accuracies: list[float], height: float | None) -> None:
    axis = accuracy_axis(points(accuracies, 37 / 360), PANEL_MM)
    axes = style.new_figure(85, 60).add_axes((0.2, 0.2, 0.7, 0.7))
    axis.apply(axes)
    (line,) = [line for line in axes.lines if line.get_label() == "_chance"]
    if height is None:
        height = (100 * 37 / 360 - axis.bottom) / (axis.top - axis.bottom)
    assert np.asarray(line.get_ydata()).tolist() == pytest.approx([height, height])
    assert [text.get_text() for text in axes.texts] == ["chance 10.3%"]
    assert bool([line for line in axes.lines if line.get_label() == "_break"]) == axis.broken


@pytest.mark.parametrize(
    ("pooled_input", "others", "below"),
    [
        (0.55, [0.97, 0.99], True),
        (0.30, [0.5, 0.6, 0.8], False),
        (0.30, [0.71, 0.75, 0.8], True),
        (0.96, [0.97, 0.99], False),
        (0.05, [0.09, 0.1], False),  # chance lies among the rest: no break to stand under
    ],
)
def test_a_pooled_input_that_would_squeeze_the_rest_stands_under_the_break(
    pooled_input: float, others: list[float], below: bool
) -> None:
    made = points([pooled_input, *others], 0.1)
    made.loc[0, "depth"] = 0
    axis = accuracy_axis(made, PANEL_MM)
    assert axis.input_below == below
    assert axis.broken or not below
    at_their_height = others if below else [pooled_input, *others]
    assert axis.bottom < 100 * min(at_their_height) and 100 * max(others) < axis.top
    if below:
        lowest = (100 * min(others) - axis.bottom) / (axis.top - axis.bottom)
        assert 0 < axis.input_height < lowest


def test_a_cnn_probe_of_the_input_is_a_point_as_any_other() -> None:
    made = points([0.55, 0.97, 0.99], 0.1).assign(probe="cnn-1", reads="")
    made.loc[0, "depth"] = 0
    assert not accuracy_axis(made, PANEL_MM).input_below


def test_the_raw_pixels_are_on_the_axis() -> None:
    made = points([0.6, 0.7], 0.1).assign(pixels_low=0.38, pixels_high=0.4)
    axis = accuracy_axis(made, PANEL_MM)
    assert axis.bottom < 38
    assert accuracy_axis(points([0.6, 0.7], 0.1), PANEL_MM).bottom > 38


def test_where_data_lie_below_chance_its_label_lies_below_them() -> None:
    axis = accuracy_axis(points([0.05, 0.8], 0.1, half=0.03), PANEL_MM)
    axes = style.new_figure(85, 60).add_axes((0.2, 0.2, 0.7, 0.7))
    axis.apply(axes)
    (label,) = axes.texts
    assert label.get_text() == "dotted: chance 10%"
    assert axis.bottom + label.get_position()[1] * (axis.top - axis.bottom) < 2.0 - 0.5


def test_an_interval_that_would_squeeze_all_others_is_cut_and_its_point_is_not() -> None:
    made = points([0.83, 0.84, 0.85, 0.75], 0.1, half=0.01)
    made.loc[3, ["ci_low", "ci_high"]] = [0.4, 1.0]
    axis = accuracy_axis(made, PANEL_MM)
    assert is_cut(made).tolist() == [False, False, False, True]
    assert 70 < axis.lowest < 75 and 86 < axis.top < 90


@pytest.mark.parametrize(
    "wide",
    [
        (0.74, 0.76),  # as the others
        (0.70, 0.80),  # wide, and the axis hardly longer
        (0.745, 0.86),  # wide, and no further than the others
    ],
)
def test_no_other_interval_is_cut(wide: tuple[float, float]) -> None:
    made = points([0.83, 0.84, 0.85, 0.75], 0.1, half=0.01)
    made.loc[3, ["ci_low", "ci_high"]] = wide
    axis = accuracy_axis(made, PANEL_MM)
    assert not is_cut(made).any()
    assert axis.lowest < 100 * min(wide) and axis.top > 100 * max(wide)


def test_where_all_intervals_are_wide_none_is_cut() -> None:
    assert not is_cut(points([0.83, 0.84], 0.1, half=0.3)).any()
    assert not is_cut(points([0.83, 0.84], 0.1).assign(ci_low=math.nan, ci_high=math.nan)).any()
