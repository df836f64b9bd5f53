"""Panels keep apart and on the page, and have their labels at the edge of the grid; their axes have margins."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from figures.kit import style
from figures.kit.panels import Grid, columns, limits


@pytest.mark.parametrize(
    ("size", "expected"), [("single", [1, 2, 2, 2, 2, 2]), ("double", [1, 2, 3, 4, 3, 3, 4, 4, 3])]
)
def test_columns(size: str, expected: list[int]) -> None:
    assert [columns(size, panels) for panels in range(1, len(expected) + 1)] == expected


@pytest.mark.parametrize("size", ["single", "double"])
@pytest.mark.parametrize("panels", [1, 2, 3, 5, 7])
def test_panels_are_apart_and_on_the_page(size: str, panels: int) -> None:
    grid = Grid(width=style.WIDTHS_MM[size], count=panels, columns=columns(size, panels), band=6.0)
    boxes = [grid.rectangle(place) for place in range(panels)]
    for left, bottom, width, height in boxes:
        assert left > 0 and bottom > 0 and left + width < 1 and bottom + height < 1 - 6.0 / grid.height
    for (l1, b1, w1, h1), (l2, b2, w2, h2) in itertools.combinations(boxes, 2):
        assert l1 + w1 < l2 or l2 + w2 < l1 or b1 + h1 < b2 or b2 + h2 < b1


def test_labels_stand_at_the_edge_of_the_grid() -> None:
    grid = Grid(width=85.0, count=3, columns=2)
    figure = style.new_figure(85.0, grid.height)
    labels = []
    for axes, row, column in grid.panels(figure):
        grid.label(axes, row, column, "x", "y")
        labels.append((row, column, axes.get_xlabel(), axes.get_ylabel()))
    assert labels == [(0, 0, "", "y"), (0, 1, "x", ""), (1, 0, "x", "y")]


def test_limits_have_a_margin_in_proportion_or_the_least_one() -> None:
    assert limits(np.array([1.0, np.nan, 3.0]), 0.1, 0.05) == pytest.approx((0.8, 3.2))
    assert limits(np.array([2.0, 2.0]), 0.1, 0.5) == (1.5, 2.5)
