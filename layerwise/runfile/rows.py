"""Rows of a dataset of run.h5: read on demand by any subscript that numpy takes, checked against their digests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from io import FileIO
from itertools import pairwise
from typing import Any

import h5py
import numpy as np

from layerwise.errors import UserError
from layerwise.hdf5 import damage_named


class Rows:
    """The rows of one dataset, read on demand and checked once against their digests.

    A subscript means what it means to numpy: slices of any step, negative numbers, lists, masks, an ellipsis, and
    further axes. Only the rows it names are read. A contiguous dataset is read at its offset in the file, without the
    HDF5 library and its lock; a chunked or compressed one through it. Pickled, it carries `again` (a function and its
    arguments, by which the same rows are opened elsewhere) and no row.
    """

    def __init__(self, dataset: h5py.Dataset, entry: dict[str, Any], file: FileIO, again: tuple[Any, ...]):
        self._again = again
        self.path = dataset.name
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype = dataset.dtype
        self._file = file
        self._dataset = dataset
        self._offset = dataset.id.get_offset()
        self._block_rows: int = entry["rows_in_block"]
        self._digests: list[str] = entry["sha256"]
        self._checked = np.zeros(len(self._digests), dtype=bool)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._again

    def __repr__(self) -> str:
        return f"Rows({self.path}, {' x '.join(map(str, self.shape))}, {self.dtype})"

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes, that of the samples included."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of the whole dataset."""
        return self.dtype.itemsize * self.size

    @property
    def is_contiguous(self) -> bool:
        """Whether rows are read at their offset, without the HDF5 library, so that a thread of its own may read."""
        return self._offset is not None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError(f"{self.path} stands in a file: an array of it is always a copy.")
        return self[:].astype(dtype or self.dtype, copy=False)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Return what numpy would return for the same subscript of the whole array.

        Raises IndexError or TypeError as numpy does, before anything is read.
        """
        first, *rest = key if isinstance(key, tuple) and key else (key,)
        is_plain = not (first is None or first is Ellipsis or _is_mask_of_axes(first))
        if not (is_plain and all(map(_is_basic, rest))):
            return self._picked(key)
        if rest:
            _nothing(self.shape)[(slice(0, 0), *rest)]  # numpy's own word on the other axes
        if isinstance(first, slice):
            return self._slice(first)[(slice(None), *rest)] if rest else self._slice(first)
        numbers = _numbers(first, len(self))
        rows = self._gather(np.ravel(numbers)).reshape((*np.shape(numbers), *self.shape[1:]))
        return rows[(*[slice(None)] * np.ndim(numbers), *rest)] if rest else rows

    def verify(self) -> None:
        """Read and check every block that was not checked yet; raise UserError at the first damaged one."""
        self._check(range(len(self._digests)))

    def _picked(self, key: Any) -> np.ndarray:
        """Return what any other subscript names, by the row and the place in its row of each value.

        Both are subscripts of arrays that take no memory, so numpy decides what `key` means, and reading comes after.
        """
        row_shape = self.shape[1:]
        ones = (1,) * len(row_shape)
        rows = np.broadcast_to(np.arange(len(self)).reshape(-1, *ones), self.shape)[key]
        places = np.arange(np.prod(row_shape, dtype=np.int64)).reshape(1, *row_shape)
        places = np.broadcast_to(places, self.shape)[key]
        wanted, positions = np.unique(rows, return_inverse=True)
        values = self._gather(wanted).reshape(len(wanted), -1)
        return values[positions.reshape(np.shape(rows)), places]

    def _slice(self, part: slice) -> np.ndarray:
        numbers = range(*part.indices(len(self)))
        if numbers.step != 1:
            return self._gather(np.arange(numbers.start, numbers.stop, numbers.step, dtype=np.int64))
        start, stop = numbers.start, max(numbers.start, numbers.stop)
        self._check(range(start // self._block_rows, -(-stop // self._block_rows)))
        return self._read(start, stop)

    def _gather(self, rows: np.ndarray) -> np.ndarray:
        """Return rows by their numbers, int64 [n] from 0 to len - 1, in the order asked for."""
        result = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        self._check(np.unique(rows // self._block_rows))
        # Neighbouring rows that are asked for one after the other are read at once.
        gaps = np.flatnonzero(np.diff(rows) != 1) + 1
        for start, stop in pairwise([0, *gaps, len(rows)] if len(rows) else []):
            self._read_into(result[start:stop], int(rows[start]))
        return result

    def _check(self, blocks: Iterable[int]) -> None:
        for block in blocks:
            if self._checked[block]:
                continue
            start, stop = block * self._block_rows, min(len(self), (block + 1) * self._block_rows)
            found = hashlib.sha256(self._read(start, stop).view(np.uint8).data).hexdigest()
            if found != self._digests[block]:
                raise UserError(
                    f"{self._file.name} is damaged: rows {start} to {stop - 1} of {self.path} are not what was written "
                    "(their SHA-256 differs from the manifest). Take an intact copy, or make the run again."
                )
            self._checked[block] = True

    def _read(self, start: int, stop: int) -> np.ndarray:
        result = np.empty((stop - start, *self.shape[1:]), dtype=self.dtype)
        self._read_into(result, start)
        return result

    def _read_into(self, result: np.ndarray, start: int) -> None:
        """Fill a contiguous array with as many rows as it has, from `start` on."""
        if self._file.closed:
            raise UserError(f"{self._file.name} was closed, so {self.path} cannot be read any more. Open it again.")
        if self._offset is None:
            with damage_named(self._file.name, "Take an intact copy, or make the run again."):
                result[...] = self._dataset[start : start + len(result)]
            return
        row_bytes = self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        offset = self._offset + start * row_bytes
        view = result.reshape(-1).view(np.uint8).data
        while view:
            count = os.preadv(self._file.fileno(), [view], offset)
            if not count:
                raise UserError(f"{self._file.name} ends before {self.path} does: it was cut short while being read.")
            view, offset = view[count:], offset + count


def _is_basic(part: Any) -> bool:
    """Return whether a subscript of one axis is no array: numpy then applies it apart from the first axis."""
    is_number = isinstance(part, int | np.integer) and not isinstance(part, bool)
    return part is None or part is Ellipsis or isinstance(part, slice) or is_number


def _is_mask_of_axes(part: Any) -> bool:
    """Return whether a subscript is a mask that takes more axes than the first."""
    return not isinstance(part, slice | int) and np.ndim(part) > 1 and np.asarray(part).dtype == bool


def _nothing(shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of a shape that takes one byte, to ask numpy whether a subscript fits."""
    return np.broadcast_to(np.int8(0), shape)


def _numbers(part: Any, length: int) -> np.ndarray:
    """Return the rows that a subscript of the first axis names, from 0 to length - 1, in numpy's shape."""
    if not (isinstance(part, np.ndarray) and part.ndim and part.dtype.kind in "iu"):
        return np.arange(length)[part]
    # The same without an array of all numbers: shuffled batches are asked for thousands of times.
    if part.size and not -length <= part.min() <= part.max() < length:
        beyond = part.max() if part.max() >= length else part.min()
        raise IndexError(f"index {beyond} is out of bounds for axis 0 with size {length}")
    numbers = part.astype(np.int64, copy=False)
    return np.where(numbers < 0, numbers + length, numbers)
