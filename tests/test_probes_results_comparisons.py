"""Comparisons within a run: gains over the depth before by hand, the teacher gap, and that they are made anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_run
from scipy.stats import binomtest

from layerwise.runfile import RunFile, sealed
from probes.probe import ProbeName
from probes.protocol import Fit, Predictions
from probes.results.columns import KEY
from probes.results.comparisons import AGAINST_LINEAR, COMPARISONS, compare, not_trained
from probes.results.paired_tests import paired_interval
from probes.results.table import read_rows, read_table, save, table_path, write_table
from probes.tasks.task import Task


def fit(run: RunFile, wrong: slice, refit: int = 1, iterations: int | None = None) -> Fit:
    """Return a probe that is wrong about the given test images."""
    label = run.labels("test")
    predicted = label.copy()
    predicted[wrong] = (label[wrong] + 1) % 10
    half = np.log(np.full(len(label), 0.5))
    return Fit(
        refit=refit, selection="validation", n_train=9, n_features=4, seconds=0.0, penalty=1e-3,
        iterations=iterations,
        scores={"test": Predictions(label, predicted, half, half)},
    )  # fmt: skip


def put(run: RunFile, wrong: dict[int, slice], iterations: int | None = None, **words: object) -> None:
    named = {"probe": "linear"} | words
    names = {depth: ProbeName(depth=depth, **named) for depth in wrong}  # type: ignore[arg-type]
    save(run, Task(run), [(names[depth], [fit(run, s, iterations=iterations)]) for depth, s in wrong.items()])


def metric(run: RunFile, name: str) -> pd.Series:
    table = read_rows(run)
    return table[table["metric"] == name].set_index("depth")["value"]


def test_gains_are_paired_over_the_images_and_begin_where_depth_0_is_not_the_pooled_input(own_run: Path) -> None:
    with RunFile(own_run) as run:
        n = len(run.labels("test"))
        put(run, {0: slice(0, 200), 1: slice(0, 60), 2: slice(20, 60)})
        compare(run)
        table = read_rows(run)
        gain = table[table["metric"] == "gain"].set_index("depth")
        assert gain.index.tolist() == [2]
        assert gain.value[2] == pytest.approx(20 / n)
        images = np.arange(n)
        before, after = images >= 60, ~((images >= 20) & (images < 60))
        assert (gain.ci_low[2], gain.ci_high[2]) == pytest.approx(paired_interval(before, after))
        assert metric(run, "gain_p")[2] == pytest.approx(binomtest(20, 20).pvalue)
        assert not table.duplicated(list(KEY)).any()


def test_holm_is_over_the_comparisons_of_one_probe_and_the_input_is_no_depth_to_gain_from(tmp_path: Path) -> None:
    with RunFile(make_run(tmp_path / "run.h5", **{"network.depth": 3, "training.epochs": 1})) as run:
        cnn_depths = {0: slice(0, 40), 1: slice(0, 30), 2: slice(0, 20), 3: slice(0, 14)}
        put(run, cnn_depths, probe="cnn-1", probe_width=8, pooling=0)
        put(run, {1: slice(0, 5), 2: slice(0, 5)})
        compare(run)
        table = read_rows(run)
        cnn = table[table["probe"] == "cnn-1"].set_index(["metric", "depth"])["value"]
        p = [binomtest(10, 10).pvalue, binomtest(6, 6).pvalue]
        assert ("gain_p", 1) not in cnn.index
        assert [cnn["gain_p", 2], cnn["gain_p", 3]] == pytest.approx(p)
        assert [cnn["gain_p_holm", 2], cnn["gain_p_holm", 3]] == pytest.approx([2 * p[0], p[1]])
        linear = table[table["probe"] == "linear"].set_index(["metric", "depth"])["value"]
        assert linear["gain_p", 2] == linear["gain_p_holm", 2] == 1


def test_the_predictions_are_read_through_once_however_many_probes_there_are(
    own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunFile(own_run) as run:
        for seed in range(4):
            put(run, {0: slice(0, 30), 1: slice(0, 20), 2: slice(0, 14)}, probe_seed=seed)
        digest, read = sealed._digest, []
        monkeypatch.setattr(sealed, "_digest", lambda file: read.append(1) or digest(file))
        compare(run)
        assert len(metric(run, "gain")) == 4 and len(read) == 1


def test_comparisons_are_made_anew_and_other_runs_keep_theirs(own_run: Path) -> None:
    with RunFile(own_run) as run:
        put(run, {1: slice(0, 60), 2: slice(0, 40)})
        compare(run)
        earlier = read_table(table_path(own_run)).assign(run_id="earlier")
        write_table(table_path(own_run), [read_table(table_path(own_run)), earlier])
        put(run, {1: slice(0, 50)})
        compare(run)
        n = len(run.labels("test"))
        assert metric(run, "gain")[2] == pytest.approx(10 / n)
        table = read_table(table_path(own_run))
        kept = table[(table["run_id"] == "earlier") & (table["metric"] == "gain")]
        assert kept["value"].item() == pytest.approx(20 / n)


def test_the_teacher_gap_is_accuracy_minus_the_teachers_on_the_same_images(own_run: Path) -> None:
    with RunFile(own_run) as run:
        put(run, {1: slice(0, 10), 2: slice(0, 10)})
        put(run, {2: slice(0, 110)}, control="teacher")
        compare(run)
        table = read_rows(run)
        found = table[table["metric"] == "teacher_gap"]
        assert (found["control"].item(), found["depth"].item()) == ("teacher", 2)
        assert found["value"].item() == pytest.approx(100 / len(run.labels("test")))
        assert found["ci_low"].item() < found["value"].item() < found["ci_high"].item()
        assert set(COMPARISONS) <= set(table["metric"])


def test_cnn_probes_of_other_epochs_are_not_compared_steps_of_a_convex_fit_do_not_matter(own_run: Path) -> None:
    cnn = {"probe": "cnn-1", "probe_width": 8, "pooling": 0}
    with RunFile(own_run) as run:
        put(run, {1: slice(0, 20)}, iterations=2, **cnn)
        put(run, {2: slice(0, 10)}, iterations=12, **cnn)
        put(run, {2: slice(0, 50)}, iterations=2, control="teacher", **cnn)
        put(run, {1: slice(0, 9)}, iterations=7)
        put(run, {2: slice(0, 5)}, iterations=8)
        compare(run)
        table = read_rows(run)
        assert table[table["metric"] == "gain"]["probe"].tolist() == ["linear"]
        assert "teacher_gap" not in set(table["metric"])
        put(run, {2: slice(0, 50)}, iterations=12, control="teacher", **cnn)
        compare(run)
        assert "teacher_gap" in set(read_rows(run)["metric"])


def test_cnn_probes_stand_against_the_linear_probe_of_their_depth(own_run: Path) -> None:
    """At depth 1 a CNN probe is wrong about 40 images more, at depth 2 about 5 fewer."""
    cnn = {"probe": "cnn-1", "probe_width": 8, "pooling": 0}
    with RunFile(own_run) as run:
        n = len(run.labels("test"))
        put(run, {1: slice(0, 60), 2: slice(0, 50)}, iterations=12, **cnn)
        compare(run)
        assert metric(run, "linear_gap").empty  # no linear probe yet
        put(run, {0: slice(0, 90), 1: slice(0, 20), 2: slice(0, 55)})
        put(run, {1: slice(0, 5)}, pooling=4)
        compare(run)
        assert metric(run, "linear_gap").to_dict() == pytest.approx({1: -40 / n, 2: 5 / n})
        p = [binomtest(0, 40).pvalue, binomtest(5, 5).pvalue]
        assert metric(run, "linear_gap_p").tolist() == pytest.approx(p)
        assert metric(run, "linear_gap_p_holm").tolist() == pytest.approx([2 * p[0], p[1]])
        table = read_rows(run)
        assert set(table.loc[table["metric"].isin(AGAINST_LINEAR), "probe"]) == {"cnn-1"}
        assert not_trained(table)["depth"].tolist() == [1]
        # One of fewer channels than the maps cannot say all that a linear probe of ten classes says.
        assert not_trained(table.assign(channels=9, n_classes=10)).empty
        assert not_trained(table.assign(channels=9, n_classes=3))["depth"].tolist() == [1]
        put(run, {1: slice(0, 60)})
        compare(run)
        assert not_trained(read_rows(run)).empty
