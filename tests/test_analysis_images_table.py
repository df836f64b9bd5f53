"""Single images of run files: the rows, and what is refused in a clear line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from analysis.images.seeds import averaged
from analysis.images.table import Asked, measured
from analysis.images.votes import ORDERS, Votes, ordered, read_votes
from layerwise.errors import UsageError, UserError
from layerwise.runfile import RunFile
from tests.conftest import make_run
from tests.images_reference import keep, made_up, prediction_depth


@pytest.fixture
def probed(own_run: Path) -> Path:
    """Return a run with made-up predictions of knn and linear."""
    with RunFile(own_run) as run:
        keep(run, made_up(run, seed=1), "knn")
        keep(run, made_up(run), "linear")
    return own_run


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return another run on the same images, with predictions of linear."""
    path = make_run(tmp_path_factory.mktemp("other") / "other.h5", mode="untrained")
    with RunFile(path) as run:
        keep(run, made_up(run, seed=2))
    return path


def test_rows_of_a_run_are_what_its_predictions_say(probed: Path) -> None:
    tables = measured([probed], Asked())
    with RunFile(probed) as run:
        predicted, label, index = made_up(run), run.labels("test"), run.indices("test")
    rows = tables.depths[tables.depths["probe"] == "linear"].set_index(["measure", "depth"])
    settled = np.array(prediction_depth(predicted.tolist()))
    for depth in range(3):
        assert rows.loc[("prediction_depth", depth), "value"] == pytest.approx((settled == depth).mean())
        assert rows.loc[("settled", depth), "value"] == pytest.approx((settled <= depth).mean())
        assert rows.loc[("accuracy", depth), "value"] == pytest.approx((predicted[:, depth] == label).mean())
        own = (predicted[:, 2] == label)[settled == depth]
        assert rows.loc[("settled_accuracy", depth), "value"] == pytest.approx(own.mean())
        assert rows.loc[("settled_accuracy", depth), "n"] == len(own)
    change = rows.loc["learnt", "value"] - rows.loc["lost", "value"]
    assert change.to_numpy() == pytest.approx(rows.loc["change", "value"].to_numpy())
    assert rows.loc[("change", 2), "value"] == pytest.approx(rows.loc["accuracy", "value"].diff()[2])
    assert (rows.loc["change", "p_holm"] >= rows.loc["change", "p"]).all()
    assert set(tables.depths["probe"]) == {"knn", "linear"} and (rows["split"] == "test").all()
    assert (rows["ci_low"] <= rows["value"]).all() and (rows["value"] <= rows["ci_high"]).all()
    single = tables.single[tables.single["probe"] == "linear"].set_index("index")
    assert single.loc[index, "prediction_depth"].tolist() == settled.tolist()
    assert single["right"].mean() == rows.loc[("accuracy", 2), "value"]
    assert tables.pairs.empty


def test_pairs_are_of_one_probe_at_the_depths_of_both_runs(probed: Path, other: Path) -> None:
    tables = measured([probed, other], Asked())
    assert set(tables.pairs["probe"]) == {"linear"}  # the other run has no knn
    assert tables.pairs[["depth_a", "depth_b"]].drop_duplicates().to_numpy().tolist() == [[0, 0], [1, 1], [2, 2]]
    assert tables.pairs.groupby("depth_a")["is_last"].max().tolist() == [0, 0, 1]
    with RunFile(probed) as first, RunFile(other) as second:
        differ = (made_up(first) != made_up(second, seed=2)).mean(axis=0)
    assert tables.pairs.loc[tables.pairs["measure"] == "differ", "value"].to_numpy() == pytest.approx(differ)


def test_images_in_another_order_are_told_by_their_index(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = RunFile.indices
    monkeypatch.setattr(RunFile, "indices", lambda run, split: read(run, split)[::-1])
    with RunFile(own_run) as run:
        keep(run, made_up(run))
        predicted, label, index = made_up(run), run.labels("test"), run.indices("test")
    single = measured([own_run], Asked()).single.set_index("index").loc[index]
    assert single["prediction_depth"].tolist() == prediction_depth(predicted.tolist())
    assert single["right"].tolist() == (predicted[:, -1] == label).astype(int).tolist()


def test_refits_are_read_where_every_depth_has_one(own_run: Path) -> None:
    with RunFile(own_run) as run:
        keep(run, made_up(run, seed=3), refit=0)
        keep(run, made_up(run, seed=4)[:, :2], refit=1)
        first = measured([own_run], Asked()).depths
        assert set(first["refit"]) == {0} and set(first["depth"]) == {0, 1, 2}
        keep(run, made_up(run, seed=4), refit=1)
    assert set(measured([own_run], Asked()).depths["refit"]) == {1}


def test_votes_give_rows_and_columns(probed: Path) -> None:
    with RunFile(probed) as run:
        label = run.labels("test")
        counts = 9 * np.eye(10)[label] + 1
        votes = Votes("votes", counts, index=run.indices("test"))
    tables = measured([probed], Asked(["linear"], votes=votes))
    rows = tables.depths.set_index(["measure", "depth"])
    accuracy = rows.loc["accuracy", "value"]
    assert rows.loc["votes", "value"].to_numpy() == pytest.approx((accuracy * 10 + (1 - accuracy)).to_numpy() / 19)
    assert rows.loc["votes_most", "value"].to_numpy() == pytest.approx(accuracy.to_numpy())
    assert rows.loc["votes_wrong", "value"].to_numpy() == pytest.approx([1 / 19] * 3)
    assert rows.loc["votes_any_wrong", "value"].to_numpy() == pytest.approx([1 / 19] * 3)
    assert tables.single["votes"].isin([10 / 19, 1 / 19]).all()
    assert np.isnan(tables.depths.set_index("measure").loc["depth_entropy", "value"])  # all images are voted on alike
    assert len(rows.loc["people"]) == 1


def test_the_orders_of_votes_lead_to_the_same_images() -> None:
    official = np.random.default_rng(0).integers(0, 3, 12)
    counts = np.eye(3)[official] * 5 + np.arange(12)[:, None] / 100
    by_class = np.argsort(official, kind="stable")
    index = np.random.default_rng(1).permutation(12)  # the run's order of the folder's images
    label = official[by_class][index]
    expected = counts[by_class][index]
    assert (ordered(Votes("v", counts, labels=official), "folder", index, label, 3) == expected).all()
    assert (ordered(Votes("v", counts[by_class]), "index", index, label, 3) == expected).all()
    shuffled = np.random.default_rng(2).permutation(12)
    named = Votes("v", counts[by_class][shuffled], index=shuffled)
    assert (ordered(named, "index", index[:7], label[:7], 3) == expected[:7]).all()


_EYE = np.eye(3)[[0, 1, 2, 2]] * 5


@pytest.mark.parametrize(
    ("votes", "order", "message"),
    [
        (Votes("v", _EYE), "rows", "unknown order of votes 'rows'. Choices: index, folder"),
        (Votes("v", _EYE[:3]), "index", "v has votes on 3 images, but the run has 4 test images, of index 0 to 3. Add"),
        (Votes("v", _EYE[[0, 1, 2, 2, 2]]), "index", "v has votes on 5 images, but the run has 4 test images"),
        (Votes("v", _EYE[:, :2]), "index", r"v: counts is \[4, 2\], but must be \[n, 3\]: a column for each class"),
        (Votes("v", -_EYE), "index", "v: counts holds what is no count"),
        (Votes("v", _EYE * [[1], [1], [0], [1]]), "index", "v: row 2 of counts has no vote \\(1 such rows\\)"),
        (Votes("v", _EYE[::-1]), "index", "by --votes-order index, only 0.0% of the images have their label as the"),
        (Votes("v", _EYE, labels=np.array([0, 1, 2, 1])), "index", "1 of 4 images have another label than in the run"),
        (Votes("v", _EYE, labels=np.array([0, 1, 2])), "index", r"v: labels must be whole numbers \[4\]"),
        (Votes("v", _EYE, index=np.array([0, 1, 2, 2])), "index", "v: index names an image twice"),
        (Votes("v", _EYE, index=np.array([0, 1, 2, 9])), "index", "v has no votes on 1 of the 4 test .*index 3"),
        (Votes("v", _EYE), "folder", "v lacks the array labels, by which rows of a published order are found"),
        (Votes("v", _EYE[:3], labels=np.array([0, 1, 2])), "folder", "v has votes on 3 images, .* image of index 3"),
        (Votes("v", _EYE, labels=np.array([0, 1, 1, 2])), "folder", "1 of 4 images have another label than in the"),
    ],
)  # fmt: skip
def test_votes_that_are_not_the_runs_are_refused(votes: Votes, order: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ordered(votes, order, np.arange(4), np.array([0, 1, 2, 2]), 3)


def test_files_of_votes(tmp_path: Path) -> None:
    path = tmp_path / "votes.npz"
    with pytest.raises(UserError, match="votes.npz does not exist; expected an .npz file with the array counts"):
        read_votes(path)
    path.write_bytes(b"junk")
    with pytest.raises(UserError, match=r"votes.npz cannot be read as .npz \(.*\). Write it by numpy.savez."):
        read_votes(path)
    np.savez(path, votes=_EYE)
    with pytest.raises(UserError, match=r"votes.npz lacks the array counts \[n, K\], .* it has votes"):
        read_votes(path)
    np.savez(path, counts=_EYE, labels=np.arange(4))
    found = read_votes(path)
    assert (found.counts == _EYE).all() and found.labels is not None and found.index is None
    assert ORDERS == ("index", "folder")


def _none(path: Path) -> list[Path]:
    return [path]


def _one_depth(path: Path) -> list[Path]:
    with RunFile(path) as run:
        keep(run, made_up(run)[:, :1])
    return [path]


def _mixed(path: Path) -> list[Path]:
    with RunFile(path) as run:
        keep(run, made_up(run)[:, :2], refit=0)
        keep(run, made_up(run), refit=1)
        with h5py.File(path.with_name("run.predictions.h5"), "a") as file:
            del file[f"{run.run_id}/linear/width-0/seed-0/none/pooling-2/native/depth-00/refit-1"]
            _seal(file)
    return [path]


def _seal(file: h5py.File) -> None:
    from layerwise.runfile.sealed import _digest

    file.attrs["digest"] = _digest(file)


def _twice(path: Path) -> list[Path]:
    with RunFile(path) as run:
        keep(run, made_up(run))
    return [path, Path(shutil.copy(path, path.with_name("copy.h5")))]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_none, "run.h5 has no predictions of single images: .*.h5 does not exist. `probe-depth .*run.h5 --probe "
                "knn,linear` makes them."),
        (_one_depth, "probe linear was fitted at one depth \\(0\\) only. `probe-depth .* makes those of all depths"),
        (_mixed, "probe linear is refitted at some depths only. `probe-depth"),
        (_twice, "run.h5 and .*copy.h5 are the same run"),
    ],
)  # fmt: skip
def test_runs_that_cannot_be_read_are_refused(own_run: Path, make: Callable[[Path], list[Path]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        measured(make(own_run), Asked())


def test_probes_that_are_missing_or_have_several_predictions_are_refused(probed: Path) -> None:
    with pytest.raises(UserError, match="has none of probe ncm, pool 2. `probe-depth .*run.h5 --probe ncm` makes them"):
        measured([probed], Asked(["ncm"]))
    with pytest.raises(UserError, match="has none of probe knn or linear, pool 4. .*--probe knn,linear --pool 4`"):
        measured([probed], Asked(pool=4))
    with pytest.raises(UsageError, match="--votes-order folder is of votes, but none are given. Give --votes"):
        measured([probed], Asked(votes_order="folder"))
    with pytest.raises(UsageError, match="probe 'cnn-1' does not have one prediction .* Choices: knn, linear"):
        measured([probed], Asked(["cnn-1"]))


@pytest.mark.parametrize(
    ("name", "found", "message"),
    [
        ("dataset", property(lambda run: {"name": run.path.stem, "fingerprint": {"test": run.path.stem}}),
         r"their test images differ \(run and other, by fingerprint\). Give runs on the same images, or each alone."),
        ("indices", lambda run, split: np.arange(3) + len(run.path.stem), "they hold other test images of digits"),
    ],
)  # fmt: skip
def test_runs_on_other_images_are_refused(
    probed: Path, other: Path, monkeypatch: pytest.MonkeyPatch, name: str, found: Any, message: str
) -> None:
    monkeypatch.setattr(RunFile, name, found)
    with pytest.raises(UserError, match=f"other.h5 cannot be compared with .*run.h5: {message}"):
        measured([probed, other], Asked())


def test_predictions_of_an_earlier_run_of_that_name_are_not_read(probed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFile, "run_id", property(lambda run: "another"))
    with pytest.raises(UserError, match="has no predictions of single images: .* has none of probe knn or linear"):
        measured([probed], Asked())


def test_pairs_without_a_second_run_are_an_empty_table(probed: Path) -> None:
    assert isinstance(measured([probed], Asked(["knn"])).pairs, pd.DataFrame)


def test_runs_that_differ_in_their_seed_have_rows_of_their_mean(probed: Path, other: Path, tmp_path: Path) -> None:
    again = make_run(tmp_path / "again.h5", seed=1, store="maps")
    with RunFile(again) as run:
        keep(run, made_up(run, seed=5))
    table = measured([probed, again, other], Asked()).depths
    means, single = table[table["run"] == ""], table[table["run"] != ""]
    assert set(means["probe"]) == {"linear"}  # knn is of one run
    assert set(means["mode"]) == {"greedy"} and set(means["n_runs"]) == {2} and set(means["interval"]) == {"seeds"}
    assert set(single["n_runs"]) == {1} and set(single["interval"]) == {"images"}
    own = single[(single["mode"] == "greedy") & (single["probe"] == "linear")]
    for one in means.itertuples():
        parts = own[(own["measure"] == one.measure) & (own["depth"] == one.depth)]
        value = parts["value"].to_numpy()
        images = ((parts["ci_high"] - parts["ci_low"]) / (2 * 1.959964)).to_numpy()
        half = max(12.7062 * abs(value[1] - value[0]) / 2, 1.959964 * np.sqrt(0.5 * np.mean(images**2) / 2))
        assert one.value == pytest.approx(value.mean())
        least = -1 if one.measure == "change" else 0
        assert one.ci_low == pytest.approx(max(least, value.mean() - half), abs=1e-4)
        assert one.ci_high == pytest.approx(min(1, value.mean() + half), abs=1e-4)
        assert np.isnan(one.p) and np.isnan(one.seed)
    assert set(means["measure"]) >= {"accuracy", "settled", "learnt", "lost", "change"}


def test_networks_that_did_not_train_count_for_no_mean(probed: Path) -> None:
    rows = measured([probed], Asked(["linear"])).depths
    other = rows.assign(run="b.h5", run_id="b", seed=1)
    assert len(averaged(pd.concat([rows, other]))) == len(rows)
    assert averaged(pd.concat([rows, other.assign(failed="chance level")])).empty
    assert averaged(pd.concat([rows, other.assign(seed=rows["seed"])])).empty  # not two seeds, but one twice
