"""Probes evaluated on images that are no part of the run: same images same numbers, other classes, bad folders."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_run, small_config
from PIL import Image
from sklearn.naive_bayes import GaussianNB

import figures
import layerwise
import probes
from figures.tables import shifts_table
from layerwise.commandline import call
from layerwise.datasets.corrupted_sets import Made, note_made
from layerwise.datasets.shown import find_shown, read_shown
from layerwise.errors import UsageError, UserError
from layerwise.export import corrupt_run
from layerwise.runfile import RunFile
from layerwise.runfile.place import Place
from layerwise.training.run import train_run
from probes.cli import probe
from probes.results.table import read_rows
from probes.shown.run import ShownRun
from probes.shown.shift import index_of

SIX = ["linear", "knn", "ncm", "auxiliary", "ensemble", "cnn-1"]
QUICK = ["--probe-width", "4", "--epochs", "1", "--no-pixels"]


def run_probe(path: Path, *words: object) -> int:
    return call(probe, "probe-depth", [str(path), "--device", "cpu", *map(str, words)])


def write_images(folder: Path, run: Path, only: int = 10**9, shift: int = 0) -> Path:
    """Write test images of a run into folders named as their classes; shift: of grey levels."""
    with RunFile(run) as opened:
        classes = opened.dataset["classes"]
        for i, (image, label) in enumerate(zip(opened.images("test")[:], opened.labels("test"), strict=True)):
            if i < only:
                (folder / classes[label]).mkdir(parents=True, exist_ok=True)
                pixels = np.clip(image[0].astype(int) + shift, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / classes[label] / f"{i:03d}.png")
    return folder


@pytest.fixture(scope="module")
def clean(run_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the test images of the small run as a folder of image files."""
    return write_images(tmp_path_factory.mktemp("shown") / "clean", run_path)


def rows(path: Path) -> pd.DataFrame:
    return pd.read_csv(path.with_suffix(".probes.csv"), keep_default_na=False, na_values=[""])


def scores(table: pd.DataFrame, split: str) -> pd.Series:
    """Return the numbers of the last fits on a split."""
    own = table[(table.split == split) & ~table.metric.str.contains("gain|gap")]
    key = ["depth", "probe", "probe_width", "pooling"]
    own = own[own.refit == own.groupby(key).refit.transform("max")]
    return own.set_index([*key, "metric"])["value"].sort_index()


def test_the_runs_own_test_images_from_files_give_its_own_numbers(own_run: Path, clean: Path) -> None:
    assert run_probe(own_run, "--probe", ",".join(SIX), *QUICK, "--depths", "2", "--evaluate", clean) == 0
    table = rows(own_run)
    test, shown = scores(table, "test"), scores(table, "clean")
    pd.testing.assert_series_equal(shown, test, rtol=1e-3, atol=1e-4)
    accuracy = [name for name in test.index if name[-1] == "accuracy"]
    assert (shown[accuracy] == test[accuracy]).all()
    assert {name[1] for name in test.index} == set(SIX)
    assert table[table.split == "clean"][["ci_low", "ci_high"]].notna().any(axis=None)


def test_the_rows_say_what_was_shown_and_of_which_fit(own_run: Path, clean: Path) -> None:
    assert run_probe(own_run, "--depths", "1", "--evaluate", clean) == 0
    table = rows(own_run)
    own = table[table.split == "clean"]
    assert set(own.images_folder) == {str(clean)} and own.images_digest.str.len().eq(64).all()
    assert table[table.split != "clean"].images_digest.isna().all()
    assert (own.n_samples == 359).sum() == len(own) and set(own.test_reads) == {1}
    last = table[(table.split == "test") & (table.refit == 1) & (table.metric == "accuracy")].iloc[0]
    for name in ("lambda", "certificate", "converged", "n_train", "selection", "refit"):
        assert set(own[name]) == {last[name]}


@pytest.mark.parametrize("name", ["linear", "knn", "ensemble", "cnn-1"])
def test_probes_of_an_earlier_command_are_evaluated_without_the_test_split(
    name: str, own_run: Path, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copy(own_run, tmp_path / "other.h5"))
    words = ["--probe", name, *QUICK, "--depths", "2"]
    assert run_probe(other, *words, "--evaluate", clean) == 0
    assert run_probe(own_run, *words) == 0
    before = rows(own_run).drop(columns="digest")

    for reader in ("labels", "images", "pooled", "maps", "outputs"):
        read = getattr(RunFile, reader)
        monkeypatch.setattr(RunFile, reader, lambda self, *which, read=read: _unless_test(read, self, *which))
    assert run_probe(own_run, *words, "--evaluate", clean) == 0
    after = rows(own_run)
    kept = after[after.split != "clean"].drop(columns="digest").reset_index(drop=True)
    pd.testing.assert_frame_equal(kept[before.columns], before, check_dtype=False)
    pd.testing.assert_series_equal(scores(after, "clean"), scores(rows(other), "clean"), rtol=1e-3, atol=1e-3)


def _unless_test(read: object, run: RunFile, *which: object) -> object:
    assert "test" not in which, "the test split is read again"
    return read(run, *which)  # type: ignore[operator]


def test_what_was_evaluated_is_not_evaluated_again_and_goes_with_its_fit(
    own_run: Path, clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--depths", "1", "--probe", "ncm"]
    assert run_probe(own_run, *words, "--evaluate", clean) == 0
    first = rows(own_run)
    with monkeypatch.context() as patched:
        patched.setattr("probes.shown.evaluate._shown", lambda *what: pytest.fail("evaluated again"))
        assert run_probe(own_run, *words, "--evaluate", clean) == 0
    pd.testing.assert_frame_equal(rows(own_run), first)
    assert run_probe(own_run, *words, "--force") == 0
    assert "clean" not in set(rows(own_run).split)


def test_several_sets_below_a_folder_are_named_by_their_place(
    own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for severity in (1, 3):  # names that are classes of digits too
        write_images(tmp_path / "digits-c" / "bright" / str(severity), own_run, only=60, shift=40 * severity)
    write_images(tmp_path / "digits-c" / "test", own_run, only=60)
    assert run_probe(own_run, "--probe", "ncm", "--evaluate", tmp_path / "digits-c") == 0
    out = capsys.readouterr().out.splitlines()
    names = ["bright/1", "bright/3", "digits-c/test"]
    assert sorted(set(rows(own_run).split) - {"train", "validation", "test"}) == names
    start = next(i for i, line in enumerate(out) if line.endswith("accuracy in % by depth"))
    assert [line.split()[0] for line in out[start + 2 : start + 6]] == ["test", *names]
    assert all(len(line.replace(str(own_run.parent), "")) <= 80 for line in out)


def test_classes_are_matched_by_name_and_what_is_missing_is_said(
    own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_images(tmp_path / "some", own_run)
    for name in ("0", "7"):
        shutil.rmtree(folder / name)
    shutil.copytree(folder / "5", folder / "zebra")
    (folder / "notes.txt").write_text("x")
    assert run_probe(own_run, "--depths", "2", "--probe", "ncm", "--evaluate", folder) == 0
    err = capsys.readouterr().err
    assert "some: no image of 2 of the 10 classes (0, 7), so that its accuracy is that of the others" in err
    assert "some: not read are 1 folders that are no classes of the run (zebra)" in err
    assert "some: not read are files that do not end as images do: 1 (1 .txt)" in err
    table = rows(own_run)
    with RunFile(own_run) as run:
        kept = ~np.isin(run.labels("test"), (0, 7))
    own = table[(table.split == "some") & (table.metric == "accuracy")].iloc[0]
    assert own.n_samples == kept.sum() and own.value > 0.5
    present = table[(table.split == "some")].metric.str.startswith("accuracy/").sum()
    assert present == 8


def folder_of(tmp_path: Path, what: str, run: Path) -> Path:
    folder = tmp_path / "bad"
    (folder / ("cat" if what == "other classes" else "3")).mkdir(parents=True)
    size, mode = ((9, 8), "L") if what == "another size" else ((8, 8), "RGB" if what == "colour" else "L")
    if what not in ("empty", "no folder", "broken"):
        Image.new(mode, size, 7).save(folder / ("cat" if what == "other classes" else "3") / "a.png")
    if what == "broken":
        (folder / "3" / "a.png").write_text("no")
    if what == "no folder":
        shutil.rmtree(folder)
    return folder


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("other classes", "bad has no folder of images that is named as a class of {run} (0, 1, 2, 3, 4 and 5 more), "
         "nor have its folders (found: cat). Expected CLASS/*.png, or NAME/CLASS/*.png for several sets."),
        ("empty", "nor have its folders (found: 3)."),
        ("no folder", "bad does not exist; expected one of folders that are named as the classes of the run"),
        ("another size", "images of different sizes: run.h5 has 8x8 pixels, {folder}/3/a.png has 9x8. Bring them to "
         "the size of the images that the network was trained on."),
        ("colour", "{folder}/3/a.png is in colour, but the images of run.h5 are grey. Convert it to grey."),
        ("broken", "{folder}/3/a.png cannot be read as an image"),
    ],
)  # fmt: skip
def test_bad_folders_are_one_line_before_anything_is_fitted(
    what: str, message: str, own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path, what, own_run)
    assert run_probe(own_run, "--evaluate", folder) == 1
    *notes, err = capsys.readouterr().err.strip().splitlines()
    assert message.format(run=own_run, folder=folder) in err
    assert all(note.startswith("bad: no image of 9 of the 10 classes") for note in notes)
    assert not own_run.with_suffix(".probes.csv").exists()


def test_other_labels_are_refused(own_run: Path, clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_probe(own_run, "--control", "permuted", "--evaluate", clean) == 2
    assert "--evaluate is of the classes, which folders name" in capsys.readouterr().err
    with pytest.raises(UsageError, match="evaluate=... is of the classes"):
        probes.fit(own_run, control="teacher", evaluate=clean)


def test_two_sets_of_one_name_are_refused(own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [write_images(tmp_path / one / "noise", own_run, only=20) for one in "ab"]
    assert run_probe(own_run, "--evaluate", folders[0], "--evaluate", folders[1]) == 1
    assert "are both called 'noise' in the rows. Rename one of them." in capsys.readouterr().err


def test_a_probe_that_is_not_the_one_of_the_table_is_refused(
    own_run: Path, clean: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_probe(own_run, "--depths", "1", "--no-pixels") == 0
    monkeypatch.setattr("probes.linear.probe.chosen_penalty", lambda *what: 30.0)
    assert run_probe(own_run, "--depths", "1", "--no-pixels", "--evaluate", clean) == 1
    err = capsys.readouterr().err
    assert "depth 1: probe linear fitted again is not the one in the table (accuracy" in err
    assert "--force fits it anew, and evaluates that fit." in err
    assert "clean" not in set(rows(own_run).split)


def test_a_dry_run_names_the_sets_and_reads_none(
    own_run: Path, clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_probe(own_run, "--depths", "1", "--evaluate", clean, "--dry-run") == 0
    assert f"{own_run}: to evaluate on clean: 359 images of 10 classes" in capsys.readouterr().out
    assert not own_run.with_suffix(".probes.csv").exists()


def test_a_run_without_its_network_says_so(tmp_path: Path, clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    arrays = {"layer1": rng.normal(size=(200, 6)), "labels": np.arange(200) % 2}
    with layerwise.extract_arrays(arrays, trained_on="nothing", out=tmp_path / "arrays.h5"):
        pass
    assert run_probe(tmp_path / "arrays.h5", "--evaluate", clean) == 1
    assert "holds no network, only arrays, so no other images can be shown to it." in capsys.readouterr().err


def test_the_python_api_returns_the_rows_of_a_users_classifier_too(own_run: Path, clean: Path) -> None:
    model = GaussianNB()
    table = probes.fit(own_run, ["ncm", model], depths=2, evaluate=str(clean), quiet=True)
    assert set(table["split"]) == {"train", "validation", "test", "clean"}
    pd.testing.assert_series_equal(scores(table, "clean"), scores(table, "test"), rtol=1e-3, atol=1e-4)
    again = probes.fit(own_run, model, depths=2, evaluate=[clean], quiet=True)
    assert len(again) == (table["probe"] == "GaussianNB").sum()


def test_images_of_a_resized_folder_are_resized_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(12):
                pixels = rng.integers(0, 120 + 100 * (name == "b"), (14, 16, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{i}.png")
    fields = {"data.dataset": "imagefolder", "data.image_size": 8, "data.eval_resize": 9, "training.epochs": 1}
    place = Place(out=tmp_path / "run.h5", device=torch.device("cpu"), max_size=10**9, data_dir=tmp_path / "data")
    train_run(small_config(**fields), place)
    assert run_probe(tmp_path / "run.h5", "--probe", "ncm", "--evaluate", tmp_path / "data" / "test") == 0
    table = rows(tmp_path / "run.h5")
    name = next(iter(set(table.split) - {"train", "validation", "test"}))
    assert name == "data/test"
    pd.testing.assert_series_equal(scores(table, name), scores(table, "test"), rtol=1e-3, atol=1e-4)


def test_a_shown_run_is_the_run_with_one_more_split(own_run: Path, clean: Path) -> None:
    with ShownRun(own_run, torch.device("cpu")) as run:
        (found,) = find_shown(clean, run.dataset["classes"], "run.h5")
        images = read_shown(found, run.form)
        run.show(images)
        order = np.argsort(np.concatenate([[int(Path(p).stem) for p in files] for files in found.files.values()]))
        np.testing.assert_array_equal(run.labels("clean")[order], run.labels("test"))
        np.testing.assert_array_equal(run.images("clean")[order], run.images("test")[:])
        for j in run.depths:
            stored, computed = run.pooled(j, "test")[:], run.pooled(j, "clean")[order]
            assert computed.dtype == stored.dtype
            np.testing.assert_allclose(computed.astype(float), stored.astype(float), rtol=2e-3, atol=1e-5)
        assert read_rows(run).empty and run.splits == ["train", "validation", "test"]


def test_the_only_fit_of_a_run_without_a_fold_is_evaluated(tmp_path: Path) -> None:
    path = make_run(tmp_path / "foldless.h5", **{"data.holdout": 0.0, "training.epochs": 1})
    folder = write_images(tmp_path / "clean", path)
    assert run_probe(path, "--depths", "2") == 0
    assert run_probe(path, "--depths", "2", "--evaluate", folder) == 0
    table = rows(path)
    assert set(table.refit) == {0}
    accuracy = table[(table.metric == "accuracy")].set_index("split").value
    assert accuracy["clean"] == pytest.approx(accuracy["test"], abs=0.004)


def test_classes_whose_folders_would_have_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run.h5 has several classes whose folders would have one name \(a/b\)"):
        find_shown(tmp_path, ["a/b", "a_b"], "run.h5")


def test_what_a_corruption_costs_is_paired_with_the_same_images(own_run: Path, tmp_path: Path) -> None:
    with RunFile(own_run) as run:
        corrupt_run(run, tmp_path / "c", corruptions=["contrast"], severities=[1, 5])
        fingerprint, index, label = run.dataset["fingerprint"]["test"], run.indices("test"), run.labels("test")
    shutil.copytree(tmp_path / "c" / "contrast" / "5", tmp_path / "unknown")
    note_made(tmp_path / "c", {"contrast/1": Made("digits", "0" * 64, 0)})  # of other images
    folders = [word for name in ("c", "unknown") for word in ("--evaluate", tmp_path / name)]
    assert run_probe(own_run, "--probe", "ncm,linear", "--depths", "1,2", *QUICK[-1:], *folders) == 0
    table = rows(own_run)
    shift = table[table.metric == "shift"]
    assert set(shift.split) == {"contrast/5"} and set(zip(shift.probe, shift.depth, strict=True)) == {
        (probe, depth) for probe in ("linear", "ncm") for depth in (1, 2)
    }
    accuracy = table[(table.metric == "accuracy")].groupby(["probe", "depth", "split", "refit"]).value.first()
    p = table[table.metric == "shift_p"].set_index(["probe", "depth"]).value
    for one in shift.itertuples():
        place = (one.probe, one.depth)
        change = accuracy[(*place, "contrast/5", one.refit)] - accuracy[(*place, "test", one.refit)]
        assert one.value == pytest.approx(change) and one.ci_low < one.value < one.ci_high < 0
        assert one.n_samples == 359 and p[place] < 0.001
    # The slow form: outcomes of each image by its file, beside those kept of the test split.
    with ShownRun(own_run, torch.device("cpu")) as run:
        (found,) = find_shown(tmp_path / "c" / "contrast" / "5", run.dataset["classes"], "run.h5")
        order = index_of(found, run)
        images = read_shown(found, run.form)
        by_index = dict(zip(index, label, strict=True))
        assert order is not None and [by_index[one] for one in order] == images.label.tolist()
        assert run.dataset["fingerprint"]["test"] == fingerprint
    numbers = figures.table(own_run, "shifts", probes="ncm")
    assert numbers["difference"].tolist() == pytest.approx(shift[shift.probe == "ncm"].value.tolist())
    shown = shifts_table(numbers)
    assert shown.head == ["run", "probe", "images", "j = 1", "j = 2"]
    assert all(re.fullmatch(r"-\d+\.\d\d\* \[-\d+\.\d\d, -\d+\.\d\d\]", cell) for cell in shown.rows[0][3:])
    with pytest.raises(UserError, match="no probe of these runs was evaluated on their own test images, changed."):
        figures.table(own_run, "shifts", probes="knn")
