"""The legend takes no panel's place, fits the width, and is read in order."""

from __future__ import annotations

import pytest
from matplotlib.lines import Line2D

from figures.kit import style
from figures.kit.legend import figure_with_legend
from figures.kit.panels import Grid


def handles(count: int, words: str = "k = 1") -> list[Line2D]:
    return [Line2D([], [], label=f"{words} {number}") for number in range(count)]


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


@pytest.mark.parametrize("name", ["a long name of a network " * 10, "x" * 300, "W" * 200, "a_b-c $x$ " * 30])
def test_a_name_wider_than_the_page_is_broken_into_lines_on_it(name: str) -> None:
    label = style.line_label(name, None)
    with style.applied():
        figure, grid = figure_with_legend("single", 1, [*handles(2), Line2D([], [], label=label)])
        box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert style.plain("".join(texts[-1].split())) == "".join(name.split())
    assert grid.band > 0


def test_long_names_are_broken_before_a_legend_of_many_rows_stands_in_one_column() -> None:
    some, long = handles(8, "k = 3, end-to-end"), handles(2, "untrained, kaiming, no BatchNorm")
    with style.applied():
        figure, grid = figure_with_legend("single", 1, [*some, *long])
        few, _ = figure_with_legend("single", 1, handles(4, "untrained, kaiming, no BatchNorm"))
    (legend,) = figure.legends
    assert grid.band < 30 and max(text.get_text().count("\n") for text in legend.get_texts()) == 1
    assert not any("\n" in text.get_text() for text in few.legends[0].get_texts())
