"""Digests: blocks of rows, canonical text, structure."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from layerwise.runfile.manifest import BLOCK_BYTES, BlockHasher, canonical, rows_in_block, type_name


@pytest.mark.parametrize(
    ("shape", "itemsize", "rows"),
    [((10, 64, 32, 32), 2, 64), ((5,), 8, BLOCK_BYTES // 8), ((3, 4096, 4096), 2, 1), ((0, 3), 4, BLOCK_BYTES // 12)],
)
def test_a_block_is_about_8_mib_and_at_least_a_row(shape: tuple[int, ...], itemsize: int, rows: int) -> None:
    assert rows_in_block(shape, itemsize) == rows


@pytest.mark.parametrize("pieces", [[10], [1] * 10, [3, 3, 4], [7, 3], [4, 0, 6]])
def test_digests_do_not_depend_on_how_rows_arrive(pieces: list[int]) -> None:
    data = np.arange(20, dtype="<f4").reshape(10, 2)
    hasher = BlockHasher(4)
    start = 0
    for n in pieces:
        hasher.update(data[start : start + n])
        start += n
    assert hasher.finish() == [hashlib.sha256(data[a : a + 4].tobytes()).hexdigest() for a in (0, 4, 8)]


def test_no_rows_have_no_blocks() -> None:
    assert BlockHasher(4).finish() == []


def test_canonical_text_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical({"b": [1, 2.5], "a": "é"}) == '{"a":"é","b":[1,2.5]}'.encode()


def test_types_have_names_that_tell_fields_and_byte_order() -> None:
    assert type_name(np.dtype("<f2")) == "<f2"
    assert type_name(np.dtype([("a", "<i4"), ("b", "<f8")])) == "{a: <i4, b: <f8}"
