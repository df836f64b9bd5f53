"""The digests of a run file: what is hashed, how it is laid out as text, and how two are compared.

The manifest lists every group, dataset and attribute of a file with type and shape, and for every dataset the
SHA-256 of each block of rows of about 8 MiB. It has two parts: "content", which two runs of one configuration
share, and "provenance", which tells them apart. docs/format.md specifies both.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from layerwise.runfile.layout import MANIFEST, PROVENANCE, ROOT

# A reader hashes a whole block before it uses one row of it: smaller blocks make random rows cheaper to check, larger
# ones keep the manifest short (128 digests for 1 GiB).
BLOCK_BYTES = 8 * 2**20
# Root attributes that are computed from the manifest, or after it, and so cannot stand in it.
UNLISTED = ("content_digest", "manifest_digest", "complete")


def rows_in_block(shape: tuple[int, ...], itemsize: int) -> int:
    """Return how many rows (entries along the first axis) make a block of about 8 MiB: at least one."""
    row_bytes = itemsize * int(np.prod(shape[1:], dtype=np.int64))
    return max(1, BLOCK_BYTES // max(row_bytes, 1))


class BlockHasher:
    """Hashes rows as they are written in order, a SHA-256 for each full block of `rows` rows."""

    def __init__(self, rows: int):
        self.rows = rows
        self.digests: list[str] = []
        self._hash = hashlib.sha256()
        self._filled = 0

    def update(self, array: np.ndarray) -> None:
        """Take the next rows: array [n, ...] in C order."""
        start = 0
        while start < len(array):
            stop = min(len(array), start + self.rows - self._filled)
            self._hash.update(np.ascontiguousarray(array[start:stop]).view(np.uint8).data if array.size else b"")
            self._filled += stop - start
            start = stop
            if self._filled == self.rows:
                self._finish_block()

    def finish(self) -> list[str]:
        """Return the digests of all blocks, the last of which may be shorter."""
        if self._filled:
            self._finish_block()
        return self.digests

    def _finish_block(self) -> None:
        self.digests.append(self._hash.hexdigest())
        self._hash, self._filled = hashlib.sha256(), 0


def canonical(tree: Any) -> bytes:
    """Return a tree of dicts, lists, strings and numbers as canonical JSON in UTF-8."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def type_name(dtype: np.dtype) -> str:
    """Return a type's name: "<f4" for a plain type, a list of fields for a compound one."""
    if dtype.names is None:
        return dtype.str
    return "{" + ", ".join(f"{name}: {dtype[name].str}" for name in dtype.names) + "}"


def describe(file: h5py.File) -> dict[str, dict[str, Any]]:
    """Return the structure of an open file: {path: {"attributes", and for a dataset "type" and "shape"}}."""
    found = {ROOT: _attributes(file, UNLISTED)}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        path = f"/{name}"
        if path == MANIFEST:
            return
        found[path] = _attributes(item)
        if isinstance(item, h5py.Dataset):
            found[path] |= {"type": type_name(item.dtype), "shape": list(item.shape)}

    file.visititems(visit)
    return found


def _attributes(item: h5py.Group | h5py.Dataset, unlisted: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"attributes": {name: _plain(item.attrs[name]) for name in item.attrs if name not in unlisted}}


def _plain(value: Any) -> Any:
    """Return an attribute as JSON that keeps its type: text as it is, numbers and arrays with their type's name."""
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    return {"type": array.dtype.str, "value": array.tolist()}


def split_parts(description: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return {"content": ..., "provenance": ...}: the description parted by path."""
    is_provenance = {path: path == PROVENANCE or path.startswith(PROVENANCE + "/") for path in description}
    return {
        "content": {path: entry for path, entry in description.items() if not is_provenance[path]},
        "provenance": {path: entry for path, entry in description.items() if is_provenance[path]},
    }


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes in hex."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hex, read piece by piece."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
