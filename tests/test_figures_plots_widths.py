"""The figure against probe width: the points of the table, panels that can be read, what its caption says."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.widths import against_width
from figures.plots.widths import caption, draw
from layerwise.errors import UsageError
from tests.figure_checks import check_marks, check_texts
from tests.probe_rows import run_rows, table


def points(probes: tuple[str, ...] = ("cnn-1", "cnn-2"), depths: int = 5, teacher: bool = True) -> pd.DataFrame:
    rows = []
    for place, (probe, width) in enumerate(itertools.product(probes, (64, 128, 256))):
        rise = [0.6 + 0.01 * place + 0.05 * depth**0.5 for depth in range(depths)]
        rows += run_rows(rise, ((probe, width),))
        if teacher:
            gap = run_rows([value - 0.4 for value in rise], ((probe, width),), control="teacher", metric="teacher_gap")
            rows += gap
    return against_width(table(rows))


def lines(axes: Any) -> list[Any]:
    return [line for line in axes.lines if not str(line.get_label()).startswith("_")]


def test_the_drawn_points_are_those_of_the_table() -> None:
    made = points()
    figure = draw(made, "double")
    panels = [(m, p) for m in ("accuracy", "teacher_gap") for p in ("cnn-1", "cnn-2")]
    assert len(figure.axes) == 4
    for axes, (measure, probe) in zip(figure.axes, panels, strict=True):
        own = made[(made["measure"] == measure) & (made["probe"] == probe)]
        for line, (depth, expected) in zip(lines(axes), own.groupby("depth"), strict=True):
            assert line.get_label() == str(depth)
            assert np.asarray(line.get_ydata(), float) == pytest.approx(100 * expected["value"].to_numpy())
            doublings = np.log2(np.asarray(line.get_xdata(), float) / expected["probe_width"].to_numpy())
            assert np.abs(doublings).max() < 0.2
        assert axes.get_xscale() == "log"
        assert [text.get_text() for text in axes.get_xticklabels()] == ["64", "128", "256"]


def test_titles_labels_and_legend() -> None:
    figure = draw(points())
    assert [axes.get_title() for axes in figure.axes] == ["CNN-1", "CNN-2", "", ""]
    assert [axes.get_ylabel() for axes in figure.axes] == ["test accuracy (%)", "", "teacher gap (points)", ""]
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "probe width $M$", "probe width $M$"]
    (legend,) = figure.legends
    assert sorted(text.get_text() for text in legend.get_texts()) == [f"$j$ = {depth}" for depth in range(5)]


@pytest.mark.parametrize("size", ["single", "double"])
@pytest.mark.parametrize(
    "options",
    [{}, {"probes": ("cnn-1",)}, {"teacher": False}, {"depths": 9}],
    ids=["four", "one", "plain", "deep"],
)
def test_nothing_is_cut_and_nothing_overlaps(options: dict[str, Any], size: str) -> None:
    figure = draw(points(**options), size)
    check_texts(figure)
    check_marks(figure)


def test_more_probes_than_fit_are_refused() -> None:
    made = points(("cnn-1", "cnn-2", "cnn-3"))
    with pytest.raises(UsageError, match="3 probes do not fit a single figure: give 2 by --probe or --size double"):
        draw(made)
    assert len(draw(made, "double").axes) == 6


def test_the_caption_says_what_is_drawn() -> None:
    words = caption(points())
    assert words.startswith(
        "Accuracy of CNN-p probes against their width M on digits, test split (360 images): a line for each depth j "
        "(0 = input) of one network (k = 1, M = 64)."
    )
    assert "Teacher gap: accuracy on the classes minus that on balanced labels from a fixed random network" in words
    assert "Bars of accuracy: test images (Wilson 95%)." in words
    assert "Bars of teacher gap: paired over images (bootstrap 95%)." in words
    assert "Dotted: chance (10%)." in words
    assert "Teacher gap" not in caption(points(teacher=False))
