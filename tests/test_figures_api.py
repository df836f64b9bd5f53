"""The Python API of figures: the figure of the command, which a notebook shows by itself."""

from __future__ import annotations

import importlib.util
import io
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
import seaborn
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import figures
import probes
from figures.api import drawn
from layerwise.errors import UsageError, UserError
from layerwise.runfile import RunFile
from tests.figure_checks import check_texts, data_lines
from tests.probe_rows import run_rows, table

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "backend", ["nonsense", "module://matplotlib_inline.backend_inline", "module://no.such", "agg", ""]
)
def test_a_backend_that_is_not_there_stops_no_figure(backend: str) -> None:
    code = "import os, figures.api, matplotlib as m; print(m.rcParams._get_backend_or_none(), os.environ['MPLBACKEND'])"
    environment = {**os.environ, "MPLBACKEND": backend, "DISPLAY": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    # What a later pyplot takes is what the reader named, where it is there to be taken.
    there = backend in ("module://no.such", "agg")
    there |= "inline" in backend and importlib.util.find_spec("matplotlib_inline") is not None
    assert done.stdout.strip().lower() == f"{backend if there else 'none'} {backend}".lower().strip()


def test_a_matplotlibrc_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe: 3\n")
    code = "import figures.api"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert "UserError: matplotlib cannot be loaded ('utf-8' codec can't decode" in done.stderr
    assert "Mend or remove the matplotlibrc or MPLCONFIGDIR that it reads." in done.stderr


def test_the_figure_is_drawn_from_the_rows_beside_the_runs(own_run: Path) -> None:
    with pytest.raises(UserError, match="has no probe results"):
        figures.draw([own_run])
    with RunFile(own_run) as run:
        probes.fit(run, "linear", depths=[1, 2], device="cpu")
    figure = figures.draw([str(own_run)], ["linear"])
    (line, *_) = [line for line in figure.axes[0].lines if not str(line.get_label()).startswith("_")]
    assert len(line.get_xdata()) == 2
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_rows_in_the_place_of_runs_are_refused() -> None:
    with pytest.raises(UsageError, match="found DataFrame in the place of a run; expected the path of a run file"):
        figures.draw(table(run_rows([0.4, 0.6])))  # type: ignore[arg-type]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """Return the rows that `draw` reads here: k = 1, 2 with linear and CNN-1 probes."""
    probes = (("linear", 0), ("cnn-1", 64))
    made = [row for k in (1, 2) for row in run_rows([0.4, 0.6 + 0.1 * k, 0.7 + 0.1 * k], probes, k=k)]
    made = [one | {"module": f"blocks.{one['depth'] - 1}" if one["depth"] else "input"} for one in made]
    monkeypatch.setattr("figures.api.read", lambda runs: table(made))
    return table(made)


def page(panels: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(7, 3))
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(1, panels, place + 1) for place in range(panels)]


def legend(figure: Figure) -> list[str]:
    (found,) = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend() is not None)]
    return [text.get_text() for text in found.get_texts()]  # type: ignore[union-attr]


@pytest.mark.usefixtures("rows")
def test_panels_go_into_axes_of_one_s_own() -> None:
    figure, axes = page(2)
    assert figures.draw(["x.h5"], ax=np.array(axes)) is figure
    assert [one.get_title() for one in axes] == ["linear", "CNN-1, width 64"]
    assert [one.get_ylabel() for one in axes] == ["test accuracy (%)", ""]
    assert [one.get_xlabel() for one in axes] == ["depth $j$ (0 = input)"] * 2
    assert len({one.get_ylim() for one in axes}) == 1
    assert legend(figure) == ["$k$ = 1", "$k$ = 2", "input (linear: 2x2-pooled)"]
    assert len(figure.axes) == 2 and figure.get_figwidth() == 7
    one, (single,) = page(1)
    assert figures.draw(["x.h5"], ["linear"], ax=single) is one
    assert [line.get_label() for line in data_lines(single)] == ["$k$ = 1", "$k$ = 2"]


@pytest.mark.usefixtures("rows")
def test_beside_a_plot_of_the_reader_s_both_axes_have_their_names() -> None:
    _, axes = page(3)
    axes[0].plot([1, 2])
    figures.draw(["x.h5"], ax=axes[1:])
    assert [one.get_ylabel() for one in axes] == ["", "test accuracy (%)", ""]
    assert [one.get_xlabel() for one in axes] == ["", "depth $j$ (0 = input)", "depth $j$ (0 = input)"]


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("size", [(7, 5), (7, 2), (3.2, 1.8), (2, 1.5)])
@pytest.mark.parametrize("place", [1, 3])
def test_the_legend_covers_no_line_however_small_the_axes(size: tuple[float, float], place: int) -> None:
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    every = [figure.add_subplot(1, 3, n + 1) for n in range(3)] if place > 1 else [figure.add_subplot()]
    figures.draw(["x.h5"], "linear", ax=every[0])
    legend = every[0].get_legend()
    assert legend is not None
    box = legend.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    for line in data_lines(every[0]):
        points = line.get_transform().transform(np.column_stack([line.get_xdata(), line.get_ydata()]).astype(float))
        bits = [
            one + (other - one) * part for one, other in itertools.pairwise(points) for part in np.linspace(0, 1, 9)
        ]
        assert not any(box.contains(x, y) for x, y in bits)
    assert not any(box.overlaps(axes.bbox) for axes in every[1:])
    if (size, place) == ((7, 5), 1):
        assert box.x1 <= every[0].bbox.x1 and box.y0 >= every[0].bbox.y0


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("layout", ["constrained", "tight"])
def test_a_legend_below_the_axes_covers_no_word_after_a_layout_of_the_reader_s(layout: str) -> None:
    figure = Figure(figsize=(9, 3), layout=layout)
    FigureCanvasAgg(figure)
    every = list(figure.subplots(1, 3))
    figures.draw(["x.h5"], ax=every[:2])
    figure.canvas.draw()
    (legend,) = [axes.get_legend() for axes in every if axes.get_legend() is not None]
    box = legend.get_window_extent()
    assert box.y1 <= every[0].xaxis.label.get_window_extent().y0
    assert box.y0 >= 0


@pytest.mark.usefixtures("rows")
def test_one_probe_is_its_name() -> None:
    assert [axes.get_title() for axes in figures.draw(["x.h5"], "linear").axes] == ["linear"]


@pytest.mark.usefixtures("rows")
def test_in_axes_of_one_s_own_marks_are_ours_and_type_is_the_reader_s() -> None:
    own = {"lines.linewidth": 9, "lines.markersize": 30, "axes.titlesize": 21, "axes.labelsize": 15}
    with matplotlib.rc_context(own):
        _, (axes,) = page(1)
        figures.draw(["x.h5"], ["linear"], ax=axes)
    (line, *_) = data_lines(axes)
    assert (line.get_linewidth(), line.get_markersize()) == (1.1, 3.8)
    assert axes.title.get_fontsize() == 21
    assert [text.get_fontsize() for text in axes.texts if "chance" in text.get_text()] == [6.5 * 15 / 7.5]


@pytest.mark.usefixtures("rows")
def test_as_many_axes_as_panels_are_needed() -> None:
    _, axes = page(3)
    with pytest.raises(UsageError) as error:
        figures.draw(["x.h5"], ax=axes)
    assert str(error.value) == (
        "ax has 3 axes for 2 panels (linear; CNN-1, width 64). Give plt.subplots(1, 2)[1], or other probes."
    )
    with pytest.raises(UsageError, match="ax holds str, but takes axes of matplotlib, or an array of them."):
        figures.draw(["x.h5"], ax=["left", "right"])  # type: ignore[list-item]


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("labels", [["shallow", "deep"], {"k = 1": "shallow", "k = 2": "deep"}])
@pytest.mark.parametrize("palette", [["#010203", "red"], {"k = 1": "#010203", "k = 2": "red"}])
def test_words_and_colours_of_one_s_own(labels: Any, palette: Any) -> None:
    figure = figures.draw(["x.h5"], labels=labels, palette=palette)
    assert legend(figure)[:2] == ["shallow", "deep"]
    for axes in figure.axes:
        assert [line.get_color() for line in data_lines(axes)] == ["#010203", "red"]


@pytest.mark.usefixtures("rows")
def test_a_part_of_the_words_or_a_named_palette() -> None:
    assert legend(figures.draw(["x.h5"], labels={"k = 2": "deep"}))[:2] == ["$k$ = 1", "deep"]
    figure = figures.draw(["x.h5"], palette="deep")
    assert [line.get_color() for line in data_lines(figure.axes[0])] == list(seaborn.color_palette("deep", 2))


@pytest.mark.usefixtures("rows")
def test_the_caption_has_the_words_too() -> None:
    _, _, words = drawn([Path("x.h5")], None, "test", True, "k", False, "single", labels=["shallow", "deep"])
    assert "shallow; deep: one network each (M = 64);" in words


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": ["one"]}, "labels has 1 for 2 lines: k = 1; k = 2. Give one for each."),
        ({"labels": {"k = 3": "x"}}, "unknown line in labels 'k = 3'. Did you mean 'k = 2'? Choices: k = 1, k = 2."),
        (
            {"palette": "sunny"},
            "palette 'sunny' is none of seaborn or matplotlib; 'colorblind', 'deep' and 'viridis' are.",
        ),
        (
            {"palette": ["red", "bleu"]},
            "palette has 'bleu', which is no colour of matplotlib; '#D55E00' or 'tab:blue' is one.",
        ),
        ({"size": "large"}, "unknown size 'large'. Choices: single, double."),
        ({"xlabels": "layer"}, "unknown xlabels 'layer'. Choices: depth, module."),
        (
            {"xlabels": "module", "relative": True},
            "a layer's name is of a depth j, and relative=True draws j/J. Leave out one of the two.",
        ),
    ],
)
def test_what_cannot_be_drawn_is_said(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        figures.draw(["x.h5"], **given)
    assert str(error.value) == message


def test_names_of_layers_on_the_axis(rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = figures.draw(["x.h5"], xlabels="module")
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == ["input", "blocks.0", "blocks.1"]
        assert axes.get_xlabel() == "layer"
    check_texts(figure)
    other = rows.assign(module=rows["module"].where(rows["k"] == 1, "layer1"))
    monkeypatch.setattr("figures.api.read", lambda runs: other)
    with pytest.raises(UserError) as error:
        figures.draw(["x.h5"], xlabels="module")
    assert str(error.value) == (
        "depth 0 is the layer input and layer1 of the networks drawn, so the axis has no one name for it. Leave out "
        "xlabels='module', or draw a figure for each network."
    )


def test_names_that_do_not_all_fit_stand_at_every_second_or_third(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [one | {"module": f"features.{one['depth']}"} for one in run_rows([0.4] + [0.6] * 40, (("linear", 0),) * 1)]
    made += [one | {"probe": probe} for probe in ("linear-ovr", "knn") for one in made]
    monkeypatch.setattr("figures.api.read", lambda runs: table(made))
    figure = figures.draw(["x.h5"], xlabels="module")
    assert len(figure.axes) == 3 and len(figure.axes[2].get_xticklabels()) == 11
    check_texts(figure)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("settings", ["darkgrid", "default"])
def test_a_figure_is_saved_alike_after_another_style_was_set(settings: str, tmp_path: Path) -> None:
    def saved(suffix: str) -> bytes:
        out = io.BytesIO()
        figures.draw(["x.h5"]).savefig(out, format=suffix, metadata={"CreationDate": None} if suffix == "pdf" else {})
        return out.getvalue()

    expected = {suffix: saved(suffix) for suffix in ("pdf", "png")}
    with matplotlib.rc_context():
        if settings == "darkgrid":
            seaborn.set_theme(context="talk", style="darkgrid", font="serif")
        matplotlib.rcParams["pdf.fonttype"] = 3
        assert {suffix: saved(suffix) for suffix in ("pdf", "png")} == expected
    assert b"/FontFile2" in expected["pdf"] and b"/Type3" not in expected["pdf"]


def test_against_the_width_of_a_probe_there_are_no_lines_to_name() -> None:
    with pytest.raises(UsageError, match="lines against the width of a probe are depths. Leave out labels."):
        figures.draw(["x.h5"], by="probe-width", labels=["a"])
