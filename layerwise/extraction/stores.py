"""Owns activations that were made elsewhere, as arrays: which layers a file holds, its labels and splits, its rows.

Flat: one array [n, ...] a layer, `labels` [n], and where wanted `splits` [n] (train, validation, test), `index` [n]
and `classes`. Grouped: the same below `train/`, `test/` and where wanted `validation/`, without `splits`. Rows are
read in order and a batch at a time, from .npz too, compressed or not.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import h5py
import numpy as np

from layerwise.errors import UserError, no_file


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
        self._arrays = {str(key): np.asarray(value) for key, value in arrays.items()}

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


class H5Store:
    """The datasets of an HDF5 file, in the order of creation where the file kept it, else by name (2 before 10)."""

    def __init__(self, path: Path):
        self.name = str(path)
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise UserError(f"{path} cannot be read as HDF5 ({error}). Take an intact copy.") from None
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


class NpzStore:
    """The members of an .npz file, in the order in which they were saved; nothing in it may be a pickle."""

    def __init__(self, path: Path):
        self.name = str(path)
        try:
            self._zip = zipfile.ZipFile(path)
            self._members = {m.removesuffix(".npy"): m for m in self._zip.namelist() if m.endswith(".npy")}
            self._headers = {name: self._header(member) for name, member in self._members.items()}
        except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
            raise UserError(f"{path} cannot be read as .npz ({error}). Write it by numpy.savez.") from None
        for name, (shape, fortran_order, dtype) in self._headers.items():
            if dtype.hasobject:
                raise UserError(f"{path}: array {name!r} holds Python objects, a pickle that could run code. Refused.")
            if fortran_order and len(shape) > 1:
                raise UserError(
                    f"{path}: array {name!r} is stored column by column (Fortran order), so that its rows cannot be "
                    "read one after another. Save numpy.ascontiguousarray of it."
                )

    def names(self) -> list[str]:
        """Return the names of all arrays."""
        return list(self._members)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array."""
        return self._headers[name][0]

    def dtype(self, name: str) -> np.dtype:
        """Return the type of an array."""
        return self._headers[name][2]

    def blocks(self, name: str, size: int) -> Iterator[np.ndarray]:
        """Yield the rows as they are decompressed."""
        (n, *rest), _, dtype = self._headers[name]
        row_bytes = dtype.itemsize * int(np.prod(rest, dtype=np.int64))
        with self._zip.open(self._members[name]) as file:
            _read_header(file)
            for start in range(0, n, size):
                count = min(size, n - start)
                try:
                    data = file.read(count * row_bytes)
                except (zipfile.BadZipFile, EOFError, ValueError) as error:
                    raise UserError(f"{self.name}: array {name!r} is damaged ({error}). Take an intact copy.") from None
                if len(data) < count * row_bytes:
                    raise UserError(f"{self.name}: array {name!r} ends before its last row. Take an intact copy.")
                yield np.frombuffer(data, dtype).reshape(count, *rest)

    def _header(self, member: str) -> tuple[tuple[int, ...], bool, np.dtype]:
        with self._zip.open(member) as file:
            return _read_header(file)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


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
    """Return a small array, such as the labels, at once."""
    shape = store.shape(name)
    if len(shape) != 1:
        raise UserError(f"{store.name}: {name!r} has {len(shape)} axes, but one value for each sample is needed.")
    parts = list(store.blocks(name, 2**16))
    return np.concatenate(parts) if parts else np.empty(0, dtype=store.dtype(name))


def in_step(store: ArrayStore, names: Sequence[str], size: int) -> Iterator[list[np.ndarray]]:
    """Yield the same rows of several arrays of one length, `size` at a time."""
    readers = [store.blocks(name, size) for name in names]
    yield from (list(rows) for rows in zip(*readers, strict=True))
