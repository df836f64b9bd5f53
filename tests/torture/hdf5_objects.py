"""Damage to attributes, names and links of an HDF5 file, made as a tampering hand would. Each says what it did."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from tests.torture.hdf5_places import a_free_place, an_attribute, an_item

Damage = Callable[[h5py.File, np.random.Generator, Path], str]

ATTRIBUTES = (
    "format", "format_version", "dataset", "config", "extraction", "content_digest", "manifest_digest", "complete",
    "stage", "epochs_done", "fingerprint",
)  # fmt: skip


def attribute_gone(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Remove an attribute."""
    item, name = an_attribute(file, rng)
    del item.attrs[name]
    return f"attribute {name} of {item.name} removed"


def attribute_other(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Give an attribute another value or type."""
    item, name = an_attribute(file, rng)
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
    item = an_item(file, rng)
    name = str(rng.choice([*ATTRIBUTES, "planted", "test_accuracy", "form", "module"]))
    item.attrs[name] = rng.choice([0.999, 1.0])
    return f"attribute {name} planted at {item.name}"


def object_gone(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Remove a group or dataset."""
    name = an_item(file, rng, root=False).name
    del file[name]
    return f"{name} removed"


def object_moved(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Let two objects change names, or give one another name."""
    first, second = an_item(file, rng, root=False).name, an_item(file, rng, root=False).name
    if first == second or first.startswith(second) or second.startswith(first):
        file.move(first, first + "x")
        return f"{first} renamed"
    file.move(first, "/between"), file.move(second, first), file.move("/between", second)
    return f"{first} and {second} swapped"


def object_planted(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Add a group or a dataset."""
    place = a_free_place(file, rng)
    if rng.random() < 0.3:
        file.create_group(place)
        return f"a group planted at {place}"
    file[place] = rng.normal(size=(4, 3)).astype("f4")
    return f"a dataset planted at {place}"


def link(file: h5py.File, rng: np.random.Generator, folder: Path) -> str:
    """Put a link in the place of an object, or where there was none: soft, external, or a second hard one."""
    place = a_free_place(file, rng) if rng.random() < 0.5 else an_item(file, rng, root=False).name
    aim = an_item(file, rng).name
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
            copy_changed(file, other)
        new = h5py.ExternalLink(other.name, place if what == "external" else "/")
    new = file[aim] if new is None else new
    if place in file or file.get(place, getlink=True) is not None:
        del file[place]
    file[place] = new
    return f"{place} made a link: {what} ({aim})"


def copy_changed(file: h5py.File, other: Path) -> None:
    """Write a file of the same structure and other numbers, with all that a run may hold."""
    with h5py.File(other, "w") as second:
        for name in file:
            if isinstance(file.get(name, getlink=True), h5py.HardLink):
                file.copy(name, second)
        group = second.require_group("auxiliaries/01")
        for split in ("train", "validation", "test"):
            group.attrs[f"{split}_accuracy"] = 0.999


OBJECTS: dict[str, Damage] = {
    "attribute gone": attribute_gone,
    "attribute changed": attribute_other,
    "attribute planted": attribute_planted,
    "object gone": object_gone,
    "object moved": object_moved,
    "object planted": object_planted,
    "link": link,
}
