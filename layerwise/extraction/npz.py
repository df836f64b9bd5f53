"""Files of numpy.savez: their arrays read row by row, and nothing believed that a header only says."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from layerwise.errors import UserError
from layerwise.units import show_size

# numpy itself parses no header above 10,000 bytes, but reads it first, up to the 4 GB that four bytes can declare.
HEADER_BYTES = 2**16


class NpzStore:
    """The members of an .npz file, in the order in which they were saved; nothing in it may be a pickle.

    What a header declares is compared with what the member holds before any of it is read.
    """

    def __init__(self, path: Path):
        self.name = str(path)
        try:
            self._zip = zipfile.ZipFile(path)
            self._members = {
                m.filename.removesuffix(".npy"): m for m in self._zip.infolist() if m.filename.endswith(".npy")
            }
            if len(self._members) < sum(m.endswith(".npy") for m in self._zip.namelist()):
                raise ValueError("two arrays of one name")
            self._headers = {name: self._header(member) for name, member in self._members.items()}
        except Exception as error:  # of many kinds: whatever zipfile, a decompressor or numpy stumbles over
            raise UserError(
                f"{path} cannot be read as .npz ({type(error).__name__}: {error}). Write it by numpy.savez."
            ) from None
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
        row_bytes = dtype.itemsize * math.prod(rest)
        with self._zip.open(self._members[name].filename) as file:
            _read_header(file)
            for start in range(0, n, size):
                count = min(size, n - start)
                try:
                    data = file.read(count * row_bytes)
                except Exception as error:  # of many kinds: each decompressor stumbles in its own way
                    raise UserError(f"{self.name}: array {name!r} is damaged ({error}). Take an intact copy.") from None
                if len(data) < count * row_bytes:
                    raise UserError(f"{self.name}: array {name!r} ends before its last row. Take an intact copy.")
                yield np.frombuffer(data, dtype).reshape(count, *rest)

    def _header(self, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], bool, np.dtype]:
        with self._zip.open(member.filename) as file:
            shape, fortran_order, dtype = _read_header(file)
            held = member.file_size - file.tell()
        if dtype.hasobject:
            return shape, fortran_order, dtype  # of which the size says nothing
        declared = dtype.itemsize * math.prod(shape)
        if dtype.kind == "V" or not dtype.itemsize or min(shape, default=0) < 0 or declared != held:
            raise ValueError(f"{member.filename} declares {shape} of {dtype}, but holds {held} bytes")
        return shape, fortran_order, dtype


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    is_first = np.lib.format.read_magic(file) == (1, 0)
    length = file.read(2 if is_first else 4)
    if int.from_bytes(length, "little") > HEADER_BYTES:
        raise ValueError(f"a header of {show_size(int.from_bytes(length, 'little'))}")
    rest = io.BytesIO(length + file.read(int.from_bytes(length, "little")))
    read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
    return read(rest)
