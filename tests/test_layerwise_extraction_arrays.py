"""Arrays as a run: which is which depth, whose rows are whose, and every way in which they cannot be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from layerwise.activations import open_activations, pooled_features
from layerwise.api import extract_arrays
from layerwise.datasets.folds import stratified_split
from layerwise.errors import UsageError, UserError
from layerwise.runfile import RunFile

N = 60


def arrays(**changed: Any) -> dict[str, Any]:
    """Return three layers of 60 samples of 3 classes, in another form each; None takes an array away."""
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {
        "stem": rng.normal(size=(N, 2, 6, 6)).astype(np.float32),
        "block": rng.normal(size=(N, 10, 4)),
        "fc": rng.normal(size=(N, 5)).astype(np.float16),
        "labels": np.arange(N) % 3,
    }
    return {name: values for name, values in (made | changed).items() if values is not None}


def extract(folder: Path, given: Any = None, **words: Any) -> RunFile:
    words = {"out": folder / "run.h5", "trained_on": "other-data"} | words
    return extract_arrays(arrays() if given is None else given, **words)


def test_layers_become_depths_from_1_in_their_order(tmp_path: Path) -> None:
    given = arrays()
    with extract(tmp_path, given) as run:
        assert [(j, run.depth_module(j), run.depth_shape(j), run.depth_form(j)) for j in run.depths] == [
            (1, "stem", (2, 6, 6), "maps"),
            (2, "block", (4, 3, 3), "patch tokens"),
            (3, "fc", (5, 1, 1), "vector"),
        ]
        for split in run.splits:
            rows = run.indices(split)
            np.testing.assert_array_equal(run.labels(split), given["labels"][rows])
            np.testing.assert_array_equal(pooled_features(run, 3, split), given["fc"][rows])
            maps = np.concatenate([x.numpy() for x in open_activations(run, 1, split).batches()])
            np.testing.assert_allclose(maps, given["stem"][rows], rtol=2**-10, atol=1e-6)
            np.testing.assert_allclose(run.class_token(2, split)[:], given["block"][rows, 0], rtol=2**-10)  # type: ignore[index]
        assert run.network_name == "arrays" and run.dataset["classes"] == ["0", "1", "2"]


def test_without_splits_they_are_made_as_those_of_digits_are(tmp_path: Path) -> None:
    label = arrays()["labels"]
    train, test = stratified_split(label, 0.2)
    kept, held = stratified_split(label[train], 0.1)
    with extract(tmp_path) as run:
        for split, rows in {"train": train[kept], "validation": train[held], "test": test}.items():
            np.testing.assert_array_equal(run.indices(split), rows)


def test_splits_that_are_given_are_kept(tmp_path: Path) -> None:
    splits = np.array(["train", "test", "val"] * 20)
    with extract(tmp_path, arrays(splits=splits, index=1000 + np.arange(N), labels=np.repeat([0, 1], 30))) as run:
        for place, split in enumerate(("train", "test", "validation")):
            np.testing.assert_array_equal(run.indices(split), 1000 + np.arange(place, N, 3))


def test_a_network_that_has_seen_all_of_train_leaves_no_fold(tmp_path: Path) -> None:
    with extract(tmp_path, arrays(splits=np.array(["train", "test"] * 30)), trained_on="train-split") as run:
        assert run.splits == ["train", "test"]
    splits = np.array(["train", "test", "val"] * 20)
    given = arrays(splits=splits, labels=np.repeat([0, 1], 30))
    with pytest.raises(UserError, match="has a validation split, but trained_on='train-split' says that no sample"):
        extract(tmp_path, given, trained_on="train-split", force=True)


@pytest.mark.parametrize("given", ["splits", "groups"])
def test_a_fold_that_the_network_has_not_seen_is_never_drawn_here(given: str, tmp_path: Path) -> None:
    made, label = arrays(), np.arange(N) % 3
    names = {"splits": ["train", "test"], "groups": []}[given]
    if given == "groups":
        made = {f"{split}/{name}": made[name] for split in ("train", "test") for name in ("fc", "labels")}
    else:
        made |= {"splits": np.array(names * 30)}
    with pytest.raises(
        UserError, match=r"has no validation split, but trained_on='train-fold' says .* Give its samples as validation"
    ):
        extract(tmp_path, made, trained_on="train-fold")
    if given == "groups":
        made |= {"validation/fc": arrays()["fc"], "validation/labels": label}
    else:
        made |= {"splits": np.array(["train", "test", "val"] * 20), "labels": np.repeat([0, 1], 30)}
    with extract(tmp_path, made, trained_on="train-fold") as run:
        assert run.splits == ["train", "validation", "test"]
        assert len(run.labels("validation")) == (N if given == "groups" else N // 3)


@pytest.mark.parametrize("trained_on", ["train-fold", "train-split"])
def test_the_test_split_of_a_network_that_has_seen_samples_is_never_drawn_here(trained_on: str, tmp_path: Path) -> None:
    message = f"does not say which samples are for testing, but trained_on={trained_on!r} says .*Give an array 'splits'"
    with pytest.raises(UserError, match=message):
        extract(tmp_path, trained_on=trained_on)
    assert list(tmp_path.iterdir()) == []


def test_text_in_hdf5_gives_classes_and_splits(tmp_path: Path) -> None:
    names = np.array(["cat", "ant", "bee"] * 20)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["fc"] = arrays()["fc"]
        file["labels"] = names.astype(object)
        file["splits"] = np.repeat(np.array(["train", "test"], dtype="S"), 30)
    with extract(tmp_path, tmp_path / "a.h5") as run:
        assert run.dataset["classes"] == ["ant", "bee", "cat"]
        np.testing.assert_array_equal(run.indices("test"), np.arange(30, 60))
        assert [run.dataset["classes"][label] for label in run.labels("test")] == names[30:].tolist()


@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_grouped_arrays_have_their_splits_in_their_names(ending: str, tmp_path: Path) -> None:
    one = arrays()
    parts = {f"{split}/{name}": one[name] for split in ("train", "test") for name in ("fc", "labels")}
    path = tmp_path / f"features.{ending}"
    if ending == "npz":
        np.savez(path, **parts)
    else:
        with h5py.File(path, "w") as file:
            for name, values in parts.items():
                file[name] = values
    with extract(tmp_path, path) as run:
        assert {split: len(run.labels(split)) for split in run.splits} == {"train": 54, "validation": 6, "test": 60}
        np.testing.assert_array_equal(run.indices("test"), np.arange(N))
        np.testing.assert_array_equal(pooled_features(run, 1, "test"), one["fc"])
        assert run.network_name == run.dataset["name"] == "features"


def test_an_array_named_input_is_depth_0_and_layers_may_be_chosen_in_any_order(tmp_path: Path) -> None:
    given = arrays(input=np.zeros((N, 1, 4, 4)) + np.arange(N)[:, None, None, None])
    with extract(tmp_path, given, layers="f*,stem,input") as run:
        assert [(j, run.depth_module(j)) for j in run.depths] == [(0, "input"), (1, "fc"), (2, "stem")]


def test_the_class_token_alone(tmp_path: Path) -> None:
    given = arrays()
    with extract(tmp_path, given, layers="block", tokens="class") as run:
        assert (run.depth_form(1), run.depth_shape(1)) == ("class token", (4, 1, 1))
        expected = given["block"][run.indices("test"), 0].astype(np.float16)
        np.testing.assert_array_equal(pooled_features(run, 1, "test"), expected)


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (np.array([5, 7, 9] * 20), None, ["5", "7", "9"]),
        (np.array(["cat", "ant", "bee"] * 20), None, ["ant", "bee", "cat"]),
        (np.array([0, 1, 2] * 20), np.array(["x", "y", "z", "none"]), ["x", "y", "z", "none"]),
        (np.array(["cat", "ant", "bee"] * 20), np.array(["cat", "bee", "ant"]), ["cat", "bee", "ant"]),
    ],
)
def test_classes_have_names(
    labels: np.ndarray, classes: np.ndarray | None, expected: list[str], tmp_path: Path
) -> None:
    with extract(tmp_path, arrays(labels=labels, classes=classes)) as run:
        assert run.dataset["classes"] == expected
        found = [expected[label] for label in run.labels("test")]
        names = labels if classes is None or labels.dtype.kind == "U" else classes[labels]
        assert found == names[run.indices("test")].astype(str).tolist()


def with_nan() -> np.ndarray:
    values = np.zeros((N, 3))
    values[31] = np.nan
    return values


def grouped(train: np.ndarray, test: np.ndarray | None) -> dict[str, Any]:
    labels = np.arange(60) % 3
    made = {"train/a": train, "train/labels": labels, "test/a": test, "test/labels": labels}
    return {name: values for name, values in made.items() if values is not None}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (arrays(labels=None), "the arrays has no array 'labels'. Give the class of each sample there, in the order "),
        (arrays(labels=None), "the rows. It has stem, block, fc"),
        (arrays(stem=None, block=None, fc=None), "the arrays holds no array of a layer (found: labels)"),
        (arrays(fc=np.zeros((59, 5))), "fc has 59 rows, but labels has 60. Each array needs a row for each sample"),
        (arrays(index=np.arange(3)), "index has 3 rows, but labels has 60"),
        (arrays(labels=np.zeros(N)), "labels has 60 values of type float64, but the classes must be integers or text"),
        (arrays(labels=np.ones(N, int)), "all labels are 1, but at least two classes are needed"),
        (arrays(labels=np.arange(N) % 3, classes=np.array(["a"])), "labels reach from 0 to 2, but `classes` names 1"),
        (arrays(labels=np.array(["a", "b"] * 30), classes=np.array(["a"])), "a label is 'b', which is not am"),
        (arrays(splits=np.array(["train", "tset"] * 30)), "splits has 'tset', but each must be train, valid"),
        (arrays(splits=np.array(["train"] * N)), "has the splits train, validation, but train and test are needed"),
        (arrays(fc=np.zeros((N, 2), dtype=complex)), "fc is of type 'c', but real numbers are needed"),
        (arrays(fc=np.zeros((N, 1, 1, 1, 2))), "array fc has an output of n x 1 x 1 x 1 x 2, but maps"),
        (arrays(fc=with_nan()), "layer fc (depth 3) has NaN or infinity for sample"),
        (arrays(index=np.linspace(0, 1, N)), "index is of type float64, but positions must be integers"),
        (grouped(np.zeros((60, 2)), np.zeros((60, 3))), "a has rows of another shape in another split"),
        (grouped(np.zeros((60, 2)), None), "has train/a, but no test/a"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_run_are_named_in_one_line(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        extract(tmp_path, given)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_layers_that_are_not_there_are_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no array of the arrays is named or matches 'stam'. Nearest: stem."):
        extract(tmp_path, layers="stam")


def test_where_the_validation_fold_stands_must_be_said(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="arrays do not say whether their network has seen the validation fold. Say it"
    ):
        extract(tmp_path, trained_on=None)
    with pytest.raises(UsageError, match="unknown trained_on 'nothin'. Did you mean 'nothing'"):
        extract(tmp_path, trained_on="nothin")
