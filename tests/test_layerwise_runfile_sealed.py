"""Sealed files: any change of structure, attributes or values is refused; formats and versions are looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from layerwise.errors import UserError
from layerwise.runfile.sealed import SealedFormat, create_sealed, open_sealed

FORM = SealedFormat("layerwise-test", 2, "notes of a test", "pytest", "Write it again.")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with create_sealed(tmp_path / "a.h5", FORM) as file:
        file["g/x"] = np.arange(1000, dtype=np.float64)
        file["g"].attrs["n"] = 3
        file["empty"] = np.zeros((0, 2))
    return tmp_path / "a.h5"


def test_what_was_written_is_read(path: Path) -> None:
    with open_sealed(path, FORM) as file:
        np.testing.assert_array_equal(file["g/x"][:], np.arange(1000))


CHANGES: dict[str, Callable[[h5py.File], None]] = {
    "value": lambda f: f["g/x"].__setitem__(5, -1.0),
    "attribute": lambda f: f["g"].attrs.__setitem__("n", 4),
    "attribute of another type": lambda f: f["g"].attrs.__setitem__("n", "3"),
    "new attribute": lambda f: f["g/x"].attrs.__setitem__("m", 4),
    "new dataset": lambda f: f.__setitem__("y", 1),
    "new group": lambda f: f.create_group("h") and None,
    "lost dataset": lambda f: f.__delitem__("empty"),
    "renamed": lambda f: f.move("g/x", "g/y"),
    "digest lost": lambda f: f.attrs.__delitem__("digest"),
    "another digest": lambda f: f.attrs.__setitem__("digest", "0" * 64),
    "version 0": lambda f: f.attrs.__setitem__("format_version", 0),
    "version of before digests": lambda f: f.attrs.__setitem__("format_version", 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_refused(path: Path, change: str) -> None:
    with h5py.File(path, "r+") as file:
        CHANGES[change](file)
    with pytest.raises(UserError, match=r"a.h5 is damaged: .*Write it again\."), open_sealed(path, FORM):
        pytest.fail("it was taken")


def test_a_later_version_and_another_format_are_refused_by_what_they_are(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 3
    with pytest.raises(UserError, match="has format version 3; this software reads up to 2"), open_sealed(path, FORM):
        pytest.fail("it was taken")
    with h5py.File(path, "r+") as file:
        file.attrs["format"] = "else"
    with pytest.raises(UserError, match="is not the notes of a test"), open_sealed(path, FORM):
        pytest.fail("it was taken")


def test_a_file_of_before_digests_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["format"], file.attrs["format_version"], file["x"] = FORM.name, 1, 5
    with open_sealed(tmp_path / "a.h5", FORM) as file:
        assert file["x"][()] == 5


@pytest.mark.parametrize("seed", range(3))
def test_no_flipped_bit_gives_another_value(path: Path, seed: int) -> None:
    whole = path.read_bytes()
    rng = np.random.default_rng(seed)
    for place, bit in zip(rng.integers(0, len(whole), 60), rng.integers(0, 8, 60), strict=True):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << int(bit)]) + whole[place + 1 :])
        try:
            with open_sealed(path, FORM) as file:
                found = file["g/x"][:], file["g"].attrs["n"]
        except UserError:
            continue
        np.testing.assert_array_equal(found[0], np.arange(1000))
        assert found[1] == 3


def test_errors_of_who_reads_are_not_called_damage(path: Path) -> None:
    with pytest.raises(RuntimeError, match="^out of memory$"), open_sealed(path, FORM):
        raise RuntimeError("out of memory")
    with pytest.raises(OSError, match="No space left"), open_sealed(path, FORM):
        raise OSError(28, "No space left on device")


def test_a_version_that_is_no_longer_read_is_said(path: Path) -> None:
    newer = SealedFormat("layerwise-test", 3, "notes of a test", "pytest", "Write it again.", oldest=3)
    with (
        pytest.raises(UserError, match="has format version 2, which this software no longer reads. Write it again."),
        open_sealed(path, newer),
    ):
        pytest.fail("it was taken")
