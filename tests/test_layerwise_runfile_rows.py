"""Rows of a run file answer every subscript as numpy does, or raise as numpy does, and read nothing they should not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from layerwise.errors import UserError
from layerwise.runfile import Rows, RunFile
from layerwise.runfile.writer import create_run

SHAPE = (23, 3, 2, 4)
VALUES = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
MASK = np.arange(23) % 3 == 1


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("rows") / "run.h5"
    with create_run(path, force=False) as writer:
        writer.array("before", np.full(64, 7, np.float32))  # what rows before the first, or beyond the last, would be
        writer.array("a", VALUES)
        writer.array("behind", np.full(64, 9, np.float32))
        writer.attributes("provenance", {"run_id": "r"})
    with RunFile(path) as run:
        yield run


@pytest.fixture
def rows(opened: RunFile) -> Rows:
    found = opened._rows_or_none("/a")
    assert found is not None
    return found


SUBSCRIPTS: dict[str, Any] = {
    "all": slice(None),
    "slice": slice(3, 9),
    "empty slice": slice(9, 3),
    "slice beyond the end": slice(20, 99),
    "every third": slice(1, None, 3),
    "backwards": slice(None, None, -1),
    "backwards by two": slice(20, 2, -2),
    "negative slice": slice(-5, -1),
    "number": 4,
    "numpy number": np.int64(4),
    "array of no axes": np.array(4),
    "negative number": -1,
    "first of all": -23,
    "list": [5, 1, 1, -2],
    "empty list": [],
    "ascending": np.array([2, 3, 4, 9]),
    "unsigned": np.array([9, 2, 2], np.uint8),
    "negative numbers": np.array([-1, -23, 4]),
    "two axes of numbers": np.array([[1, 2], [0, 1]]),
    "mask": MASK,
    "mask as a list": MASK.tolist(),
    "tensor of numbers": torch.tensor([3, 1]),
    "tensor mask": torch.from_numpy(MASK),
    "true": True,
    "ellipsis": ...,
    "ellipsis last": (4, ...),
    "ellipsis first": (..., 0),
    "new axis": None,
    "new axis first": (None, 3),
    "new axis last": (slice(2, 5), None),
    "row and channel": (5, 1),
    "rows of a channel": (slice(None), 1),
    "everything numbered": (5, 1, 0, -1),
    "rows and a channel": ([3, 1, 1], 2),
    "rows, a slice, a number": (np.array([3, 1]), slice(None), 1),
    "rows with places": ([3, 1], [0, 2]),
    "number with places": (4, [0, 2]),
    "slice with places": (slice(2, 9, 2), [0, 2]),
    "places apart": ([3, 1], slice(None), [0, 1]),
    "mask and number": (MASK, 1),
    "mask of two axes": np.arange(69).reshape(23, 3) % 4 == 0,
    "mask of all axes": VALUES % 5 == 0,
    "mask of a later axis": (slice(None), np.array([True, False, True])),
    "empty tuple": (),
}


@pytest.mark.parametrize("key", SUBSCRIPTS.values(), ids=SUBSCRIPTS.keys())
def test_a_subscript_means_what_it_means_to_numpy(rows: Rows, key: Any) -> None:
    expected = np.asarray(VALUES[key])
    found = rows[key]
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


WRONG: dict[str, Any] = {
    "beyond the end": 23,
    "before the first": -24,
    "a list beyond the end": [1, 23],
    "an array before the first": np.array([3, -24]),
    "huge": np.array([2**40]),
    "a fraction": 1.0,
    "fractions": np.array([0.0, 1.0]),
    "text": "a",
    "list of text": ["a"],
    "a mask too short": MASK[:-1],
    "a mask too long": np.append(MASK, True),
    "too many axes": (0, 0, 0, 0, 0),
    "a channel beyond": (slice(None), 3),
    "channels beyond": (slice(None), [0, 3]),
    "two ellipses": (..., 0, ...),
    "places that do not fit": ([0, 1, 2], [0, 1]),
    "a slice of fractions": slice(0.0, 3.0),
}


@pytest.mark.parametrize("key", WRONG.values(), ids=WRONG.keys())
def test_what_numpy_refuses_is_refused_before_anything_is_read(
    rows: Rows, key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises((IndexError, TypeError)):
        VALUES[key]
    monkeypatch.setattr(os, "preadv", lambda *_: pytest.fail("something was read"))
    with pytest.raises((IndexError, TypeError)):
        rows[key]


def test_numbers_beyond_int64_are_beyond_the_end(rows: Rows) -> None:
    with pytest.raises(IndexError, match="index 18446744073709551615 is out of bounds for axis 0 with size 23"):
        rows[np.array([2**64 - 1], np.uint64)]  # which numpy takes for -1


def test_rows_are_an_array_to_numpy_and_to_a_loop(rows: Rows) -> None:
    np.testing.assert_array_equal(np.asarray(rows), VALUES)
    assert np.asarray(rows, dtype=np.float64).dtype == np.float64
    assert [row[0, 0, 0] for row in rows] == VALUES[:, 0, 0, 0].tolist()
    assert (rows.ndim, rows.size, rows.nbytes) == (VALUES.ndim, VALUES.size, VALUES.nbytes)
    with pytest.raises(ValueError, match="/a stands in a file: an array of it is always a copy"):
        np.array(rows, copy=False)


def test_only_the_rows_that_are_named_are_read(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    rows.verify()  # after that no block is read for its digest
    read, preadv = [], os.preadv
    monkeypatch.setattr(os, "preadv", lambda *words: read.append(words[1][0].nbytes) or preadv(*words))
    rows[[7, 8, 2], [0, 1, 2]]
    assert sum(read) == 3 * VALUES[0].nbytes
    read.clear()
    rows[::-1, 0]
    assert sum(read) == VALUES.nbytes


def test_rows_of_a_closed_file_say_so(tmp_path: Path) -> None:
    with create_run(tmp_path / "run.h5", force=False) as writer:
        writer.array("a", VALUES)
        writer.attributes("provenance", {"run_id": "r"})
    with RunFile(tmp_path / "run.h5") as run:
        found = run._rows_or_none("/a")
    assert found is not None
    with pytest.raises(UserError, match="run.h5 was closed, so /a cannot be read any more. Open it again"):
        found[0]
