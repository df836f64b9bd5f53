"""Labels of arrays: their kinds, the samples that have none, and what is said of classes that a split lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from layerwise.activations import pooled_features
from layerwise.api import extract_arrays
from layerwise.commandline import set_verbosity
from layerwise.errors import UserError
from layerwise.runfile import RunFile

N = 60
Y = np.arange(N) % 3
NAMES = np.array(["ant", "bee", "cat"])[Y]
SPLITS = np.array((["train"] * 3 + ["validation"] * 3 + ["test"] * 3) * 7)[:N]
FEATURES = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float16).astype(np.float32)


def extract(folder: Path, **changed: Any) -> RunFile:
    given = {"fc": FEATURES, "labels": Y, "splits": SPLITS} | changed
    given = {name: values for name, values in given.items() if values is not None}
    return extract_arrays(given, out=folder / "run.h5", trained_on="other-data", force=True)


def saved(folder: Path, **arrays: Any) -> RunFile:
    np.savez(folder / "a.npz", fc=FEATURES, splits=SPLITS, **arrays)
    return extract_arrays(folder / "a.npz", out=folder / "run.h5", trained_on="other-data", force=True)


@pytest.fixture(autouse=True)
def loud() -> None:
    set_verbosity(quiet=False, verbose=False)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (pd.Series(NAMES), ["ant", "bee", "cat"]),
        (NAMES.astype(object), ["ant", "bee", "cat"]),
        (pd.Categorical(NAMES), ["ant", "bee", "cat"]),
        (pd.Series(NAMES, dtype="string"), ["ant", "bee", "cat"]),
        (np.array([name.encode() for name in NAMES], dtype=object), ["ant", "bee", "cat"]),
        (NAMES.tolist(), ["ant", "bee", "cat"]),
        (pd.Series(Y, dtype="Int64"), ["0", "1", "2"]),
        (Y.astype(object), ["0", "1", "2"]),
        (torch.from_numpy(Y), ["0", "1", "2"]),
        (Y.astype(np.uint8), ["0", "1", "2"]),
        (Y == 1, ["False", "True"]),
        (np.where(Y == 1, 1, -1), ["-1", "1"]),
        (np.array(["None", "NA", "nan"])[Y], ["NA", "None", "nan"]),
    ],
)
def test_labels_are_taken_whatever_their_array(labels: Any, classes: list[str], tmp_path: Path) -> None:
    with extract(tmp_path, labels=labels) as run:
        assert run.dataset["classes"] == classes
        values = labels.tolist() if isinstance(labels, torch.Tensor) else list(labels)
        expected = np.array([classes.index(v.decode() if isinstance(v, bytes) else str(v)) for v in values])
        for split in run.splits:
            np.testing.assert_array_equal(run.labels(split), expected[run.indices(split)])
            np.testing.assert_array_equal(run.indices(split), np.flatnonzero(split == SPLITS))


def test_bytes_in_a_file_are_text_in_utf8(tmp_path: Path) -> None:
    names = np.array(["caf\u00e9".encode(), b"bee", b"cat"])
    with saved(tmp_path, labels=names[Y], classes=names) as run:
        assert run.dataset["classes"] == ["caf\u00e9", "bee", "cat"]
        np.testing.assert_array_equal(run.labels("test"), Y[run.indices("test")])


@pytest.mark.parametrize("grouping", ["splits", "none", "groups"])
@pytest.mark.parametrize("kind", ["-1", "text", "-1 as text", "classes"])
def test_samples_without_a_class_are_left_out_and_counted(
    kind: str, grouping: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    has_none = np.arange(N) % 4 == 0
    labels = np.where(has_none, -1, Y)
    given: dict[str, Any] = {"classes": NAMES[:3]} if kind == "classes" else {}
    if kind == "text":
        labels = np.where(has_none, "", NAMES)
    elif kind == "-1 as text":
        labels = labels.astype(str)
    features = FEATURES.copy()
    features[has_none] = np.nan  # which nobody reads
    if grouping == "groups":
        for split, head in (("train", "train"), ("validation", "val"), ("test", "test")):
            own = split == SPLITS
            given |= {f"{head}/fc": features[own], f"{head}/labels": labels[own], f"{head}/index": np.flatnonzero(own)}
        given |= {"fc": None, "labels": None, "splits": None}
    else:
        given |= {"fc": features, "labels": labels, "splits": SPLITS if grouping == "splits" else None}
    with extract(tmp_path, **given) as run:
        assert run.dataset["classes"] == (["0", "1", "2"] if kind in ("-1", "-1 as text") else ["ant", "bee", "cat"])
        rows = np.concatenate([run.indices(split) for split in run.splits])
        assert sorted(rows) == np.flatnonzero(~has_none).tolist()
        for split in run.splits:
            own = run.indices(split)
            if grouping != "none":
                np.testing.assert_array_equal(own, np.flatnonzero((split == SPLITS) & ~has_none))
            np.testing.assert_array_equal(run.labels(split), Y[own])
            np.testing.assert_array_equal(pooled_features(run, 1, split), FEATURES[own])
    said = capsys.readouterr().err
    assert "the arrays: 15 of 60 samples have the label" in said and "they are left out" in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": [None, *NAMES[1:]]}, "labels has 60 values of type object, but the classes must be integers or te"),
        ({"labels": [None, *NAMES[1:]]}, "Row 0 is None; write -1 for a sample without a class"),
        ({"labels": [*NAMES[1:], float("nan")]}, "Row 59 is nan"),
        ({"labels": Y.astype(float)}, "Convert them by .astype(int)."),
        ({"labels": np.where(Y == 2, -100, Y)}, "20 labels are -100, but classes are numbered from 0, and -1 says"),
        ({"labels": np.eye(3)[Y]}, "'labels' has 2 axes, but one value for each sample is needed"),
        ({"labels": np.full(N, -1)}, "no sample has a label, but at least two classes are needed"),
        ({"labels": np.where(Y == 2, -1, 0)}, "all labels are 0, but at least two classes are needed"),
        ({"classes": ["a", "b", "a"]}, "`classes` names 'a' more than once. Give each class its own name"),
        ({"labels": np.array(["a", "\ud800", "c"])[Y]}, "'labels' holds text that is not UTF-8. Save it anew"),
        ({"fc": [[1.0], [1.0, 2.0]]}, "the arrays: array 'fc' is no array ("),
        ({"fc": np.ma.masked_less(FEATURES, 0)}, "array 'fc' is masked, and masked values are none. Fill them"),
        ({"\udcff": FEATURES}, r"has an array named '\udcff', but names must be one line of text. Rename it"),
        ({"\x1b[31m": FEATURES}, r"has an array named '\x1b[31m', but names must be one line of text"),
        ({"fc": FEATURES.astype(str)}, "fc is of type 'U', but real numbers are needed"),
    ],
)  # fmt: skip
def test_labels_that_are_none_are_named(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        extract(tmp_path, **given)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["S", "U"])
def test_bytes_that_are_no_text_are_named(kind: str, tmp_path: Path) -> None:
    bad = np.array([b"caf\xe9"] * N) if kind == "S" else np.full(N, 2**32 - 1, np.uint32).view("<U1")
    with pytest.raises(UserError, match="a.npz: 'labels' holds text that is not UTF-8. Save it anew, as text"):
        saved(tmp_path, labels=bad)


def test_keys_that_read_alike_are_not_merged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two keys read alike as text, such as 1 and '1'"):
        extract_arrays({1: FEATURES, "1": FEATURES, "labels": Y}, out=tmp_path / "r.h5", trained_on="nothing")  # type: ignore[dict-item]


def test_classes_that_a_split_lacks_are_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.where(SPLITS == "test", np.arange(N) % 2, 2 + np.arange(N) % 2)
    extract(tmp_path, labels=labels, classes=["a", "b", "c", "d", "of none"]).close()
    assert "train has no sample of a, b; test has no sample of c, d\n" in capsys.readouterr().err


def test_a_class_of_one_sample_is_for_training(tmp_path: Path) -> None:
    labels = Y.copy()
    labels[7] = 77
    given = {"fc": FEATURES, "labels": labels}
    with extract_arrays(given, out=tmp_path / "r.h5", trained_on="other-data", holdout=0) as run:
        assert 7 in run.indices("train") and run.dataset["classes"] == ["0", "1", "2", "77"]
    with pytest.raises(UserError, match=r"class 77 has 1 training images, .* Give another holdout=..., or 0 for none"):
        extract_arrays(given, out=tmp_path / "s.h5", trained_on="other-data")


@pytest.mark.parametrize("dtype", [np.float64, np.longdouble])
def test_numbers_beyond_float32_are_called_so(dtype: type, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    features = FEATURES.astype(dtype)
    features[31, 2] = 1e300
    with pytest.raises(
        UserError, match=r"the arrays: array fc has 1e\+300 in row 31, beyond float32 \(3.4e\+38\), in which"
    ):
        extract(tmp_path, fc=features)
    assert not recwarn.list


def test_tensors_are_arrays(tmp_path: Path) -> None:
    wanted = torch.from_numpy(FEATURES).bfloat16().float().numpy()
    for values in (torch.from_numpy(FEATURES).bfloat16(), torch.from_numpy(wanted).requires_grad_()):
        with extract(tmp_path, fc=values) as run:
            np.testing.assert_array_equal(pooled_features(run, 1, "test"), wanted[run.indices("test")])
