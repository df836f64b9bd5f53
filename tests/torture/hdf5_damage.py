"""Owns damage to the objects of an HDF5 file, made with h5py as a tampering hand would. Each says what it did."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

Damage = Callable[[h5py.File, np.random.Generator, Path], str]

# Where a run may hold something that this one need not: what is planted there would be read.
OPTIONAL = (
    "auxiliaries", "auxiliaries/01", "blocks/03", "outputs", "outputs/01", "history", "compression", "images",
    "images/test", "depths/03", "depths/01/test/maps", "depths/01/test/class_token", "samples/validation", "planted",
    "provenance/epoch_seconds", "problems/7", "modules/blocks/03", "depths/01/loop",
)  # fmt: skip
ATTRIBUTES = (
    "format", "format_version", "dataset", "config", "extraction", "content_digest", "manifest_digest", "complete",
    "stage", "epochs_done", "fingerprint",
)  # fmt: skip


def attribute_gone(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Remove an attribute."""
    item, name = _attribute(file, rng)
    del item.attrs[name]
    return f"attribute {name} of {item.name} removed"


def attribute_other(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Give an attribute another value or type."""
    item, name = _attribute(file, rng)
    values = (
        "", "other", "{}", "[]", "null", "[" * 5000, '{"a": NaN}', 0, -1, 2, 1.5, 2**62, np.nan, True, False,
        b"\xff\xfe", np.array([], "f4"), np.arange(5), np.zeros((3, 3)), h5py.Empty("f4"), h5py.Empty("S1"),
        np.array([b"a", b"b"]),
        np.void(b"abc"), 1 + 2j, np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]), file.ref, "x" * 60_000,
    )  # fmt: skip
    i = int(rng.integers(0, len(values)))
    item.attrs[name] = values[i]
    return f"attribute {name} of {item.name} made {str(values[i])[:30]!r} ({type(values[i]).__name__})"


def attribute_planted(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Add an attribute."""
    item = _item(file, rng)
    name = str(rng.choice([*ATTRIBUTES, "planted", "test_accuracy", "form", "module"]))
    item.attrs[name] = rng.choice([0.999, 1.0])
    return f"attribute {name} planted at {item.name}"


def object_gone(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Remove a group or dataset."""
    name = _item(file, rng, root=False).name
    del file[name]
    return f"{name} removed"


def object_moved(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Let two objects change names, or give one another name."""
    first, second = _item(file, rng, root=False).name, _item(file, rng, root=False).name
    if first == second or first.startswith(second) or second.startswith(first):
        file.move(first, first + "x")
        return f"{first} renamed"
    file.move(first, "/between"), file.move(second, first), file.move("/between", second)
    return f"{first} and {second} swapped"


def object_planted(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Add a group or a dataset."""
    place = _free(file, rng)
    if rng.random() < 0.3:
        file.create_group(place)
        return f"a group planted at {place}"
    file[place] = rng.normal(size=(4, 3)).astype("f4")
    return f"a dataset planted at {place}"


def dataset_type(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Give a dataset another type of number, or none."""
    item = _dataset(file, rng)
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
    _replace(file, item, lambda place: file.create_dataset(place, data=makers[name]()))
    return f"{item_name(item)} made {name}"


def dataset_shape(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Give a dataset another shape; some declare more than any memory holds, and store nothing."""
    item = _dataset(file, rng)
    shape, dtype = item.shape or (1,), item.dtype
    shapes: dict[str, tuple[int, ...] | None] = {
        "fewer rows": (max(0, shape[0] - 1), *shape[1:]), "more rows": (shape[0] + 1, *shape[1:]),
        "no rows": (0, *shape[1:]), "a scalar": (), "one axis more": (*shape, 1), "flat": (int(np.prod(shape)),),
        "null": None, "10^12 rows": (10**12, *shape[1:]), "10^9 columns": (*shape, 10**9), "2^40 rows": (2**40,),
    }  # fmt: skip
    name = str(rng.choice(list(shapes)))
    new = shapes[name]
    if new is None:
        _replace(file, item, lambda place: file.create_dataset(place, data=h5py.Empty(dtype)))
    else:
        huge = int(np.prod(new, dtype=np.float64)) > 10**8
        chunks = tuple(min(side, 64) for side in new) if huge else None
        _replace(file, item, lambda place: file.create_dataset(place, shape=new, dtype=dtype, chunks=chunks))
    return f"{item_name(item)} given {name}"


def dataset_storage(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Store the same values otherwise: in chunks, through filters, big-endian."""
    item = _dataset(file, rng)
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
    _replace(file, item, lambda place: file.create_dataset(place, data=data, **ways[name]))
    return f"{item_name(item)} stored with {name}"


def dataset_values(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Change values: not finite, out of range, of other rows."""
    item = _dataset(file, rng)
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
    item = _dataset(file, rng)
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
    _replace(file, item, lambda p: file.create_dataset(p, shape=data.shape, dtype=data.dtype, external=external))
    return f"{item_name(item)} stored outside, in {what}"


def virtual_storage(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Make a dataset a view of another one, in another file or in its own."""
    item = _dataset(file, rng)
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
    _replace(file, item, lambda place: file.create_virtual_dataset(place, layout))
    return f"{item_name(item)} made a view of {what}"


def link(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Put a link in the place of an object, or where there was none: soft, external, or a second hard one."""
    place = _free(file, rng) if rng.random() < 0.5 else _item(file, rng, root=False).name
    aim = _item(file, rng).name
    kinds = [
        "soft",
        "soft to itself",
        "soft to nothing",
        "external",
        "external to a FIFO",
        "external to nothing",
        "hard",
    ]
    what = str(rng.choice(kinds))
    other = folder / "other.h5"
    new: object = {
        "soft": h5py.SoftLink(aim), "soft to itself": h5py.SoftLink(place),
        "soft to nothing": h5py.SoftLink("/nowhere"),
        "external to nothing": h5py.ExternalLink("nowhere.h5", "/"),
    }.get(what)  # fmt: skip
    if what.startswith("external") and new is None:
        if what == "external to a FIFO":
            os.mkfifo(other)
        else:
            _copy_changed(file, other)
        new = h5py.ExternalLink(other.name, place if what == "external" else "/")
    new = file[aim] if new is None else new
    if place in file or file.get(place, getlink=True) is not None:
        del file[place]
    file[place] = new
    return f"{place} made a link: {what} ({aim})"


def _copy_changed(file: h5py.File, other: Path) -> None:
    """Write a file of the same structure and other numbers, with all that a run may hold."""
    with h5py.File(other, "w") as second:
        for name in file:
            if isinstance(file.get(name, getlink=True), h5py.HardLink):
                file.copy(name, second)
        group = second.require_group("auxiliaries/01")
        for split in ("train", "validation", "test"):
            group.attrs[f"{split}_accuracy"] = 0.999


ALL: dict[str, Damage] = {
    "attribute gone": attribute_gone,
    "attribute changed": attribute_other,
    "attribute planted": attribute_planted,
    "object gone": object_gone,
    "object moved": object_moved,
    "object planted": object_planted,
    "type": dataset_type,
    "shape": dataset_shape,
    "storage": dataset_storage,
    "values": dataset_values,
    "external storage": external_storage,
    "virtual storage": virtual_storage,
    "link": link,
}


def item_name(item: h5py.HLObject) -> str:
    """Return the name an object had, also after it was replaced."""
    return str(_NAMES.get(id(item), item.name))


_NAMES: dict[int, str] = {}


def _replace(file: h5py.File, item: h5py.Dataset, make: Callable[[str], object]) -> None:
    name = item.name
    _NAMES.clear()
    _NAMES[id(item)] = name
    attributes = {key: item.attrs[key] for key in item.attrs}
    del file[name]
    make(name)
    file[name].attrs.update(attributes)


def _items(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visit(found.append)
    return sorted(found)


def _item(file: h5py.File, rng: np.random.Generator, root: bool = True) -> h5py.Group | h5py.Dataset:
    names = _items(file) + (["/"] * 3 if root else [])
    return file[names[int(rng.integers(0, len(names)))]]


def _dataset(file: h5py.File, rng: np.random.Generator) -> h5py.Dataset:
    names = [name for name in _items(file) if isinstance(file[name], h5py.Dataset)]
    return file[names[int(rng.integers(0, len(names)))]]


def _attribute(file: h5py.File, rng: np.random.Generator) -> tuple[h5py.Group | h5py.Dataset, str]:
    names = [name for name in _items(file) if len(file[name].attrs)]
    at_root = not names or rng.random() < 0.5
    item = file if at_root and len(file.attrs) else file[names[int(rng.integers(0, len(names)))]]
    return item, str(rng.choice(sorted(item.attrs)))


def _free(file: h5py.File, rng: np.random.Generator) -> str:
    free = [name for name in OPTIONAL if name not in file]
    return str(rng.choice(free))
