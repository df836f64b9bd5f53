"""Training curves and their figure: they are the run files' histories, drawn as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_run

from analysis.training import training_curves
from figures.commands.training import training_figure
from figures.plots.training import caption, draw
from layerwise.commandline import call
from layerwise.errors import UserError
from layerwise.runfile import RunFile
from tests.figure_checks import check_page, check_texts, data_lines

EPOCHS = {"training.epochs": "3", "training.lr_every": "2"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("training")
    made = [
        make_run(folder / f"k{k}-s{s}.h5", seed=s, **{"network.k": str(k), **EPOCHS}) for k in (1, 2) for s in (0, 1)
    ]
    return [*made, make_run(folder / "end.h5", mode="end-to-end", **EPOCHS)]


@pytest.fixture(scope="module")
def points(runs: list[Path]) -> pd.DataFrame:
    return training_curves(runs)


def history(path: Path) -> pd.DataFrame:
    with RunFile(path) as run:
        return pd.DataFrame(run.history())


def test_a_curve_is_the_mean_of_the_histories_over_seeds(runs: list[Path], points: pd.DataFrame) -> None:
    tables = [history(path) for path in runs[:2]]
    for split, measure in (("train", "loss"), ("validation", "accuracy")):
        own = points.query("k == 1 and split == @split and measure == @measure").sort_values(["block", "epoch"])
        expected = np.mean([table.sort_values(["block", "epoch"])[f"{split}_{measure}"] for table in tables], axis=0)
        assert own["value"].tolist() == pytest.approx(expected.tolist())
        assert own["epoch"].tolist() == [1, 2, 3] * own["block"].nunique()
    assert set(points["n_seeds"]) == {2} and set(points["mode"]) == {"greedy"}


def test_the_interval_of_two_seeds_is_the_textbook_one(runs: list[Path], points: pd.DataFrame) -> None:
    values = [float(history(path).query("block == 1 and epoch == 0")["train_loss"].iloc[0]) for path in runs[:2]]
    row = points.query("k == 1 and block == 1 and epoch == 1 and split == 'train' and measure == 'loss'").iloc[0]
    half = 12.706204736 * np.std(values, ddof=1) / np.sqrt(2)
    assert row["ci_high"] - row["value"] == pytest.approx(half)
    assert row["ci_low"] == pytest.approx(max(0, row["value"] - half))


def test_other_variants_of_network_are_never_averaged(runs: list[Path], tmp_path: Path) -> None:
    other = make_run(tmp_path / "f.h5", **{"network.k": "2", "network.last_aux_width": "3", **EPOCHS})
    with pytest.raises(UserError, match=r"the runs are of different networks: M_f = 3 \(.*f.h5\); plain \(.*"):
        training_curves([*runs, other])


def test_other_modes_are_drawn_alone(runs: list[Path]) -> None:
    found = training_curves(runs, "end-to-end")
    assert set(found["mode"]) == {"end-to-end"} and found["ci_low"].isna().all()
    with pytest.raises(UserError, match="^none of the 5 runs was trained by mode parallel here"):
        training_curves(runs, "parallel")


def test_predictions_that_a_pattern_names_beside_a_run_are_left_out(runs: list[Path], points: pd.DataFrame) -> None:
    beside = runs[0].with_name("k1-s0.predictions.h5")  # need not be there to be known by its name
    pd.testing.assert_frame_equal(training_curves([*runs, beside]), points)


def test_fine_tuning_after_pruning_is_marked(tmp_path: Path) -> None:
    pruned = {"network.prune_to": "3", "training.finetune_epochs": "2"}
    points = training_curves([make_run(tmp_path / "pruned.h5", **EPOCHS, **pruned)])
    assert points["epoch"].max() == 5 and set(points["finetuning"]) == {4}
    for axes in draw(points).axes:
        (line,) = [line for line in axes.lines if line.get_label() == "_finetuning"]
        assert list(line.get_xdata()) == [3.5, 3.5]
    assert caption(points).endswith("From epoch 4 on (grey line) it is trained on above its pruned block.")


def test_runs_of_other_lengths_are_refused(runs: list[Path], tmp_path: Path) -> None:
    longer = make_run(tmp_path / "longer.h5", seed=3, **{"network.k": "1", **EPOCHS, "training.epochs": "4"})
    with pytest.raises(UserError, match="^the runs are of different numbers of epochs: 3 "):
        training_curves([runs[0], longer])


@pytest.mark.parametrize(("size", "width"), [("single", 85.0), ("double", 170.0)])
def test_page_and_texts(points: pd.DataFrame, size: str, width: float) -> None:
    figure = draw(points, size)
    check_page(figure, width)
    check_texts(figure)


def test_the_drawn_lines_are_the_points(points: pd.DataFrame) -> None:
    axes = draw(points, "double").axes
    assert [one.get_title() for one in axes[:2]] == ["$k$ = 1", "$k$ = 2"]
    assert [one.get_ylabel() for one in axes[::2]] == ["cross-entropy (nats)", "accuracy (%)"]
    for place, one in enumerate(axes):
        measure, scale = (("loss", 1), ("accuracy", 100))[place // 2]
        own = points[(points["measure"] == measure) & (points["k"] == place % 2 + 1)]
        lines = data_lines(one)
        assert len(lines) == own.groupby(["block", "split"]).ngroups
        for line, ((block, _), expected) in zip(lines, own.groupby(["block", "split"]), strict=True):
            assert line.get_label() == f"block {block}"
            assert list(line.get_ydata()) == pytest.approx((scale * expected["value"]).tolist())
        drops = [line.get_xdata()[0] for line in one.lines if line.get_label() == "_drop"]
        assert drops == [2.5]  # the rate of epochs 1 and 2 is that before the drop


@pytest.mark.parametrize(("schedule", "drops"), [("steps", [2.5]), ("linear", []), ("cosine", []), ("one-cycle", [])])
def test_a_rate_that_always_falls_has_no_steps(schedule: str, drops: list[float], points: pd.DataFrame) -> None:
    falling = points.assign(schedule=schedule)
    if not drops:
        falling["learning_rate"] = 0.1 / falling["epoch"]
    for axes in draw(falling).axes:
        assert [line.get_xdata()[0] for line in axes.lines if line.get_label() == "_drop"] == drops
    assert ("Dotted: the learning rate drops." in caption(falling)) == bool(drops)


def test_an_epoch_alone_is_a_marker_and_ticks_are_whole(points: pd.DataFrame) -> None:
    one = points[points["epoch"] == 1]
    assert " Bars: 95% interval over seeds" in caption(one)
    for axes in draw(one).axes:
        assert {line.get_marker() for line in data_lines(axes)} == {"o"}
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]
    assert {line.get_marker() for axes in draw(points).axes for line in data_lines(axes)} == {"None"}


def test_an_axis_holds_what_is_drawn_and_no_more(points: pd.DataFrame) -> None:
    far = points.assign(ci_high=points["ci_high"].mask(points["split"] == "validation", 1e3))
    for axes, expected in zip(draw(far).axes, draw(points).axes, strict=True):
        assert axes.get_ylim()[1] <= expected.get_ylim()[1] < 1e3


def test_the_caption_says_what_is_averaged(points: pd.DataFrame) -> None:
    words = caption(points)
    assert "k = 2: mean of 2 networks (M = 6; 2 seeds)" in words and "Areas: 95% interval over seeds (t; of " in words


def test_the_command(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "training.pdf"
    words = [*map(str, runs), "-o", str(out)]
    assert call(training_figure, "training-figure", words) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert call(training_figure, "training-figure", [*words, "--mode", "untrained", "--force"]) == 2
    assert "unknown mode 'untrained'. Choices: greedy, parallel, end-to-end." in capsys.readouterr().err
