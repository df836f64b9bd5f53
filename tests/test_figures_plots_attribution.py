"""The attribution figure and its command: the drawn bars are the points, on the page, and said in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from analysis.attribution import PARTS, attribution
from figures.commands.attribution import attribution_figure
from figures.plots.attribution import caption, draw
from layerwise.commandline import call
from tests.figure_checks import check_marks, check_page, check_texts
from tests.probe_rows import table, write_run
from tests.test_analysis_attribution import study

ROWS = (("pooling", "width", "relu"), ("training", "left"))


@pytest.mark.parametrize(("size", "width"), [("single", 85.0), ("double", 170.0)])
def test_page_texts_and_marks(size: str, width: float) -> None:
    figure = draw(attribution(table(study(noise=0.02))), size)
    check_page(figure, width)
    check_texts(figure)
    check_marks(figure)


def test_bars_and_intervals_are_the_points() -> None:
    points = attribution(table(study(noise=0.02)))
    axes = draw(points, "double").axes
    assert [one.get_title() for one in axes[:3]] == ["$k$ = 1", "$k$ = 2", "$k$ = 3"]
    assert [one.get_ylabel() for one in axes[::3]] == ["gain by architecture (points)", "gain by training (points)"]
    for place, one in enumerate(axes):
        own = points[points["k"] == place % 3 + 1].set_index("part")
        for part, bars in zip(ROWS[place // 3], one.containers, strict=True):
            expected = own.loc[part]
            assert [bar.get_height() for bar in bars] == pytest.approx((100 * expected["value"]).tolist())
            middles = [bar.get_x() + bar.get_width() / 2 for bar in bars]
            assert [round(x) for x in middles] == expected["depth"].tolist()
        expected_ends = 100 * own.loc[list(ROWS[place // 3]), ["ci_low", "ci_high"]].to_numpy()
        assert np.sort(intervals(one), axis=0) == pytest.approx(np.sort(expected_ends, axis=0))


def intervals(axes: Axes) -> list[tuple[float, float]]:
    collections = [one for one in axes.collections if isinstance(one, LineCollection)]
    return [(low, high) for one in collections for (_, low), (_, high) in one.get_segments()]


def test_rows_of_one_measure_share_their_axis_and_hold_zero() -> None:
    axes = draw(attribution(table(study(noise=0.02)))).axes
    for row in (axes[:3], axes[3:]):
        assert len({one.get_ylim() for one in row}) == 1
        low, high = row[0].get_ylim()
        assert low <= 0 <= high


def test_parts_that_are_not_there_are_not_drawn() -> None:
    rows = [row for row in study(noise=0.01) if row["mode"] in ("greedy", "untrained")]
    figure = draw(attribution(table(rows)))
    assert len(figure.axes) == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["greedy $-$ untrained"]


def test_the_raw_pixels_are_a_dashed_line_that_the_caption_names() -> None:
    points = attribution(table(study(noise=0.02))).assign(pixels=0.4)
    axes = draw(points).axes
    drawn = [line for line in axes[0].lines if not line.get_label().startswith("_zero")]
    assert [list(line.get_ydata()) for line in drawn] == [[40.0, 40.0]]
    assert "Dashed: the raw pixels minus the pooled input" in caption(points)


def test_the_caption_says_what_is_drawn() -> None:
    words = caption(attribution(table(study(noise=0.02))))
    assert words.startswith("What each depth j gives over the 2x2-pooled input, in points of test accuracy")
    assert "k = 2: 6 networks (M = 8, 16; 3 seeds)" in words
    assert "Bars: seeds (paired t 95%, at least the images' share)." in words
    assert "Each linear fit is within 1e-6 nats of its optimum, proved." in words and "The images' share: " in words
    one = caption(attribution(table(study(seeds=1, widths=(8,)))).assign(interval=""))
    assert "1 network (M = 8; 1 seed)" in one and "No interval" in one


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("analysis.tables.identified", lambda path: (Path(path).stem, ""))
    by_run: dict[str, list[dict[str, Any]]] = {}
    for row in study(seeds=2, widths=(8,), ks=(1,)):
        by_run.setdefault(row["run_id"], []).append(row)
    runs = [str(write_run(tmp_path, name, rows)) for name, rows in by_run.items()]
    out = tmp_path / "attribution.pdf"
    assert call(attribution_figure, "attribution-figure", [*runs, "-o", str(out)]) == 0
    *paths, words = capsys.readouterr().out.splitlines()
    assert [Path(path).suffix for path in paths] == [".pdf", ".svg", ".png", ".csv", ".txt"]
    assert out.with_suffix(".txt").read_text() == words + "\n"
    before = {path: Path(path).read_bytes() for path in paths}
    assert call(attribution_figure, "attribution-figure", [*runs, "-o", str(out)]) == 1
    assert "exist already" in capsys.readouterr().err
    assert call(attribution_figure, "attribution-figure", [*runs, "-o", str(out), "--force"]) == 0
    assert {path: Path(path).read_bytes() for path in paths} == before
    assert set(PARTS) == set(line.split(",")[2] for line in out.with_suffix(".csv").read_text().splitlines()[1:])
