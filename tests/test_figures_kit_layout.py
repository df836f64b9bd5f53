"""Tests of figures/layout.py: panels keep apart and on the page, and the legend takes no panel's place."""

from __future__ import annotations

import itertools

import pytest
from matplotlib.lines import Line2D

from figures.kit import style
from figures.kit.layout import Grid, columns, figure_with_legend


def handles(count: int, words: str = "k = 1") -> list[Line2D]:
    return [Line2D([], [], label=f"{words} {number}") for number in range(count)]


@pytest.mark.parametrize(
    ("size", "expected"), [("single", [1, 2, 2, 2, 2, 2]), ("double", [1, 2, 3, 4, 3, 3, 4, 4, 3])]
)
def test_columns(size: str, expected: list[int]) -> None:
    assert [columns(size, panels) for panels in range(1, len(expected) + 1)] == expected


@pytest.mark.parametrize("size", ["single", "double"])
@pytest.mark.parametrize("panels", [1, 2, 3, 5, 7])
def test_panels_are_apart_and_on_the_page(size: str, panels: int) -> None:
    grid = Grid(width=style.WIDTHS_MM[size], panels=panels, columns=columns(size, panels), band=6.0)
    boxes = [grid.rectangle(place) for place in range(panels)]
    for left, bottom, width, height in boxes:
        assert left > 0 and bottom > 0 and left + width < 1 and bottom + height < 1 - 6.0 / grid.height
    for (l1, b1, w1, h1), (l2, b2, w2, h2) in itertools.combinations(boxes, 2):
        assert l1 + w1 < l2 or l2 + w2 < l1 or b1 + h1 < b2 or b2 + h2 < b1


def test_outer_panels() -> None:
    grid = Grid(width=85.0, panels=3, columns=2)
    assert [grid.is_left(place) for place in range(3)] == [True, False, True]
    assert [grid.is_lowest(place) for place in range(3)] == [False, True, True]


def order(count: int, words: str = "k = 1") -> tuple[list[str], Grid]:
    with style.applied():
        figure, grid = figure_with_legend("single", 1, handles(count, words))
    (legend,) = figure.legends
    return [text.get_text()[-1] for text in legend.get_texts()], grid


def test_a_legend_in_one_row_keeps_its_order() -> None:
    assert order(3)[0] == ["0", "1", "2"]


def test_a_wide_legend_is_read_by_rows_and_a_high_one_by_columns() -> None:
    assert order(4, "words, some")[0] == ["0", "2", "1", "3"]
    assert order(6, "words, of some length")[0] == ["0", "1", "2", "3", "4", "5"]


def test_a_legend_of_more_rows_makes_the_figure_higher() -> None:
    assert order(6, "words, of some length")[1].height > order(3)[1].height


def test_the_legend_stands_in_the_free_place_where_it_fits() -> None:
    with style.applied():
        _, free = figure_with_legend("single", 3, handles(3))
        _, full = figure_with_legend("single", 4, handles(3))
        _, too_long = figure_with_legend("single", 3, handles(3, "words, wider than one of the panels"))
    assert (free.band, full.band > 0, too_long.band > 0) == (0.0, True, True)
