"""Activations that were made elsewhere, as arrays: which layers a file holds, its labels and splits, its rows.

Flat: one array [n, ...] a layer, `labels` [n], and where wanted `splits` [n] (train, validation, test), `index` [n]
and `classes`. Grouped: the same below `train/`, `test/` and where wanted `validation/`, without `splits`. Rows are
read in order and a batch at a time, from .npz too, compressed or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import torch

from layerwise.errors import UserError, no_file
from layerwise.extraction.npz import NpzStore
from layerwise.hdf5 import open_hdf5
from layerwise.units import show_size

# Labels and their like are read at once: a file of a few KB may declare any number of them.
WHOLE_BYTES = 2**30


class ArrayStore(Protocol):
    """Named arrays, of which each can be read from its first row to its last, some rows at a time."""

    name: str

    def names(self) -> list[str]:
        """Return the names in their order."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array."""
        ...

    def dtype(self, name: str) -> np.dtype:
        """Return the number type of an array."""
        ...

    def blocks(self, name: str, size: int) -> Iterator[np.ndarray]:
        """Yield all rows in order, `size` at a time."""
        ...


class MemoryStore:
    """Arrays that are in memory already."""

    def __init__(self, arrays: Mapping[str, Any], name: str = "the arrays"):
        self.name = name
        self._arrays = {str(key): _array(value, f"{name}: array {str(key)!r}") for key, value in arrays.items()}
        if len(self._arrays) < len(arrays):
            raise UserError(f"{name}: two keys read alike as text, such as 1 and '1'. Name each array otherwise.")

    def names(self) -> list[str]:
        """Return the names in the order given."""
        return list(self._arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array."""
        return self._arrays[name].shape

    def dtype(self, name: str) -> np.dtype:
        """Return the type of an array."""
        return self._arrays[name].dtype

    def blocks(self, name: str, size: int) -> Iterator[np.ndarray]:
        """Yield views of the rows."""
        for start in range(0, len(self._arrays[name]), size):
            yield self._arrays[name][start : start + size]


def _array(value: Any, what: str) -> np.ndarray:
    """Return a value as an array; objects that are all text, or all integers, as pandas holds them, become such."""
    if np.ma.is_masked(value):
        raise UserError(f"{what} is masked, and masked values are none. Fill them, or leave those samples out.")
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float() if value.dtype is torch.bfloat16 else value  # which numpy does not have
    try:
        made = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{what} is no array ({error}). Give rows of one shape.") from None
    if made.dtype.kind == "U" and isinstance(value, list | tuple):  # numpy makes text of None and numbers among it
        made = np.asarray(value, dtype=object)
    if made.dtype == object and made.ndim == 1 and len(made):
        for kind, dtype in ((str, str), (bytes, bytes), (bool, bool), ((int, np.integer), np.int64)):
            if all(isinstance(item, kind) for item in made):
                return made.astype(dtype)
    return made


class H5Store:
    """The datasets of an HDF5 file, in the order of creation where the file kept it, else by name (2 before 10)."""

    def __init__(self, path: Path):
        self.name = str(path)
        self._file = open_hdf5(path, "file of arrays", "h5py", "Take a copy that holds all its values, whole.")
        self._names = list(_datasets(self._file["/"]))

    def names(self) -> list[str]:
        """Return the paths of all datasets."""
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a dataset."""
        return self._file[name].shape

    def dtype(self, name: str) -> np.dtype:
        """Return the type of a dataset; text is of type str."""
        return np.dtype(str) if h5py.check_string_dtype(self._file[name].dtype) else self._file[name].dtype

    def blocks(self, name: str, size: int) -> Iterator[np.ndarray]:
        """Yield the rows as they are read."""
        rows = self._file[name]
        if h5py.check_string_dtype(rows.dtype):
            rows = rows.asstr()
        for start in range(0, len(self._file[name]), size):
            block = np.asarray(rows[start : start + size])
            yield block.astype(str) if block.dtype == object else block  # h5py gives text as Python objects


def _datasets(group: h5py.Group, prefix: str = "") -> Iterator[str]:
    """Yield the paths of all datasets below a group."""
    is_ordered = group.id.get_create_plist().get_link_creation_order()
    for name in group if is_ordered else sorted(group, key=_natural):
        if isinstance(group[name], h5py.Group):
            yield from _datasets(group[name], f"{prefix}{name}/")
        else:
            yield prefix + name


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key under which layer2 comes before layer10."""
    digits, parts = "", []
    for character in name + "/":
        if character.isdigit():
            digits += character
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, character))
    return parts


def open_arrays(path: Path) -> NpzStore | H5Store:
    """Open a file of arrays by the end of its name; raise UserError where it is missing, damaged, or another kind."""
    if not path.is_file():
        raise no_file(path, "arrays, .npz or .h5")
    if path.suffix == ".npz":
        return NpzStore(path)
    if path.suffix in (".h5", ".hdf5"):
        return H5Store(path)
    raise UserError(f"{path} ends in {path.suffix or 'nothing'}, but arrays are read from .npz, .h5 or .hdf5.")


def whole(store: ArrayStore, name: str) -> np.ndarray:
    """Return a small array, such as the labels, at once; bytes are read as text in UTF-8."""
    shape, dtype = store.shape(name), store.dtype(name)
    if len(shape) != 1:
        raise UserError(f"{store.name}: {name!r} has {len(shape)} axes, but one value for each sample is needed.")
    if (size := shape[0] * max(dtype.itemsize, 1)) > WHOLE_BYTES:
        raise UserError(
            f"{store.name}: {name!r} takes {show_size(size)}, of which {show_size(WHOLE_BYTES)} are read at most. "
            "Give integers as labels, and the names once, as `classes`."
        )
    try:
        parts = list(store.blocks(name, 2**16))
        values = np.concatenate(parts) if parts else np.empty(0, dtype=dtype)
        values = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
        if values.dtype.kind == "U":
            "".join(np.unique(values).tolist()).encode()  # as run file and tables will write it
    except (UnicodeError, ValueError, SystemError) as error:  # numpy's own for a number that is no character
        if isinstance(error, UserError):
            raise
        raise UserError(f"{store.name}: {name!r} holds text that is not UTF-8. Save it anew, as text.") from None
    return values


def as_float32(block: np.ndarray, what: str, start: int) -> np.ndarray:
    """Return rows of real numbers in float32; raise UserError, naming the row, for a number that is beyond it."""
    with np.errstate(over="ignore"):
        rounded = block.astype(np.float32)
    if block.dtype.kind == "f" and block.dtype.itemsize > 4:
        beyond = np.isinf(rounded) & np.isfinite(block)
        if beyond.any():
            at = tuple(int(i) for i in np.argwhere(beyond)[0])
            raise UserError(
                f"{what} has {block[at]:.3g} in row {start + at[0]}, beyond float32 (3.4e+38), in which features are "
                "kept. Scale that column, or leave it out."
            )
    return rounded


def in_step(store: ArrayStore, names: Sequence[str], size: int) -> Iterator[list[np.ndarray]]:
    """Yield the same rows of several arrays of one length, `size` at a time."""
    readers = [store.blocks(name, size) for name in names]
    yield from (list(rows) for rows in zip(*readers, strict=True))
