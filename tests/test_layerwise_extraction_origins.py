"""What is said of an extraction: checked where it is made, and all of it kept."""

from __future__ import annotations

import json

import numpy as np
import pytest

from layerwise.errors import UsageError, UserError
from layerwise.extraction.origins import Origin, fingerprint_of, holdout_of, require_fold
from layerwise.runfile.writer import dataset_attribute


def test_all_of_it_is_kept_as_json() -> None:
    facts = {"model": "m", "arguments": {"b": 1, "a": (2, 3)}}
    origin = Origin(label="net", trained_on="train-fold", seed=2, facts=facts)
    expected = {"label": "net", "trained_on": "train-fold", "seed": 2, "model": "m", "arguments": {"b": 1, "a": [2, 3]}}
    assert json.loads(origin.to_json()) == expected


def test_a_file_says_one_thing_of_its_data_whoever_writes_it() -> None:
    assert json.loads(dataset_attribute("d", ("x", "y"), (0.5,), (0.2,), {"train": "f"})) == {
        "name": "d",
        "classes": ["x", "y"],
        "normalisation": {"mean": [0.5], "std": [0.2]},
        "fingerprint": {"train": "f"},
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"trained_on": "test"},
            "unknown --trained-on 'test'. .*Choices: nothing, other-data, train-fold, train-sp",
        ),
        ({"label": ""}, "--label is '', but must be one line of text"),
        ({"seed": 2**32}, r"--seed is 4294967296, but must be an integer in \[0, 2\^32\)"),
    ],
)
def test_what_cannot_be_is_refused(words: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Origin(**({"label": "net", "trained_on": "nothing"} | words))  # type: ignore[arg-type]


def test_a_network_that_has_seen_the_train_split_leaves_no_fold() -> None:
    assert [holdout_of(name, 0.1) for name in ("nothing", "other-data", "train-fold", "train-split")] == [
        0.1,
        0.1,
        0.1,
        0,
    ]


def test_a_fold_that_was_seen_and_an_unseen_one_that_is_not_there_are_refused() -> None:
    require_fold("train-fold", True, "the data")
    require_fold("train-split", False, "the data")
    with pytest.raises(UserError, match="the data has a validation split, but --trained-on train-split says that no"):
        require_fold("train-split", True, "the data")
    with pytest.raises(UserError, match="the data has no validation split, but --trained-on train-fold says that one"):
        require_fold("train-fold", False, "the data")


def test_the_fingerprint_depends_on_labels_and_positions() -> None:
    a, b = np.arange(3), np.arange(3)[::-1].copy()
    assert len({fingerprint_of(a, a), fingerprint_of(a, b), fingerprint_of(b, a)}) == 3
    assert fingerprint_of(a, b) == fingerprint_of(a.copy(), b.copy())
