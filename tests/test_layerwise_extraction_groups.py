"""Groups of arrays by what others call the splits; whatever stands beside them is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layerwise.api import extract_arrays
from layerwise.commandline import set_verbosity
from layerwise.errors import UserError

SIZES = {"train": 30, "validation": 12, "test": 18}


def grouped(**names: str) -> dict[str, Any]:
    """Return arrays of each split below the name given for it."""
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {}
    for split, name in names.items():
        made |= {f"{name}/fc": rng.normal(size=(SIZES[split], 3)), f"{name}/labels": np.arange(SIZES[split]) % 3}
    return made


@pytest.mark.parametrize("train", ["train", "Train", "training"])
@pytest.mark.parametrize("validation", ["val", "valid", "dev", "validation", "VAL"])
@pytest.mark.parametrize("test", ["test", "testing"])
def test_groups_are_called_as_others_call_them(train: str, validation: str, test: str, tmp_path: Path) -> None:
    given = grouped(test=test, validation=validation, train=train)
    with extract_arrays(given, out=tmp_path / "r.h5", trained_on="train-fold") as run:
        assert {split: len(run.labels(split)) for split in run.splits} == SIZES
        np.testing.assert_allclose(run.pooled(1, "validation")[:].reshape(12, 3), given[f"{validation}/fc"], rtol=1e-3)


def test_words_of_splits_are_read_as_groups_are(tmp_path: Path) -> None:
    splits = np.array(["Train", "VAL", "testing"] * 20)
    given = {"fc": np.zeros((60, 2)), "labels": np.repeat([0, 1], 30), "splits": splits}
    with extract_arrays(given, out=tmp_path / "r.h5", trained_on="train-fold") as run:
        assert {split: len(run.labels(split)) for split in run.splits} == dict.fromkeys(SIZES, 20)


def test_arrays_beside_the_groups_are_counted_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_verbosity(quiet=False, verbose=False)
    given = grouped(train="train", test="test") | {"extra/fc": np.zeros(3), "labels": np.zeros(3)}
    given |= {"classes": ["a", "b", "c"], "train/classes": ["x", "y", "z"], "test/splits": ["train"] * 18}
    with extract_arrays(given, out=tmp_path / "r.h5", trained_on="other-data") as run:
        assert run.dataset["classes"] == ["a", "b", "c"]
    assert (
        "the arrays: not read are arrays beside the groups train/, test/: 4 (extra/fc, labels, train/classes, "
        "test/splits)\n"
    ) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (grouped(train="train", test="test") | grouped(validation="val") | {"valid/fc": np.zeros(3)},
         "has both val/ and valid/, which are both validation. Give one"),
        (grouped(train="train", test="test") | {"test/fc2": np.zeros((18, 2))},
         "has test/fc2, but no train/fc2. Give it to both, or choose by layers=..."),
        (grouped(validation="val", test="test"), "has the splits test, validation, but train and test are needed"),
    ],
)  # fmt: skip
def test_groups_that_do_not_fit_are_named(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        extract_arrays(given, out=tmp_path / "r.h5", trained_on="other-data")
    assert message in str(error.value)


def test_a_layer_of_one_group_alone_may_be_left_out(tmp_path: Path) -> None:
    given = grouped(train="train", test="test") | {"test/fc2": np.zeros((18, 2))}
    with extract_arrays(given, out=tmp_path / "r.h5", trained_on="other-data", layers="fc") as run:
        assert [run.depth_module(j) for j in run.depths] == ["fc"]
