"""A user's own classifiers as probes: the protocol of all others, rows that nothing takes for another's, estimators."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import analysis
import figures
import probes
from layerwise.errors import UsageError, UserError
from layerwise.runfile import RunFile
from probes.estimator import Classifiers
from probes.logistic import CertifiedLogisticRegression

LOGISTIC = LogisticRegression(C=0.01, tol=1e-8, max_iter=1000)


def accuracies(rows: pd.DataFrame) -> dict[tuple[int, str, int], float]:
    own = rows[rows["metric"] == "accuracy"]
    keys = zip(own["depth"], own["split"], own["refit"], strict=True)
    return dict(zip(keys, own["value"], strict=True))


def features(run: RunFile, depth: int, split: str) -> np.ndarray:
    rows = run.pooled(depth, split)
    assert rows is not None
    return rows[:].reshape(len(rows), -1).astype(np.float32)


def test_a_classifier_is_fitted_by_the_protocol_to_what_the_linear_probe_reads(own_run: Path) -> None:
    rows = probes.fit(own_run, LOGISTIC, depths=[1, 2])
    with RunFile(own_run) as run:
        x, y = ({s: f(s) for s in run.splits} for f in (lambda s: features(run, 2, s), run.labels))
    on_train = make_pipeline(StandardScaler(), clone(LOGISTIC)).fit(x["train"], y["train"])
    both = [np.concatenate([part["train"], part["validation"]]) for part in (x, y)]
    refitted = make_pipeline(StandardScaler(), clone(LOGISTIC)).fit(*both)
    expected = {(2, s, 0): on_train.score(x[s], y[s]) for s in ("train", "validation", "test")}
    expected |= {(2, "train", 1): refitted.score(*both), (2, "test", 1): refitted.score(x["test"], y["test"])}
    found = {key: value for key, value in accuracies(rows).items() if key[0] == 2}
    assert found == pytest.approx(expected)
    assert set(rows["probe"]) == {"LogisticRegression"} and set(rows["selection"]) == {"fixed"}
    assert set(rows["estimator"]) == {"LogisticRegression(C=0.01, max_iter=1000, tol=1e-08)"}
    assert rows[["certificate", "lambda", "converged", "iterations"]].isna().all().all()
    assert {"gain", "log_loss_bits"} <= set(rows["metric"])
    assert set(rows["test_reads"]) == {1}
    assert not hasattr(LOGISTIC, "coef_")  # what was given is a pattern, and left as it was


def test_several_are_chosen_from_on_the_validation_fold(own_run: Path) -> None:
    rows = probes.fit(own_run, [DummyClassifier(), KNeighborsClassifier(3)], name="some", depths=[2])
    assert set(rows["selection"]) == {"validation"}
    assert rows["estimator"].str.fullmatch(r"KNeighborsClassifier\(n_neighbors=3\); of 2 \([0-9a-f]{6}\)").all()
    grid = probes.fit(own_run, KNeighborsClassifier(), grid={"n_neighbors": [3, 900]}, depths=[2])
    assert set(grid["probe"]) == {"KNeighborsClassifier"}
    assert grid["estimator"].str.startswith("KNeighborsClassifier(n_neighbors=3); of 2").all()
    assert accuracies(grid) == accuracies(rows)
    probes.fit(own_run, KNeighborsClassifier(), grid={"n_neighbors": [3, 900]}, depths=[2])  # stands there already
    permuted = probes.fit(own_run, [DummyClassifier(), KNeighborsClassifier(3)], name="some", depths=[2],
                          control="permuted")  # fmt: skip
    assert set(permuted["selection"]) == {"control"}
    assert permuted["estimator"].str.startswith("KNeighbors").all()


def test_a_classifier_without_probabilities_has_no_log_loss(own_run: Path) -> None:
    rows = probes.fit(own_run, LinearSVC(), depths=[2])
    assert "accuracy" in set(rows["metric"]) and not {"log_loss_bits", "calibration_error"} & set(rows["metric"])


def test_rows_of_another_classifier_are_not_taken_for_its_own(own_run: Path) -> None:
    first = accuracies(probes.fit(own_run, KNeighborsClassifier(1), depths=[1]))
    with pytest.raises(
        UserError, match=r"by KNeighborsClassifier\(n_neighbors=1\), and not by KNeighborsClassifier\(\)"
    ):
        probes.fit(own_run, KNeighborsClassifier(), depths=[1])
    assert accuracies(probes.fit(own_run, KNeighborsClassifier(), name="near", depths=[1]))
    replaced = probes.fit(own_run, KNeighborsClassifier(), depths=[1], force=True)
    assert accuracies(replaced) != first and set(replaced["test_reads"]) == {2}


@pytest.mark.parametrize(
    ("probe", "options", "words"),
    [
        (LogisticRegression, {}, "found the class LogisticRegression in the place of a probe"),
        (LinearRegression(), {}, "found a LinearRegression in the place of a probe; expected the name of one, or"),
        (7, {}, "found a int in the place of a probe"),
        ([], {}, "no probe was given"),
        ([LinearSVC(C=1), LinearSVC(C=2)], {}, "two probes are called LinearSVC: fit them one by one"),
        (LOGISTIC, {"name": "linear-mine"}, "a classifier cannot be called 'linear-mine' in the rows"),
        (LOGISTIC, {"name": "a b"}, "a classifier cannot be called 'a b' in the rows"),
        (LOGISTIC, {"grid": {"Q": [1]}}, "grid does not fit LogisticRegression: Invalid parameter 'Q'"),
        ([LOGISTIC, LinearSVC()], {"grid": {"C": [1]}}, "grid is of one classifier, but 2 were given"),
        ("linear", {"name": "x"}, "name and grid are of classifiers"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_probe_is_refused(own_run: Path, probe: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        probes.fit(own_run, probe, **options)


def test_what_a_classifier_says_against_the_data_is_one_line(own_run: Path) -> None:
    with pytest.raises(
        UserError, match=r"LogisticRegression\(C=-1\) cannot be fitted at depth 1: The 'C' parameter .*"
    ):
        probes.fit(own_run, LogisticRegression(C=-1), depths=[1])


def test_lists_of_runs_and_probes_are_rows_one_after_the_other(own_run: Path) -> None:
    with RunFile(own_run) as run:
        rows = probes.fit([run, str(own_run)], ["linear", "ncm", LinearSVC()], depths=[1])
    assert list(dict.fromkeys(rows["probe"])) == ["linear", "ncm", "LinearSVC"]
    assert len(rows) == 2 * len(rows.drop_duplicates())


def test_estimators_are_those_that_were_scored_and_read_no_test_split(own_run: Path) -> None:
    rows = probes.fit(own_run, ["linear", LOGISTIC], depths=[2])
    found = probes.estimators(own_run, ["linear", LOGISTIC], depths=[2])
    assert list(found["probe"]) == ["linear", "LogisticRegression"]
    with RunFile(own_run) as run:
        x, y = features(run, 2, "test"), run.labels("test")
    for probe, estimator in zip(found["probe"], found["estimator"], strict=True):
        own = accuracies(rows[rows["probe"] == probe])
        assert estimator.score(x, y) == pytest.approx(own[2, "test", 1])
    linear = found["estimator"][0][-1]
    assert isinstance(linear, CertifiedLogisticRegression) and linear.certificate_ < 1e-3
    np.testing.assert_allclose(found["estimator"][0].predict_proba(x).sum(1), 1)
    again = probes.fit(own_run, ["linear", LOGISTIC], depths=[2])
    assert set(again["test_reads"]) == {1}
    fresh = probes.estimators(own_run, "linear-ovr", depths=[0, 2])  # which has no rows yet
    assert list(zip(fresh["depth"], fresh["pooling"], strict=True)) == [(0, 2), (0, 0), (2, 2)]


def test_estimators_of_another_classifier_under_a_name_that_is_taken_need_a_name(own_run: Path) -> None:
    probes.fit(own_run, LOGISTIC, depths=[1])
    other = LogisticRegression(C=7)
    with pytest.raises(UserError, match=r"Give name=\.\.\. to keep both\.$"):
        probes.estimators(own_run, other, depths=[1])
    assert list(probes.estimators(own_run, other, depths=[1], name="other")["probe"]) == ["other"]


@pytest.mark.parametrize("probe", ["knn", "cnn-1", "auxiliary"])
def test_probes_that_give_no_estimator_are_refused_before_any_is_fitted(own_run: Path, probe: str) -> None:
    with pytest.raises(UsageError, match=r"no estimator of scikit-learn's can stand for it"):
        probes.estimators(own_run, ["linear", probe], depths=[1])
    assert not own_run.with_suffix(".probes.csv").exists()


def test_a_baseline_stands_beside_the_runs(own_run: Path) -> None:
    found = probes.compare(own_run, own_run, "linear", depths=[1, 2])
    assert list(found["depth"]) == [1, 2]
    np.testing.assert_array_equal(found["difference"], 0)
    assert found["run"].eq(str(own_run)).all()


def test_a_baseline_of_several_runs_is_fitted_again_once(own_run: Path, tmp_path: Path) -> None:
    baseline = Path(shutil.copy(own_run, tmp_path / "baseline.h5"))
    others = [Path(shutil.copy(own_run, tmp_path / f"{name}.h5")) for name in "ab"]
    found = probes.compare(iter(others), baseline, "ncm", depths=[1], force=True)
    assert [Path(run).name for run in found["run"]] == ["a.h5", "b.h5"]
    assert set(probes.fit(baseline, "ncm", depths=[1])["test_reads"]) == {1}


def test_other_labels_come_as_a_table(own_run: Path) -> None:
    with RunFile(own_run) as run:
        parts = {s: pd.DataFrame({"index": run.indices(s), "label": run.labels(s) % 2}) for s in run.splits}
    table = pd.concat([part.assign(split="test" if s == "test" else "train") for s, part in parts.items()])
    table.attrs["name"] = "parity"
    table.to_csv(own_run.with_name("parity.csv"), index=False)
    rows = probes.fit(own_run, "linear", depths=[1], target=table)
    assert set(rows["target"].str.partition("@")[0]) == {"parity"} and set(rows["n_classes"]) == {2}
    read = probes.fit(own_run, "linear", depths=[1], target=own_run.with_name("parity.csv"))
    assert accuracies(read) == accuracies(rows)
    with pytest.raises(UsageError, match="control='teacher' makes labels of its own, so it takes no target"):
        probes.fit(own_run, "linear", target=table, control="teacher")


def test_the_name_and_the_candidates_tell_classifiers_apart() -> None:
    assert (
        Classifiers("x", (LOGISTIC,), False).shown(0)
        == "LogisticRegression(C=0.01, max_iter=1000, tol=1e-08), not standardised"
    )


def test_figures_leave_classifiers_out_unless_they_are_named(own_run: Path, tmp_path: Path) -> None:
    probes.fit(own_run, ["linear", LOGISTIC], depths=[0, 1, 2], pixels=False)
    assert set(analysis.curves(own_run)["probe"]) == {"linear"}
    points = analysis.curves(own_run, ["LogisticRegression"])
    assert set(points["probe"]) == {"LogisticRegression"} and len(points) == 3
    caption = figures.caption(own_run, ["LogisticRegression"])
    assert "LogisticRegression: a classifier of scikit-learn, without a certificate, on 2x2-pooled" in caption
    assert set(figures.table(own_run)["probe"]) == {"linear", "LogisticRegression"}
    assert set(analysis.accuracies(own_run, "linear")["probe"]) == {"linear"}
    with pytest.raises(UsageError, match="unknown probe 'LogisticRegressor'"):
        figures.draw(own_run, ["LogisticRegressor"])
    rows = analysis.read(own_run)
    other = rows.assign(run="b.h5", run_id="b", seed=1, estimator=rows["estimator"].str.replace("0.01", "7"))
    with pytest.raises(UserError, match="LogisticRegression is another classifier from run to run.*or name the probes"):
        analysis.curves(pd.concat([rows, other]), ["LogisticRegression"])
