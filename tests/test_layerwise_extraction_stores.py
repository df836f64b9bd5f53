"""Files of arrays: every row in order and a batch at a time, names in their order, and nothing in them is a pickle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from layerwise.errors import UserError
from layerwise.extraction.stores import ArrayStore, MemoryStore, in_step, open_arrays, whole

ARRAYS: dict[str, Any] = {
    "layer10": np.arange(60, dtype=np.float64).reshape(10, 2, 3),
    "layer2": np.arange(10, dtype=np.int16)[:, None],
    "labels": np.array(list("abcabcabca")),
}


def store(kind: str, folder: Path) -> ArrayStore:
    match kind:
        case "memory":
            return MemoryStore(ARRAYS)
        case "npz":
            np.savez(folder / "a.npz", **ARRAYS)
            return open_arrays(folder / "a.npz")
        case "compressed":
            np.savez_compressed(folder / "a.npz", **ARRAYS)
            return open_arrays(folder / "a.npz")
    with h5py.File(folder / "a.h5", "w", track_order=kind == "h5, ordered") as file:
        for name, values in ARRAYS.items():
            file[name] = values.astype("S") if name == "labels" else values
    return open_arrays(folder / "a.h5")


KINDS = ["memory", "npz", "compressed", "h5", "h5, ordered"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 3, 10, 99])
def test_rows_come_in_order_some_at_a_time(kind: str, size: int, tmp_path: Path) -> None:
    opened = store(kind, tmp_path)
    blocks = list(opened.blocks("layer10", size))
    assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
    np.testing.assert_array_equal(np.concatenate(blocks), ARRAYS["layer10"])
    assert (opened.shape("layer10"), opened.dtype("layer10")) == ((10, 2, 3), np.float64)
    together = list(in_step(opened, ["layer2", "layer10"], size))
    np.testing.assert_array_equal(np.concatenate([a for a, _ in together]), ARRAYS["layer2"])
    np.testing.assert_array_equal(np.concatenate([b for _, b in together]), ARRAYS["layer10"])


@pytest.mark.parametrize("kind", KINDS)
def test_text_is_read_at_once(kind: str, tmp_path: Path) -> None:
    read = whole(store(kind, tmp_path), "labels")
    assert read.dtype.kind == "U" and read.tolist() == list("abcabcabca")
    with pytest.raises(UserError, match="'layer10' has 3 axes, but one value for each sample is needed"):
        whole(store(kind, tmp_path), "layer10")


@pytest.mark.parametrize("kind", KINDS)
def test_names_keep_their_order_or_are_sorted_by_their_numbers(kind: str, tmp_path: Path) -> None:
    expected = ["labels", "layer2", "layer10"] if kind == "h5" else ["layer10", "layer2", "labels"]
    assert store(kind, tmp_path).names() == expected


def test_groups_of_h5_are_paths(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("train/b", "train/a", "test/a"):
            file[name] = np.zeros(2)
    assert open_arrays(tmp_path / "a.h5").names() == ["test/a", "train/a", "train/b"]


class Hostile:
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


def test_arrays_of_python_objects_are_refused_and_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, layer=np.array([Hostile()], dtype=object), labels=np.zeros(1))
    with pytest.raises(UserError, match="array 'layer' holds Python objects, a pickle that could run code. Refused"):
        open_arrays(path)


def test_arrays_by_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, layer=np.asfortranarray(np.zeros((3, 2))))
    with pytest.raises(UserError, match=r"array 'layer' is stored column by column.*numpy.ascontiguousarray"):
        open_arrays(path)


def test_damaged_missing_and_other_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a.npz does not exist; expected arrays, .npz or .h5"):
        open_arrays(tmp_path / "a.npz")
    with pytest.raises(UserError, match="is a folder; expected arrays"):
        open_arrays(tmp_path)
    for name, message in (
        ("a.npz", "a.npz cannot be read as .npz"),
        ("a.h5", "a.h5 is no file of arrays: it is not HDF5"),
        ("a.csv", "a.csv ends in .csv, but arrays are read from .npz, .h5 or .hdf5"),
    ):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(UserError, match=message):
            open_arrays(tmp_path / name)


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, layer=np.random.default_rng(0).normal(size=5000))
    content = bytearray(path.read_bytes())
    content[20_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="array 'layer' is damaged"):
        list(open_arrays(path).blocks("layer", 5000))


def test_an_hdf5_file_that_points_out_of_itself_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.ones((4, 2))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["labels"] = np.arange(4)
        file["layer"] = h5py.ExternalLink("other.h5", "/x")
    with pytest.raises(
        UserError, match="a.h5 cannot be used: /layer is an external link; all values must stand in the file"
    ):
        open_arrays(tmp_path / "a.h5")
