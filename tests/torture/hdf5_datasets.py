"""Damage to the datasets of an HDF5 file: type, shape, values, and where and how they are stored."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from tests.torture.hdf5_objects import Damage, attribute_other, object_planted
from tests.torture.hdf5_places import a_dataset, item_name, replace


def dataset_type(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Give a dataset another type of number, or none."""
    item = a_dataset(file, rng)
    shape = item.shape or ()
    makers: dict[str, Callable[[], object]] = {
        "f2": lambda: np.zeros(shape, "f2"), "f8": lambda: np.ones(shape), "i1": lambda: np.ones(shape, "i1"),
        ">f4": lambda: np.ones(shape, ">f4"), "u8": lambda: np.ones(shape, "u8"), "c8": lambda: np.ones(shape, "c8"),
        "bool": lambda: np.ones(shape, bool), "S3": lambda: np.full(shape, b"abc"), "V4": lambda: np.zeros(shape, "V4"),
        "compound": lambda: np.zeros(shape, [("a", "i4"), ("b", "f8")]),
        "text": lambda: np.full(shape, "x", dtype=h5py.string_dtype()),
        "nested": lambda: np.zeros(shape, [("a", "f4", (2,))]),
    }  # fmt: skip
    name = str(rng.choice(list(makers)))
    replace(file, item, lambda place: file.create_dataset(place, data=makers[name]()))
    return f"{item_name(item)} made {name}"


def dataset_shape(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Give a dataset another shape; some declare more than any memory holds, and store nothing."""
    item = a_dataset(file, rng)
    shape, dtype = item.shape or (1,), item.dtype
    shapes: dict[str, tuple[int, ...] | None] = {
        "fewer rows": (max(0, shape[0] - 1), *shape[1:]), "more rows": (shape[0] + 1, *shape[1:]),
        "no rows": (0, *shape[1:]), "a scalar": (), "one axis more": (*shape, 1), "flat": (int(np.prod(shape)),),
        "null": None, "10^12 rows": (10**12, *shape[1:]), "10^9 columns": (*shape, 10**9), "2^40 rows": (2**40,),
    }  # fmt: skip
    name = str(rng.choice(list(shapes)))
    new = shapes[name]
    if new is None:
        replace(file, item, lambda place: file.create_dataset(place, data=h5py.Empty(dtype)))
    else:
        huge = int(np.prod(new, dtype=np.float64)) > 10**8
        chunks = tuple(min(side, 64) for side in new) if huge else None
        replace(file, item, lambda place: file.create_dataset(place, shape=new, dtype=dtype, chunks=chunks))
    return f"{item_name(item)} given {name}"


def dataset_storage(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Store the same values otherwise: in chunks, through filters, big-endian."""
    item = a_dataset(file, rng)
    data = item[()]
    if not item.shape or not item.size or data.dtype.hasobject:
        return object_planted(file, rng, folder)
    ways: dict[str, dict[str, object]] = {
        "gzip": {"compression": "gzip"}, "lzf": {"compression": "lzf"},
        "shuffle": {"shuffle": True, "compression": "gzip"},
        "fletcher32": {"fletcher32": True}, "chunks": {"chunks": True},
        "a maximal shape": {"maxshape": (None, *item.shape[1:])},
        "scale-offset": {"scaleoffset": 1},
    }  # fmt: skip
    name = str(rng.choice(list(ways)))
    if name == "scale-offset" and data.dtype.kind not in "if":
        name = "chunks"
    replace(file, item, lambda place: file.create_dataset(place, data=data, **ways[name]))
    return f"{item_name(item)} stored with {name}"


def dataset_values(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Change values: not finite, out of range, of other rows."""
    item = a_dataset(file, rng)
    if not item.shape or not item.size or item.dtype.kind not in "iuf":
        return attribute_other(file, rng, folder)
    data = item[()].reshape(-1)
    extremes = {"f": [np.nan, np.inf, 1e30, 0], "i": [-1, 10**6, 10, 0], "u": [0, 1, 99, 255]}[item.dtype.kind]
    value = extremes[int(rng.integers(0, 4))]
    where = slice(None) if rng.random() < 0.3 else int(rng.integers(0, data.size))
    if rng.random() < 0.3:
        data = data[::-1].copy()
        value = "upside down"  # type: ignore[assignment]
    else:
        with np.errstate(all="ignore"):
            data[where] = np.asarray(value).astype(data.dtype)
    item[...] = data.reshape(item.shape)
    return f"values of {item_name(item)} made {value} ({'all' if isinstance(where, slice) else where})"


def external_storage(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Keep the bytes of a dataset in another file, or in a FIFO."""
    item = a_dataset(file, rng)
    data = item[()]
    if not item.shape or not item.size or data.dtype.hasobject:
        return object_planted(file, rng, folder)
    outside = folder / "outside.bin"
    what = str(rng.choice(["the same bytes", "other bytes", "a FIFO", "a missing file"]))
    if what == "a FIFO":
        os.mkfifo(outside)
    elif what != "a missing file":
        outside.write_bytes(data.tobytes() if what == "the same bytes" else bytes(data.nbytes))
    external = [(str(outside), 0, data.nbytes)]
    replace(file, item, lambda p: file.create_dataset(p, shape=data.shape, dtype=data.dtype, external=external))
    return f"{item_name(item)} stored outside, in {what}"


def virtual_storage(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Make a dataset a view of another one, in another file or in its own."""
    item = a_dataset(file, rng)
    if not item.shape or not item.size:
        return object_planted(file, rng, folder)
    shape, dtype, name = item.shape, item.dtype, item.name
    what = str(rng.choice(["another file", "itself", "a missing file"]))
    other = {"another file": folder / "other.h5", "itself": Path("."), "a missing file": folder / "nowhere.h5"}[what]
    if what == "another file":
        with h5py.File(other, "w") as second:
            second["x"] = np.zeros(shape, dtype)
    layout = h5py.VirtualLayout(shape=shape, dtype=dtype)
    layout[...] = h5py.VirtualSource(str(other), name if what == "itself" else "x", shape=shape)
    replace(file, item, lambda place: file.create_virtual_dataset(place, layout))
    return f"{item_name(item)} made a view of {what}"


DATASETS: dict[str, Damage] = {
    "type": dataset_type,
    "shape": dataset_shape,
    "storage": dataset_storage,
    "values": dataset_values,
    "external storage": external_storage,
    "virtual storage": virtual_storage,
}
