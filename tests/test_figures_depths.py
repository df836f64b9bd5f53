"""The figures of depths and their command: what is drawn is the table, on the page, and said in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import analysis
import figures
import probes
from analysis.geometry import accuracy
from analysis.selection import select
from figures.commands.analyze import analyze_depth
from figures.commands.depth import depth_figure
from figures.plots import geometry, similarity
from layerwise.commandline import call
from layerwise.errors import UsageError, UserError
from tests.conftest import make_run
from tests.figure_checks import check_page, check_texts

SETS = ("geometry", "similarity")


@pytest.fixture(scope="module")
def tables(run_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    other = make_run(tmp_path_factory.mktemp("other") / "untrained.h5", mode="untrained")
    runs = [run_path, other]
    return analysis.depth_geometry(runs), analysis.depth_similarity(runs)


@pytest.mark.parametrize(("size", "width"), [("single", 85.0), ("double", 170.0)])
def test_pages_and_texts(tables: tuple[pd.DataFrame, pd.DataFrame], size: str, width: float) -> None:
    for figure in (figures.draw_geometry(tables[0], size=size), figures.draw_similarity(tables[1], size=size)):
        check_page(figure, width)
        check_texts(figure)


def test_lines_are_the_rows(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    rows = tables[0]
    figure = figures.draw_geometry(rows)
    first, runs = figure.axes[0], list(dict.fromkeys(rows["run"]))
    names = ["effective_rank", "effective_rank", "participation_ratio", "participation_ratio"]
    for line, measure, run in zip(first.lines, names, runs * 2, strict=True):
        expected = rows[(rows["measure"] == measure) & (rows["run"] == run)]
        assert np.asarray(line.get_xdata()).tolist() == expected["depth"].tolist()
        assert np.asarray(line.get_ydata()) == pytest.approx(expected["value"].to_numpy())
    assert [one.get_title(loc="left").count("\n") + 1 for one in figure.axes] == [2, 2, 3, 2, 3, 2, 1, 1]
    assert "greedy, k = 2; untrained, k = 2" in geometry.caption(rows)


def test_cells_are_the_pairs(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    rows = tables[1]
    keys, matrix = similarity.cells(rows, "cka")
    assert len(keys) == 6 and (np.diag(matrix) == 1).all()
    assert (similarity.cells(rows, "procrustes")[1].diagonal() == 0).all()
    row = rows[rows["measure"] == "cka"].iloc[4]
    places = [keys.index((row[f"run_{side}"], row[f"depth_{side}"])) for side in "ab"]
    assert matrix[places[0], places[1]] == matrix[places[1], places[0]] == row["value"]
    assert "greedy, k = 2 (A); untrained, k = 2 (B) arrange the same 359 test images" in similarity.caption(rows)


def test_a_value_that_is_missing_is_no_point_and_is_said(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    rows = tables[0].copy()
    rows.loc[(rows["measure"] == "nc3") & (rows["depth"] == 1), ["value", "ci_low", "ci_high"]] = np.nan
    rows.loc[rows["measure"] == "margin", ["value", "ci_low", "ci_high"]] = np.nan
    check_texts(figures.draw_geometry(rows, size="double"))
    assert "Missing: margin at depths 0, 1, 2; NC3 at depth 1." in geometry.caption(rows)


def test_own_axes_are_drawn_into(tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    own = Figure()
    axes = own.subplots(1, 3)
    assert figures.draw_geometry(tables[0], ["twonn", "nc1"], ax=axes[:2]) is own
    assert figures.draw_similarity(tables[1], "cka_biased", ax=axes[2]) is own
    assert [one.get_title(loc="left") for one in axes[:2]] == ["TwoNN", "NC1"]
    assert axes[2].get_title() == "biased CKA"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rows: figures.draw_geometry(rows, "nc5"), "unknown measure 'nc5'"),
        (lambda rows: figures.draw_geometry(rows, size="huge"), "unknown size 'huge'"),
        (lambda rows: figures.draw_geometry(rows, split="train"), "the rows are given, so split cannot change them"),
        (
            lambda rows: figures.draw_similarity(rows),
            "the table lacks depth_b or value, which rows of analysis.depth_si",
        ),
        (lambda rows: figures.draw_similarity(pd.DataFrame({"depth_b": [], "value": []})), "there is nothing to draw"),
        (lambda rows: figures.draw_geometry(rows, "nc1", ax=Figure().subplots(1, 2)), "2 axes were given for 1 panels"),
    ],
)
def test_what_cannot_be_drawn_is_said(tables: Any, make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(tables[0])


def analyze(*words: str | Path) -> int:
    return call(analyze_depth, "analyze-depth", [str(word) for word in words])


def test_the_command_writes_both_sets(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert analyze(own_run, "--size", "single", "--quiet") == 0
    out, err = capsys.readouterr()
    names = [own_run.with_name(f"run.{one}{end}") for one in SETS for end in (".pdf", ".svg", ".png", ".csv", ".txt")]
    assert [line for line in out.splitlines() if line.startswith(str(own_run.parent))] == list(map(str, names))
    assert err == ""
    assert all(path.stat().st_size for path in names)
    made = pd.read_csv(own_run.with_name("run.geometry.csv"))
    again = analysis.depth_geometry(own_run)
    assert made["value"].to_numpy() == pytest.approx(again["value"].to_numpy(), nan_ok=True)
    assert own_run.with_name("run.similarity.txt").read_text().rstrip("\n") in out
    before = names[0].read_bytes()
    assert analyze(own_run, "--size", "single", "--quiet") == 1
    assert "exist already. Give another name, or --force to replace them." in capsys.readouterr().err
    assert analyze(own_run, "--size", "single", "--quiet", "--force") == 0
    assert names[0].read_bytes() == before


def test_one_depth_has_no_similarity(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert analyze(own_run, "--depths", "1", "-o", own_run.with_name("one.pdf")) == 0
    assert own_run.with_name("one.geometry.pdf").exists() and not own_run.with_name("one.similarity.pdf").exists()
    assert "run_a" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "RUN"], "several runs were given, so what is written needs a name: -o NAME."),
        (["RUN", "-o", "FOLDER"], "FOLDER is a folder, but a name is needed: -o FOLDER/analysis, say."),
        (["RUN", "--size", "huge"], "unknown size 'huge'. Choices: single, double."),
        (["RUN", "--depths", "9"], "unknown depth '9'. Choices: 0, 1, 2."),
        (["RUN", "--subsample", "0"], "--subsample is 0, but takes a number of images, from 1 on."),
        (["RUN", "--pool", "-1"], "side is -1; expected that of the average A, from 1 on, or 0 for x_j as it is."),
    ],
)
def test_the_command_refuses(words: list[str], message: str, own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = own_run.parent
    given = [word.replace("RUN", str(own_run)).replace("FOLDER", str(folder)) for word in words]
    assert analyze(*given) == 2
    assert capsys.readouterr().err == f"analyze-depth: {message.replace('FOLDER', str(folder))}\n"
    assert sorted(path.name for path in folder.iterdir()) == ["run.h5"]


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_run(tmp_path_factory.mktemp("probed") / "run.h5", store="maps")
    probes.fit(path, "ncm", quiet=True)
    return path


def test_the_depth_figure_shows_accuracy_above_measures(probed: Path) -> None:
    figure = figures.draw_depths(probed, ["twonn", "nc1"], "ncm", size="double")
    check_page(figure, 170.0)
    check_texts(figure)
    assert [one.get_title(loc="left") for one in figure.axes] == ["accuracy of probe ncm (%)", "TwoNN", "NC1"]
    rows = analysis.read(probed)
    rows = rows[(rows["metric"] == "accuracy") & (rows["split"] == "test") & (rows["refit"] == 1)].sort_values("depth")
    (line,) = figure.axes[0].lines
    assert np.asarray(line.get_ydata()) == pytest.approx(100 * rows["value"].to_numpy())
    assert len({one.get_xlim() for one in figure.axes}) == 1
    own = Figure().subplots(2, 1)
    assert figures.draw_depths(probed, "cdnv", "ncm", ax=own) is own[0].figure


def test_the_depth_figures_command(probed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(probed), "--probe", "ncm", "--measures", "nc1, margin", "-o", str(tmp_path / "depth.pdf")]
    assert call(depth_figure, "depth-figure", words) == 0
    out = capsys.readouterr().out
    assert "Accuracy: of probe ncm, on the same images." in out and "TwoNN" not in out
    points = pd.read_csv(tmp_path / "depth.csv")
    assert set(points["measure"]) == {"accuracy", "nc1", "margin"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--measures", "nc1,nc9"], "unknown measure 'nc9'. Did you mean 'nc"),
        (["--probe", "linear"], "has no rows of probe linear (found: ncm)"),
        (["--probe", "ncm", "--pool", "4"], "has no rows of probe ncm that read 4x4 averages, which are measured."),
    ],
)
def test_the_depth_figure_refuses(
    words: list[str], message: str, probed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(depth_figure, "depth-figure", [str(probed), *words, "-o", str(tmp_path / "depth.pdf")]) in (1, 2)
    assert message in capsys.readouterr().err


def test_a_probe_with_several_numbers_is_refused(probed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(rows: pd.DataFrame, *how: Any) -> pd.DataFrame:
        return pd.concat([select(rows, *how)] * 2)

    monkeypatch.setattr(accuracy, "select", twice)
    with pytest.raises(UserError, match="has 2 numbers of probe ncm at depth 0, of several widths or seeds of the"):
        figures.draw_depths(probed, "nc1", "ncm")
