"""The separability figure: the lines are the table, and nothing is cut or on top of another."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb

from analysis.separability import curves
from figures.plots.caption import caption
from figures.plots.separability import draw
from layerwise.errors import UserError
from tests.figure_checks import check_marks, check_page, check_texts, data_lines, intervals
from tests.probe_rows import row, run_rows, table

LINEAR = (("linear", 0),)
THREE = (("linear", 0), ("cnn-1", 64), ("cnn-2", 64))
SIX = (("linear-ovr", 0), *THREE, ("cnn-1", 256), ("cnn-2", 256))


def points(probes: Any = THREE, modes: Any = ("greedy",), high: float = 0.8, depths: int = 5, **fields: Any) -> Any:
    """Return the curves of k = 1, 2, 3, each rising from 0.3 to about `high`."""
    rows = []
    for mode, k in itertools.product(modes, (1, 2, 3)):
        rise = np.linspace(0, 1, depths) ** (0.3 * k)
        accuracies = [0.3, *(high - 0.2 * (mode == "untrained") - 0.1 * (1 - rise[1:]))]
        rows += run_rows([float(value) for value in accuracies], probes, mode=mode, k=k, **fields)
    return curves(table(rows))


def study(modes: Any = ("greedy", "parallel", "end-to-end"), widths: Any = (64, 128), seeds: int = 2) -> pd.DataFrame:
    """Return the rows of a study: every mode with k = 1, 2, 3, untrained networks with k = 1, 2, each of some seeds."""
    rows = []
    for place, mode in enumerate((*modes, "untrained")):
        for k, width, seed in itertools.product((1, 2, 3)[: 2 if mode == "untrained" else 3], widths, range(seeds)):
            rise = np.linspace(0, 1, 5)[1:] ** (0.3 * k)
            values = 0.75 - 0.15 * place - 0.1 * (1 - rise) + 0.02 * (width == 128) + 0.02 * seed
            named = {"mode": mode, "k": k, "width": width, "aux_width": 64, "seed": seed}
            rows += run_rows([0.3, *map(float, values)], (("linear-ovr", 0), ("cnn-1", 64), ("cnn-2", 64)), **named)
    return table(rows)


def pooled() -> list[dict[str, Any]]:
    """Return the rows of one network with three poolings, whose inputs lie far apart."""
    sides = (1, 2, 4)
    return [one for side in sides for one in run_rows([0.1 + 0.2 * side, 0.92, 0.9 + 0.02 * side], pooling=side)]


def failing() -> pd.DataFrame:
    """Return the rows of a study in which one network end to end failed."""
    rows = study(("greedy", "end-to-end"))
    failed = (rows["mode"] == "end-to-end") & (rows["k"] == 1) & (rows["seed"] == 0) & (rows["depth"] > 1)
    return rows.assign(value=rows["value"].mask(failed, 0.1))


FIGURES: dict[str, Callable[[], pd.DataFrame]] = {
    "one failed": lambda: curves(failing()),
    "below chance": lambda: curves(table([r for k in (1, 2) for r in run_rows([0.3, 0.6, 0.08, 0.8], THREE, k=k)])),
    "widths": lambda: curves(study(("greedy",)).query("mode == 'greedy'"), by="width"),
    "poolings": lambda: curves(table(pooled()), by="pool"),
    "the study": lambda: curves(study()),
    "modes": lambda: curves(study(), by="mode"),
    "many seeds": lambda: curves(study(()).query("k == 1"), by="seed"),
    "a line at chance": lambda: curves(
        table([r for k, low in ((1, 0.12), (2, 0.85), (3, 0.9)) for r in run_rows([0.38, low, low - 0.02], THREE, k=k)])
    ),
    "one panel": lambda: points(LINEAR),
    "three": points,
    "six, untrained": lambda: points(SIX, ("greedy", "untrained")),
    "near the top": lambda: points(THREE, high=0.99),
    "eight depths": lambda: points(THREE, depths=9),
    "far from chance": lambda: points(LINEAR, high=0.9).query("depth > 0"),
    "low chance": lambda: points(LINEAR, chance=0.001),
}


@functools.cache
def made_for(name: str) -> pd.DataFrame:
    """Return the points of one of `FIGURES`, which take longer than to draw them; tests read them."""
    return FIGURES[name]()


@functools.cache
def figure_of(name: str, size: str) -> Any:
    """Return one of `FIGURES`, drawn; tests look at it."""
    return draw(made_for(name), size)


def legend_of(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def depths(line: Any) -> np.ndarray:
    return np.asarray(line.get_xdata(), dtype=float)


def test_the_drawn_points_are_those_of_the_table() -> None:
    made = points(SIX, ("greedy", "untrained"))
    panels = [panel for _, panel in made.groupby(["probe", "probe_width"], sort=False)]
    axes = draw(made).axes
    assert len(axes) == len(panels) == 6
    for ax, panel in zip(axes, panels, strict=True):
        drawn = []
        for line in ax.lines:
            if str(line.get_label()) in ("_chance", "_break"):
                continue
            x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
            assert np.all(np.abs(x - np.round(x)) < 0.3)
            marked = range(len(x)) if line.get_markevery() is None else line.get_markevery()  # type: ignore[call-overload]
            drawn += [(round(x[place]), round(y[place], 9)) for place in marked]
        once = panel[~((panel["depth"] == 0) & panel.duplicated("depth"))]  # the input is that of all lines
        expected = zip(once["depth"], np.round(100 * once["accuracy"], 9), strict=True)
        assert sorted(drawn) == sorted(expected)


def test_each_line_has_its_own_values() -> None:
    made = points(LINEAR)
    for line, k in zip(data_lines(draw(made).axes[0]), (1, 2, 3), strict=True):
        assert line.get_label() == f"$k$ = {k}"
        expected = 100 * made.query("k == @k and depth > 0")["accuracy"]
        assert np.asarray(line.get_ydata()).tolist() == pytest.approx(list(expected))


def test_the_intervals_are_those_of_the_table() -> None:
    made = points(LINEAR)
    made.loc[3, ["ci_low", "ci_high", "interval"]] = [np.nan, np.nan, ""]
    segments = intervals(draw(made).axes[0])
    drawn = sorted((round(s[0][1], 9), round(s[1][1], 9)) for s in segments)
    # The pooled input stands under the break here, at no height, and so has no bar.
    shown = made.drop(index=3)
    shown = shown[shown["depth"] > 0]
    expected = zip(round(100 * shown["ci_low"], 9), round(100 * shown["ci_high"], 9), strict=True)
    assert drawn == sorted(expected)


def test_an_interval_that_is_cut_ends_in_an_arrowhead() -> None:
    made = made_for("one failed")
    axes = draw(made, "double").axes[0]
    bottom, top = axes.get_ylim()
    drawn = made[(made["probe"] == "linear-ovr") & (made["depth"] > 0)]
    for end, beyond in (("ci_low", 100 * drawn["ci_low"] < bottom), ("ci_high", 100 * drawn["ci_high"] > top)):
        heads = [line for line in axes.lines if line.get_label() == "_cut"]
        ends = [np.min(line.get_ydata()) for line in heads]
        at = [y < 50 for y in ends] if end == "ci_low" else [y > 50 for y in ends]
        marked = sum(len(line.get_xdata()) for line, here in zip(heads, at, strict=True) if here)
        assert marked == beyond.sum() > 0


def test_the_input_stands_apart_of_linear_and_of_cnn_probes() -> None:
    probes = (("linear", 0), ("cnn-1", 64))
    rows = [row for k in (1, 2, 3) for row in run_rows([0.3 + 0.01 * k, 0.6, 0.7, 0.8], probes, k=k)]
    linear, cnn = draw(curves(table(rows))).axes
    for axes in (linear, cnn):
        assert [min(np.round(depths(line))) for line in data_lines(axes)] == [1, 1, 1]
        hollow = [line for line in axes.lines if line.get_label() == "_input"]
        assert [np.round(depths(line)).tolist() for line in hollow] == [[0], [0], [0]]
        assert all(line.get_markerfacecolor() == "white" and line.get_linestyle() == "None" for line in hollow)
        assert [line.get_markeredgecolor() for line in hollow] == [line.get_color() for line in data_lines(axes)]
    assert "no rate was chosen at it, so a gain over it is no result" in caption(curves(table(rows)))
    assert "no rate was chosen" not in caption(curves(table(rows)).query("depth > 0 or probe == 'linear'"))


def test_an_input_that_all_lines_share_is_drawn_once_and_in_no_line_s_colour() -> None:
    figure = draw(points())
    linear, cnn, _ = figure.axes
    for axes in (linear, cnn):
        (sign,) = [line for line in axes.lines if line.get_label() == "_input"]
        assert depths(sign).tolist() == [0.0]
        assert sign.get_color() not in [line.get_color() for line in data_lines(axes)]
        assert sign.get_markerfacecolor() == "white"
        assert all(depths(line)[0] > 0.5 for line in data_lines(axes))
    assert "input (linear: 2x2-pooled)" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert "input" in legend_of(draw(points((("cnn-1", 64),))))
    assert "2x2-pooled input" in legend_of(draw(points((("linear", 0),))))


@pytest.mark.parametrize(("difference", "signs"), [(0.0009, 1), (0.0028, 2)])
def test_inputs_that_differ_by_less_than_a_tenth_of_a_point_are_one(difference: float, signs: int) -> None:
    made = curves(table(run_rows([0.3, 0.5]) + run_rows([0.3 + difference, 0.6], k=2)))
    drawn = [line for line in draw(made).axes[0].lines if line.get_label() == "_input"]
    assert len(drawn) == signs


def test_a_line_at_chance_does_not_eat_the_axis() -> None:
    rows = [row for k, low in ((1, 0.12), (2, 0.85), (3, 0.9)) for row in run_rows([0.38, low, low - 0.02], k=k)]
    made = curves(table(rows))
    (axes,) = draw(made).axes
    bottom, top = axes.get_ylim()
    failed, *others = data_lines(axes)
    assert bottom > 70 and all(np.min(line.get_ydata()) > bottom + 0.25 * (top - bottom) for line in others)
    assert np.ptp(np.asarray(failed.get_ydata())) == 0.0 and np.min(failed.get_ydata()) > bottom
    assert "10.0 to 12.0%" in [text.get_text() for text in axes.texts]
    words = "under the break and at no height: depths near chance (10.0 to 12.0%) of k = 1."
    assert words in caption(made) and words not in caption(curves(table(rows).query("k > 1")))


def test_without_an_input_the_axis_begins_where_the_points_do() -> None:
    (axes,) = draw(points(LINEAR).query("depth > 0")).axes
    assert axes.get_xlabel() == "depth $j$" and axes.get_xlim()[0] == 0.5


def test_more_lines_than_can_be_told_apart_are_refused() -> None:
    own = {"k": None, "width": None, "aux_width": None}
    rows = [row for net in range(43) for row in run_rows([0.3, 0.5], mode=f"net {net}", **own)]
    with pytest.raises(UserError) as error:
        draw(curves(table(rows)))
    assert str(error.value) == (
        "43 lines cannot be told apart in one figure, 42 can. Give fewer runs, or extract those that are to be "
        "averaged under the same --label, each with its own --seed."
    )
    made = curves(table(rows[:-2]))
    signs = {(line.get_color(), line.get_marker()) for line in data_lines(draw(made, "double").axes[0])}
    assert len(signs) == 42
    assert list(dict.fromkeys(made["mode"]))[8:11] == ["net 8", "net 9", "net 10"]


def test_of_one_k_modes_have_markers_of_their_own() -> None:
    (axes,) = draw(curves(study(widths=(64,), seeds=1).query("k == 2"), ["linear-ovr"])).axes
    assert len({line.get_marker() for line in data_lines(axes)}) == 4


def test_the_raw_pixels_are_named_in_the_legend() -> None:
    rows = run_rows([0.3, 0.5, 0.6])
    assert "raw pixels" in legend_of(
        draw(curves(table([*rows, row(0.41, run_id=rows[0]["run_id"], depth=0, pooling=0)])))
    )
    assert "raw pixels" not in legend_of(draw(curves(table(rows))))


def test_a_panel_alone_on_the_page_is_not_flat() -> None:
    for made in (made_for("one panel"), curves(table([r for k in range(1, 20) for r in run_rows([0.3, 0.5], k=k)]))):
        box = draw(made, "double").axes[0].get_position()
        figure = draw(made, "double")
        assert box.width * figure.get_figwidth() <= 2.05 * box.height * figure.get_figheight()


def test_titles_and_labels() -> None:
    figure = draw(points(SIX))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        "linear",
        "linear (one-vs-rest)",
        *("CNN-1, width 64", "CNN-1, width 256", "CNN-2, width 64", "CNN-2, width 256"),
    ]
    assert [axes.get_ylabel() for axes in figure.axes] == ["test accuracy (%)", ""] * 3
    assert [axes.get_xlabel() for axes in figure.axes] == [""] * 4 + ["depth $j$ (0 = input)"] * 2


def test_the_pooling_is_named_where_panels_differ_in_it() -> None:
    rows = run_rows([0.3, 0.5]) + run_rows([0.3, 0.5], pooling=4)
    assert [axes.get_title() for axes in draw(curves(table(rows))).axes] == ["linear, 2x2", "linear, 4x4"]


def test_panels_share_the_axis() -> None:
    limits = {axes.get_ylim() for axes in draw(points()).axes}
    assert len(limits) == 1


@pytest.mark.parametrize("size", ["single", "double"])
@pytest.mark.parametrize("name", FIGURES)
def test_depths_are_whole_numbers(name: str, size: str) -> None:
    for axes in figure_of(name, size).axes:
        assert all(tick == round(tick) for tick in axes.get_xticks())


@pytest.mark.parametrize(("size", "width"), [("single", 85), ("double", 170)])
@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_and_nothing_overlaps(name: str, size: str, width: int) -> None:
    figure = figure_of(name, size)
    assert figure.get_figwidth() * 25.4 == pytest.approx(width)
    check_texts(figure)
    check_marks(figure)


def test_the_figure_leaves_no_trace_in_pyplot() -> None:
    import sys

    before = "matplotlib.pyplot" in sys.modules
    draw(points(LINEAR))
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_many_kinds_of_network_stay_within_their_depth() -> None:
    rows = [row for k in range(1, 9) for row in run_rows([0.3, 0.5], k=k)]
    rows += run_rows([0.3, 0.6], mode="extracted", k=None, width=None, aux_width=None, seed=None)
    made = curves(table(rows))
    lines = [line for line in draw(made).axes[0].lines if line.get_label() not in ("_chance", "_break")]
    shifts = np.concatenate([line.get_xdata() for line in lines])
    assert np.max(np.abs(shifts - np.round(shifts))) < 0.25
    assert isinstance(made, pd.DataFrame) and len(lines) == 10


def test_the_raw_pixels_stand_once_in_a_linear_panel_beside_the_input_and_off_its_signs() -> None:
    rows = [row for k in (1, 2, 3) for row in run_rows([0.3, 0.5, 0.6], (("linear", 0), ("cnn-1", 64)), k=k)]
    pixels = [row(0.41, run_id=f"-{k}--", k=k, depth=0, pooling=0) for k in (1, 2, 3)]
    made = curves(table(rows + pixels))
    first, second = draw(made).axes
    (sign,) = [line for line in first.lines if line.get_label() == "_pixels"]
    assert np.asarray(sign.get_ydata()).tolist() == pytest.approx([41.0])
    others = [float(x) for line in first.lines for x in depths(line) if line.get_label() == "_input"]
    assert others
    assert all(float(depths(sign)[0]) < x - 0.05 for x in others)
    assert float(depths(sign)[0]) > -0.5
    assert not [line for line in second.lines if line.get_label() == "_pixels"]


def test_raw_pixels_that_are_not_fitted_alike_stand_apart_and_are_both_said() -> None:
    rows = [row for k in (1, 2) for row in run_rows([0.3, 0.5, 0.6], k=k, refit=2 - k)]
    rows += [
        row(0.36, run_id="-1--", k=1, depth=0, pooling=0),
        row(0.35, run_id="-1--", k=1, depth=0, pooling=0, refit=0),
    ]
    rows += [row(0.26, run_id="-2--", k=2, depth=0, pooling=0, refit=0)]
    made = curves(table(rows))
    signs = [line for line in draw(made).axes[0].lines if line.get_label() == "_pixels"]
    assert sorted(float(np.asarray(sign.get_ydata())[0]) for sign in signs) == pytest.approx([26.0, 36.0])
    assert "grey diamonds: the raw pixels (26.0%, 36.0%)" in caption(made)


def bands(axes: Any) -> list[PolyCollection]:
    return [area for area in axes.collections if isinstance(area, PolyCollection)]


def test_untrained_networks_of_several_seeds_are_bands_behind_the_lines() -> None:
    made = curves(study(("greedy",)))
    figure = draw(made, "double")
    for axes, (_, panel) in zip(figure.axes, made.groupby("probe", sort=False), strict=True):
        first = 1  # the input is that of the trained networks
        drawn = bands(axes)
        assert [bool(area.get_hatch()) for area in drawn] == [True, False]  # k = 1, without BatchNorm, is hatched
        for area, k in zip(drawn, (1, 2), strict=True):
            line = panel.query(f"mode == 'untrained' and k == {k} and depth >= {first}")
            x, y = area.get_paths()[0].vertices.T
            for name, agreed in (("ci_low", min), ("ci_high", max)):
                ends = [agreed(y[np.isclose(x, depth)]) for depth in line["depth"]]
                assert ends == pytest.approx(list(100 * line[name]))
            assert bool(area.get_hatch()) == (area.get_zorder() == max(each.get_zorder() for each in drawn))
            assert area.get_zorder() < min(
                mark.get_zorder() for mark in data_lines(axes) if mark.get_marker() != "None"
            )
        means = [mark for mark in data_lines(axes) if mark.get_marker() == "None"]
        assert [str(mark.get_label()) for mark in means] == ["untrained, no BatchNorm", "untrained"]
        for mark, k in zip(means, (1, 2), strict=True):
            expected = 100 * panel.query(f"mode == 'untrained' and k == {k} and depth >= {first}")["accuracy"]
            assert np.asarray(mark.get_ydata()).tolist() == pytest.approx(list(expected))


@pytest.mark.parametrize(
    "rows",
    [
        study(("greedy",), seeds=1, widths=(64,)),
        study(()),
        pd.concat([study(("greedy",)), study(()).query("k == 2").assign(k=3, run=lambda rows: "3" + rows["run"])]),
    ],
    ids=["one seed", "nothing beside", "three of them"],
)
def test_else_they_are_lines(rows: pd.DataFrame) -> None:
    figure = draw(curves(rows))
    assert not any(bands(axes) for axes in figure.axes)
    (legend,) = figure.legends
    assert "$k$ = 2, untrained" in [text.get_text() for text in legend.get_texts()]


def test_a_band_is_named_by_its_k_where_batchnorm_does_not_tell() -> None:
    (legend,) = draw(curves(study(("greedy",)).assign(batch_norm=1))).legends
    names = [text.get_text() for text in legend.get_texts()]
    assert {"$k$ = 1, untrained", "$k$ = 2, untrained"} < set(names)


def test_untrained_networks_of_other_first_weights_are_lines_beside_the_bands() -> None:
    rows = study()
    other = rows[rows["mode"] == "untrained"].assign(mode="untrained, kaiming", value=lambda rows: rows["value"] + 0.02)
    figure = draw(curves(pd.concat([rows, other.assign(run="other " + other["run"])]), ["linear-ovr"]), "double")
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"untrained, kaiming", "untrained, kaiming, no BatchNorm", "untrained, no BatchNorm", "untrained"} < set(
        names
    )
    assert len(bands(figure.axes[0])) == 2


def test_a_column_of_the_legend_holds_a_mode() -> None:
    (legend,) = figure_of("the study", "double").legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *(f"$k$ = {k}, {mode}" for mode in ("greedy", "parallel", "end-to-end") for k in (1, 2, 3)),
        *("untrained, no BatchNorm", "untrained", "input (linear: 2x2-pooled)"),
    ]


@pytest.mark.parametrize(
    ("by", "labels"),
    [
        ("mode", ["greedy"]),
        ("width", ["$M$ = 64", "$M$ = 128"]),
        ("seed", ["seed 0", "seed 1"]),
    ],
)
def test_lines_stand_for_the_factor_asked_for(by: str, labels: list[str]) -> None:
    made = curves(study(("greedy",)).query("mode == 'greedy'"), by=by)
    figure = draw(made, "double")
    for axes, (_, panel) in zip(figure.axes, made.groupby("probe", sort=False), strict=True):
        drawn = data_lines(axes)
        assert [line.get_label() for line in drawn] == labels
        for line, (_, expected) in zip(
            drawn, panel.groupby(made.columns.intersection(["mode", by]).tolist()), strict=True
        ):
            values = 100 * expected.query("depth > 0")["accuracy"]
            assert np.asarray(line.get_ydata()).tolist() == pytest.approx(list(values))
    lightness = [np.dot(to_rgb(line.get_color()), [0.299, 0.587, 0.114]) for line in data_lines(figure.axes[0])]
    assert lightness == sorted(lightness, reverse=True)


def test_poolings_are_lines_of_one_panel() -> None:
    (axes,) = draw(curves(table(pooled()), by="pool")).axes
    assert axes.get_title() == "linear"
    assert [line.get_label() for line in data_lines(axes)] == ["1x1", "2x2", "4x4"]
    assert "30.0, 50.0, 90.0%" in [text.get_text() for text in axes.texts]


def test_relative_depth() -> None:
    foreign = run_rows([0.3] * 13, mode="net", k=None, width=None, aux_width=None, blocks=12)
    made = curves(table(run_rows([0.3, 0.5, 0.6, 0.7, 0.8]) + foreign))
    (axes,) = draw(made, relative=True).axes
    assert axes.get_xlabel() == "relative depth $j/J$ (0 = input)"
    for line, blocks in zip(data_lines(axes), (4, 12), strict=True):
        expected = np.arange(1, blocks + 1) / blocks
        assert np.abs(depths(line) - expected).max() < 0.1 / 12
    with pytest.raises(UserError) as error:
        draw(made.assign(blocks=pd.array([pd.NA] * len(made), dtype="Int64")), relative=True)
    assert str(error.value) == (
        "the results of an older version do not say how deep the networks are, so depth cannot be relative. "
        "Probe again with `probe-depth --force`, or leave out --relative."
    )


@pytest.mark.parametrize(("size", "width"), [("single", 85), ("double", 170)])
def test_the_page_of_the_study(size: str, width: float) -> None:
    check_page(figure_of("the study", size), width)
