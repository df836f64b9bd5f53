"""Where in an HDF5 file damage is done: objects, attributes and free places drawn at random."""

from __future__ import annotations

from collections.abc import Callable

import h5py
import numpy as np

# Where a run may hold something that this one need not: what is planted there would be read.
OPTIONAL = (
    "auxiliaries", "auxiliaries/01", "blocks/03", "outputs", "outputs/01", "history", "compression", "images",
    "images/test", "depths/03", "depths/01/test/maps", "depths/01/test/class_token", "samples/validation", "planted",
    "provenance/epoch_seconds", "problems/7", "modules/blocks/03", "depths/01/loop",
)  # fmt: skip


def item_name(item: h5py.HLObject) -> str:
    """Return the name an object had, also after it was replaced."""
    return str(_NAMES.get(id(item), item.name))


_NAMES: dict[int, str] = {}


def replace(file: h5py.File, item: h5py.Dataset, make: Callable[[str], object]) -> None:
    """Let `make` put another dataset in the place of one, and give it the attributes of that."""
    name = item.name
    _NAMES.clear()
    _NAMES[id(item)] = name
    attributes = {key: item.attrs[key] for key in item.attrs}
    del file[name]
    make(name)
    file[name].attrs.update(attributes)


def names_of(file: h5py.File) -> list[str]:
    """Return the paths of all objects of a file, sorted."""
    found: list[str] = []
    file.visit(found.append)
    return sorted(found)


def an_item(file: h5py.File, rng: np.random.Generator, root: bool = True) -> h5py.Group | h5py.Dataset:
    """Return a group or dataset at random, often the root where that may be."""
    names = names_of(file) + (["/"] * 3 if root else [])
    return file[names[int(rng.integers(0, len(names)))]]


def a_dataset(file: h5py.File, rng: np.random.Generator) -> h5py.Dataset:
    """Return a dataset at random."""
    names = [name for name in names_of(file) if isinstance(file[name], h5py.Dataset)]
    return file[names[int(rng.integers(0, len(names)))]]


def an_attribute(file: h5py.File, rng: np.random.Generator) -> tuple[h5py.Group | h5py.Dataset, str]:
    """Return an object and the name of an attribute of it, of the root one time in two."""
    names = [name for name in names_of(file) if len(file[name].attrs)]
    at_root = not names or rng.random() < 0.5
    item = file if at_root and len(file.attrs) else file[names[int(rng.integers(0, len(names)))]]
    return item, str(rng.choice(sorted(item.attrs)))


def a_free_place(file: h5py.File, rng: np.random.Generator) -> str:
    """Return a path at which the file holds nothing."""
    free = [name for name in OPTIONAL if name not in file]
    return str(rng.choice(free))
