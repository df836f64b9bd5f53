"""The figures of single images and their command: what is drawn is the table, on the page, and said in words."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import analysis
import figures
from analysis.images.seeds import averaged
from figures.commands.images import image_depth
from figures.images import atlas_made
from figures.plots import atlas, images
from layerwise import images as layerwise_images
from layerwise.commandline import call
from layerwise.errors import UsageError, UserError
from layerwise.runfile import RunFile
from tests.conftest import make_run
from tests.figure_checks import check_page, check_texts
from tests.images_reference import keep, made_up


@pytest.fixture(scope="module")
def runs(run_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two runs on the same images, with made-up predictions; tests only read them."""
    folder = tmp_path_factory.mktemp("runs")
    found = [Path(shutil.copy(run_path, folder / "run.h5")), make_run(folder / "other.h5", mode="untrained")]
    for path in found:
        with RunFile(path) as run:
            for seed, probe in enumerate(("knn", "linear")):
                keep(run, made_up(run, seed=seed), probe)
    return found


@pytest.fixture(scope="module")
def votes(runs: list[Path]) -> dict[str, np.ndarray]:
    with RunFile(runs[0]) as run:
        return {"counts": 9 * np.eye(10)[run.labels("test")] + 1, "index": run.indices("test")}


@pytest.mark.parametrize(("size", "width"), [("single", 85.0), ("double", 170.0)])
def test_pages_and_texts(runs: list[Path], votes: dict[str, np.ndarray], size: str, width: float) -> None:
    for figure in (
        figures.draw_images(runs, votes=votes, size=size), figures.draw_images(runs[0], "knn", size=size),
        figures.draw_atlas(runs[0], size=size),
    ):  # fmt: skip
        check_page(figure, width)
        check_texts(figure)
        for axes in (axes for axes in figure.axes if axes.get_title(loc="left")):  # where check_texts does not look
            box = axes._left_title.get_window_extent()  # type: ignore[attr-defined]
            assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1


def test_lines_are_the_rows(runs: list[Path], votes: dict[str, np.ndarray]) -> None:
    rows = analysis.image_depths(runs, votes=votes)
    figure = figures.draw_images(rows)
    keys = list(rows[["run", "probe"]].drop_duplicates().itertuples(index=False, name=None))
    for axes, measures in zip(
        figure.axes, [*(panel[0] for panel in images.PANELS), ("accuracy", "votes")], strict=True
    ):
        wanted = [(run, probe, measure) for run, probe in keys for measure in measures]
        for line, (run, probe, measure) in zip(axes.lines, wanted, strict=True):
            own = rows[(rows["run"] == run) & (rows["probe"] == probe) & (rows["measure"] == measure)]
            assert np.asarray(line.get_xdata()).tolist() == own["depth"].tolist()
            assert np.asarray(line.get_ydata()) == pytest.approx(100 * own["value"].to_numpy())
    words = images.caption(rows)
    assert "greedy, k = 2, probe kNN; greedy, k = 2, probe linear; untrained, k = 2, probe kNN" in words
    assert "As people: mean share of an image's votes for the predicted class; two people agree on" in words
    assert "As people" not in images.caption(rows[~rows["measure"].isin(["votes", "people"])])


def test_runs_of_one_name_are_called_by_their_files(runs: list[Path]) -> None:
    rows = analysis.image_depths(runs[0], "linear")
    both = pd.concat([rows, rows.assign(run="again.h5", failed="(9.9%)")])
    assert [words for words, _ in images.lines_of(both)] == ["run", "again"]
    assert "Shown, though training failed: again.h5." in images.caption(both)


def test_seeds_of_one_recipe_are_one_line(runs: list[Path]) -> None:
    rows = analysis.image_depths(runs[:1], "linear")
    table = pd.concat([rows, rows.assign(run="b.h5", run_id="b", seed=1)])
    table = pd.concat([table, averaged(table)])
    ((words, own),) = images.lines_of(table)
    assert words == rows["network"].iloc[0] and set(own["run"]) == {""}
    assert "Means of 2 networks that differ in their seed; their bars: 95% over seeds" in images.caption(table)
    (_, mean), (name, _) = images.lines_of(pd.concat([table, rows.assign(run="c.h5", width=99)]))
    assert set(mean["run"]) == {""} and name == "c"


def test_the_atlas_shows_the_images_of_each_depth(runs: list[Path]) -> None:
    figure, sample, words = atlas_made(runs[0], ["linear"], 2, 3, 0, "single", Figure().subplots())
    single = analysis.single_images(runs[0], "linear")
    pd.testing.assert_frame_equal(sample.drop(columns="place"), single)
    shown = sample[sample["place"] >= 0].sort_values(["prediction_depth", "place"])
    assert shown.groupby("prediction_depth")["place"].apply(list).tolist() == [[0, 1, 2]] * 3
    (axes,) = figure.axes
    drawn = {tuple(np.mean(np.reshape(one.get_extent(), (2, 2)), axis=1).round(6)): one for one in axes.images}
    with RunFile(runs[0]) as run:
        stored, place = run.images("test"), list(run.indices("test"))
        assert stored is not None
        for one in shown.to_dict("records"):
            pixels = drawn[one["prediction_depth"] * (1 + atlas.APART), one["place"]].get_array()
            expected = stored[:][place.index(one["index"])]
            assert (np.asarray(pixels).transpose(2, 0, 1) == expected).all()  # grey in three channels
    assert len(axes.patches) == (shown["right"] == 0).sum()
    assert f"Framed: {(shown['right'] == 0).sum()} of the 9 shown that the last depth is wrong about." in words
    assert [text.get_text().split("\n")[0] for text in axes.get_xticklabels()] == ["0", "1", "2"]


def test_columns_of_few_depths_are_several_images_wide(runs: list[Path]) -> None:
    figure, sample, _ = atlas_made(runs[0], ["linear"], 2, 2, 0, "double")
    assert sample["place"].max() + 1 == 2 * 4  # 3 depths on 168 mm, images of 12 mm and more
    (axes,) = figure.axes
    assert len(axes.images) == 24
    places = {tuple(np.round(one.get_extent(), 6)) for one in axes.images}
    assert len(places) == 24


def test_the_seed_draws_the_images(runs: list[Path]) -> None:
    single = analysis.single_images(runs[0], "linear")
    first, again, other = (atlas.sampled(single, 4, seed)["place"] for seed in (0, 0, 1))
    assert (first == again).all() and not (first == other).all()
    few = atlas.sampled(single.iloc[:5], 9)
    assert (few["place"] >= 0).all()  # where there are fewer, all


def test_own_axes_are_drawn_into(runs: list[Path]) -> None:
    own = Figure()
    axes = own.subplots(1, 5)
    assert figures.draw_images(runs, "linear", ax=axes[:4]) is own
    assert figures.draw_atlas(runs[0], "linear", ax=axes[4]) is own
    assert all(one.lines for one in axes[:4]) and axes[4].images


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda runs: figures.draw_images(runs, size="huge"), "unknown size 'huge'"),
        (lambda runs: figures.draw_images(runs, ax=Figure().subplots(1, 2)), "2 axes were given for 4 panels"),
        (
            lambda runs: figures.draw_images(analysis.image_depths(runs), "ncm"),
            "there is nothing to draw: the table has no rows of ncm",
        ),
        (lambda runs: figures.draw_images(pd.DataFrame({"value": []})), "the table lacks measure, probe or value"),
        (
            lambda runs: figures.draw_images(analysis.image_depths(runs), pool=2),
            "the rows are given, so pool cannot change them",
        ),
        (lambda runs: figures.draw_atlas(runs[0], rows=0), "rows is 0, but takes a number of rows of images"),
        (
            lambda runs: analysis.image_depths(runs, votes={"votes": 1}),
            r"votes lacks counts \[n, classes\]; it has",
        ),
    ],
)
def test_what_cannot_be_drawn_is_said(runs: list[Path], make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(runs)


def test_messages_of_python_name_its_arguments(runs: list[Path], votes: dict[str, np.ndarray], own_run: Path) -> None:
    with pytest.raises(UserError, match=r"votes: by votes_order='index', only .* and votes_order='folder'; else say"):
        analysis.image_depths(runs, votes=votes | {"counts": votes["counts"][::-1]})
    with pytest.raises(UserError, match=r"`probes.fit\('.*run.h5', probe=\('knn', 'linear'\)\)` makes them"):
        analysis.image_depths(own_run)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (None, "run.h5 holds no images, so there is no atlas of it."),
        (np.zeros((400, 2, 8, 8), np.uint8), "run.h5 holds images of 2 channels; an atlas shows 1 or 3."),
    ],
)
def test_runs_without_pictures_have_no_atlas(
    runs: list[Path], monkeypatch: pytest.MonkeyPatch, stored: Any, message: str
) -> None:
    monkeypatch.setattr(RunFile, "images", lambda run, split: stored)
    monkeypatch.setattr(layerwise_images, "data_config", lambda run: None)
    with pytest.raises(UserError, match=message):
        figures.draw_atlas(runs[0])


def test_the_command_goes_on_without_pictures(
    own_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunFile(own_run) as run:
        keep(run, made_up(run))
    monkeypatch.setattr(RunFile, "images", lambda run, split: None)
    monkeypatch.setattr(layerwise_images, "data_config", lambda run: None)
    assert image(own_run, "--size", "single") == 0
    out, err = capsys.readouterr()
    assert err == f"{own_run} holds no images, so there is no atlas of it.\n"
    assert "atlas" not in out and not own_run.with_name("run.atlas.csv").exists()
    assert own_run.with_name("run.single.csv").exists()


def image(*words: str | Path) -> int:
    return call(image_depth, "image-depth", [str(word) for word in words])


def test_the_command_writes_all_of_it(
    runs: list[Path], votes: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "votes.npz", **votes)
    out = tmp_path / "both"
    words = (*runs, "-o", out, "--votes", tmp_path / "votes.npz", "--size", "single", "--rows", "2", "--quiet")
    assert image(*words) == 0
    shown, err = capsys.readouterr()
    assert err == ""
    every = [f"both.{one}{end}" for one in ("images", "atlas") for end in (".csv", ".pdf", ".svg", ".png", ".txt")]
    every += ["both.single.csv", "both.pairs.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*every, "votes.npz"])
    assert all(str(tmp_path / name) in shown for name in every)
    made = pd.read_csv(tmp_path / "both.images.csv")
    again = analysis.image_depths(runs, votes=votes)
    assert made["value"].to_numpy() == pytest.approx(again["value"].to_numpy(), nan_ok=True)
    pairs = pd.read_csv(tmp_path / "both.pairs.csv")
    assert pairs["value"].to_numpy() == pytest.approx(analysis.image_disagreement(runs)["value"].to_numpy())
    assert (tmp_path / "both.atlas.txt").read_text().rstrip("\n") in shown
    assert image(*words) == 1
    assert "exist already. Give another name, or --force to replace them." in capsys.readouterr().err


def test_the_command_of_one_run_stands_beside_it_and_leaves_the_atlas_out(own_run: Path) -> None:
    with RunFile(own_run) as run:
        keep(run, made_up(run))
    assert image(own_run, "--rows", "0", "--quiet", "--size", "single") == 0
    names = {path.name for path in own_run.parent.iterdir()} - {"run.h5", "run.predictions.h5"}
    assert names == {f"run.images{end}" for end in (".csv", ".pdf", ".svg", ".png", ".txt")} | {"run.single.csv"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--size", "huge"), 2, "unknown size 'huge'"),
        (("--rows", "-1"), 2, "--rows is -1, but takes a number of rows of images, or 0 for no atlas."),
        (("more.h5",), 2, "several runs were given, so what is written needs a name: -o NAME."),
        (("-o", "."), 2, "is a folder, but a name is needed: -o images, say."),
        (("--votes", "none.npz"), 1, "none.npz does not exist; expected an .npz file with the array counts"),
        ((), 1, "--probe knn,linear` makes them."),
    ],
)
def test_bad_input_is_a_line(
    own_run: Path, words: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image(own_run, *words) == code
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert [path.name for path in own_run.parent.iterdir()] == ["run.h5"]
