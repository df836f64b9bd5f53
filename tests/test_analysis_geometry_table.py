"""Tests of the tables of what depths are like: whose rows, over seeds, runs refused, and what is missing and why."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import analysis
from analysis import tables
from analysis.geometry import table as module
from analysis.geometry.depth import geometry
from analysis.geometry.measures import MEASURES, SIMILARITIES
from analysis.geometry.similarity import similarity
from analysis.seeds import pooled
from figures.plots.geometry import caption
from layerwise import open_run
from layerwise.activations import pooled_features
from layerwise.errors import UsageError, UserError
from probes.results.predictions import predictions_path
from tests.conftest import make_run


@pytest.fixture(scope="module")
def other_seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("other") / "other.h5", seed=1)


def test_rows_are_the_measures_of_the_features(run_path: Path) -> None:
    found = analysis.depth_geometry(run_path)
    with open_run(run_path) as run:
        y = run.labels("test")
    for depth in (0, 1, 2):
        expected = geometry(pooled_features(run_path, depth, "test"), y).measures
        rows = found[found["depth"] == depth].set_index("measure")
        assert list(rows.index) and set(rows.index) == set(MEASURES)
        for name, one in expected.items():
            assert (rows.loc[name, "value"], rows.loc[name, "ci_low"]) == pytest.approx(
                (one.value, one.low), nan_ok=True
            )
            assert rows.loc[name, "n"] == one.n
    assert set(found["split"]) == {"test"} and set(found["n_runs"]) == {1}
    assert set(found.loc[found["measure"] == "dead", "interval"]) == {""}


def test_pairs_are_those_of_the_features_also_whole_and_of_other_splits(run_path: Path) -> None:
    found = analysis.depth_similarity(run_path, split="train", depths=[0, 2], pool=0)
    assert set(found["pooling"]) == {"none"} and len(found) == len(SIMILARITIES)
    whole = [pooled_features(run_path, depth, "train", side=0) for depth in (0, 2)]
    for name, one in similarity(*whole).items():
        row = found[found["measure"] == name].iloc[0]
        assert (row["value"], row["ci_high"]) == pytest.approx((one.value, one.high))
        assert (row["depth_a"], row["depth_b"], row["n_features_a"]) == (0, 2, whole[0].shape[1])


def test_features_that_are_computed_may_go_to_the_disk(run_path: Path) -> None:
    in_memory = analysis.depth_geometry(run_path, pool=4, depths=2)
    on_disk = analysis.depth_geometry(run_path, pool=4, depths=2, max_memory=0)
    assert on_disk["value"].tolist() == pytest.approx(in_memory["value"].tolist(), nan_ok=True)
    assert sorted(path.name for path in run_path.parent.iterdir()) == ["run.h5"]


def test_seeds_are_averaged_and_runs_compared(run_path: Path, other_seed: Path) -> None:
    found = analysis.depth_geometry([run_path, other_seed], depths=1)
    both = found[found["run"] != ""]
    mean = found[found["run"] == ""].set_index("measure")
    assert set(mean["n_runs"]) == {2} and set(mean["interval"]) == {"seeds"}
    for name in ("cdnv", "twonn"):
        values = both[both["measure"] == name]
        estimate = pooled([list(values["value"])], [list(values["error"] ** 2)])
        assert mean.loc[name, "value"] == pytest.approx(values["value"].mean())
        assert mean.loc[name, "ci_high"] == pytest.approx(estimate.mean + estimate.half_width())
    pairs = analysis.depth_similarity([run_path, other_seed], depths=[1, 2])
    single = pairs[pairs["run_a"] != ""]
    assert len(single) == 6 * len(SIMILARITIES)
    across = single[(single["run_a"] != single["run_b"]) & (single["depth_a"] == single["depth_b"])]
    assert len(across) == 2 * len(SIMILARITIES)
    averaged = pairs[pairs["run_a"] == ""]
    assert len(averaged) == len(SIMILARITIES)  # depths 1 and 2 of one run, over both
    within = single[(single["run_a"] == single["run_b"]) & (single["measure"] == "cka")]
    assert averaged.set_index("measure").loc["cka", "value"] == pytest.approx(within["value"].mean())


def test_a_network_that_did_not_train_is_measured_and_not_averaged(
    run_path: Path, other_seed: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    third = make_run(other_seed.with_name("third.h5"), seed=2)
    runs = [run_path, other_seed, third]
    for place in (module, tables):
        monkeypatch.setattr(place, "failure", lambda run: "10.1%" if run.path == third else "")
    with caplog.at_level(logging.WARNING, "layerwise.analysis"):
        found = module.measured(runs, module.Asked(depths=[1, 2]))
    assert caplog.messages == [f"{third} did not train (10.1%): it is measured, but no mean over seeds counts it."]
    assert set(found.geometry.loc[found.geometry["run"] == "", "n_runs"]) == {2}
    assert set(found.similarity.loc[found.similarity["run_a"] == "", "n_runs"]) == {2}
    (line,) = module.lines_of(found.geometry)
    assert line[0] == "greedy, k = 2"
    assert "Left out, for it did not train (its own last" in caption(found.geometry)
    assert f"{third} (10.1%)" in caption(found.geometry)
    failed = found.geometry[found.geometry["run"] == str(third)]
    assert "Shown, though it did not train" in caption(failed)


def test_runs_over_different_images_are_refused(run_path: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other.h5", **{"data.subset": 300})
    message = (
        f"{other} cannot be analysed beside {run_path}: their train images differ (digits and digits, by fingerprint). "
        "Similarity is of the same images; analyse the runs one by one, or make them of the same data, subset and "
        "--holdout."
    )
    with pytest.raises(UserError) as caught:
        module.measured([run_path, other], module.Asked("train"))
    assert str(caught.value) == message


def test_images_in_another_order_are_refused(run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Path(shutil.copy(run_path, tmp_path / "copy.h5"))
    from layerwise.runfile import RunFile

    read = RunFile.indices
    monkeypatch.setattr(RunFile, "indices", lambda run, split: read(run, split)[:: -1 if run.path == copy else 1])
    with pytest.raises(UserError, match="they hold other test images of digits, or in another order"):
        module.measured([run_path, copy], module.Asked())


def test_one_run_twice_is_refused_and_one_path_twice_is_one(run_path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(run_path, tmp_path / "copy.h5"))
    with pytest.raises(UserError, match=f"{run_path} and {copy} are the same run .*Leave one of them out."):
        analysis.depth_geometry([run_path, copy])
    # As a shell's *.h5 gives them: what probes keep beside a run is none.
    given = [run_path, run_path, predictions_path(run_path)]
    assert len(analysis.depth_geometry(given, depths=1)) == len(MEASURES)


def test_what_cannot_be_measured_is_said_in_one_line(
    run_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UsageError, match="unknown depth '7'"):
        analysis.depth_geometry(run_path, depths=7)
    with pytest.raises(UsageError, match="unknown split"):
        analysis.depth_geometry(run_path, split="all")
    with pytest.raises(UsageError, match="subsample is 0, but takes a number of images, from 1 on."):
        analysis.depth_geometry(run_path, subsample=0)
    with pytest.raises(UserError, match="depth 0 has maps of 8x8, which cannot be averaged to 16x16"):
        analysis.depth_geometry(run_path, pool=16)
    monkeypatch.setattr(module, "_MOST_FEATURES", 20)
    with pytest.raises(UserError, match="depth 1 has 24 features, and products of them take 0.0 GB; at most 20 are"):
        analysis.depth_geometry(run_path, depths=1)


def test_what_is_missing_is_told(run_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    from layerwise.runfile import RunFile

    for place in (module, tables):
        monkeypatch.setattr(place, "failure", lambda run: "")
    monkeypatch.setattr(RunFile, "labels", lambda run, split: np.append(np.zeros(len(run.indices(split)) - 1, int), 1))
    with caplog.at_level(logging.WARNING, "layerwise.analysis"):
        found = module.measured([run_path], module.Asked(pool=0, subsample=2, depths="1-2"), with_similarity=False)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"{run_path}, depths 1, 2: no measures of classes, which need two classes and two images of each",
        f"{run_path}, depths 1, 2: no intrinsic dimension, of 2 different images or all equally far apart",
        f"{run_path}, depths 1, 2: biased CKA, shape distance and NC1 are mostly chance, with 384 features of 359 "
        "images",
    ]
    values = found.geometry.set_index("measure")["value"]
    assert values[["nc1", "twonn", "margin"]].isna().all() and values["effective_rank"].notna().all()
