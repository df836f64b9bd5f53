"""The digests of a run file as docs/format.md specifies them, written from that text alone.

With it a damaged file gets digests that fit, as one who tampers would make them, and a file is checked by another
reader than the packages' own.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

BLOCK = 8 * 2**20
HUGE = 2**30  # bytes
UNLISTED = ("content_digest", "manifest_digest", "complete")


def seal(path: Path) -> None:
    """Give a run file the manifest and digests of what it now holds."""
    with h5py.File(path, "r+") as file:
        if "manifest" in file:
            del file["manifest"]
        parts = manifest(file)
        text = _canonical(parts)
        file["manifest"] = np.frombuffer(text, dtype=np.uint8)
        file.attrs["content_digest"] = _sha256(_canonical(parts["content"]))
        file.attrs["manifest_digest"] = _sha256(text)
        file.attrs["complete"] = True


def is_intact(path: Path) -> bool:
    """Return whether a run file holds what its manifest says, to the last bit."""
    with h5py.File(path, "r") as file:
        text = bytes(file["manifest"][:])
        parts = manifest(file)
        return (
            bool(file.attrs["complete"])
            and json.loads(text) == json.loads(_canonical(parts))
            and file.attrs["manifest_digest"] == _sha256(text)
            and file.attrs["content_digest"] == _sha256(_canonical(json.loads(text)["content"]))
        )


def manifest(file: h5py.File) -> dict[str, dict[str, Any]]:
    """Return the manifest of an open file as a tree."""
    entries: dict[str, dict[str, Any]] = {"/": {"attributes": _attributes(file, UNLISTED)}}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if name != "manifest":
            entries[f"/{name}"] = {"attributes": _attributes(item)} | _stored(item)

    file.visititems(visit)
    parts: dict[str, dict[str, Any]] = {"content": {}, "provenance": {}}
    for path, entry in entries.items():
        parts["provenance" if f"{path}/".startswith("/provenance/") else "content"][path] = entry
    return parts


def _stored(item: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    if not isinstance(item, h5py.Dataset):
        return {}
    shape = item.shape or ()
    row = item.dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    count = max(1, BLOCK // max(row, 1))
    # Of what is only declared no block is read: one who tampers would leave the list of digests empty.
    is_huge = row * (shape[0] if shape else 1) > HUGE
    blocks = range(0, shape[0] if shape and not is_huge else 0, count)
    digests = [_sha256(np.ascontiguousarray(item[start : start + count]).tobytes()) for start in blocks]
    return {"type": _type(item.dtype), "shape": list(shape), "rows_in_block": count, "sha256": digests}


def _type(dtype: np.dtype) -> str:
    if dtype.names is None:
        return dtype.str
    return "{" + ", ".join(f"{name}: {dtype[name].str}" for name in dtype.names) + "}"


def _attributes(item: h5py.Group | h5py.Dataset, unlisted: tuple[str, ...] = ()) -> dict[str, Any]:
    return {name: _plain(item.attrs[name]) for name in item.attrs if name not in unlisted}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    return {"type": array.dtype.str, "value": array.tolist()}


def _canonical(tree: Any) -> bytes:
    # A type that the format does not know stands by its name: a tamperer has no rule for it either.
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str).encode(
        "utf-8", "surrogateescape"
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
