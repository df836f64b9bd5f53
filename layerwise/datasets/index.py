"""The index of an image folder: of each file its bytes, height, width, channels and SHA-256, found in one pass.

It stands beside the images as .layerwise-index.h5, or in the user's cache where the folder is closed to writing. A file
whose size and time of change are as they were is not opened again. Every file was decoded once for it, so broken ones
are known before anything is trained, and what a data set is by count is known without opening a file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np

from layerwise.commandline import progress
from layerwise.datasets.filling import Account
from layerwise.datasets.folder import Files, path_of, tested_of
from layerwise.datasets.pictures import CHANGES, UnreadError, examine, sha256_of
from layerwise.datasets.workers import cores, read_by
from layerwise.errors import UserError
from layerwise.hdf5 import create_hdf5, open_hdf5
from layerwise.publication import published

log = logging.getLogger("layerwise.imagefolder")

NAME = ".layerwise-index.h5"
_VERSION = 1
_ADVICE = "Delete it: it is made again when the images are read."
# Bytes and time of change in nanoseconds; then what decoding found, channels 0 where it failed; changes: a bit for each
# of `CHANGES`, in their order.
RECORD = np.dtype(
    [
        ("bytes", "<i8"), ("changed", "<i8"), ("height", "<i4"), ("width", "<i4"), ("channels", "u1"),
        ("changes", "u1"), ("sha256", "u1", (32,)),
    ]
)  # fmt: skip
_PIECE = 16  # files that a process examines at once
Broken = dict[int, tuple[str, str, str]]


@dataclass(frozen=True)
class Index:
    """What is known of the files of a folder: a RECORD for each, and why those of `broken`, by row, cannot be read.

    made: when, for messages.
    """

    files: Files
    records: np.ndarray
    broken: Broken
    made: str

    def account(self, rows: np.ndarray) -> Account:
        """Return what reading some files finds in them, as `filling` does where it decodes them."""
        account = Account()
        for bit, how in enumerate(CHANGES):
            if len(of := rows[self.records["changes"][rows] >> bit & 1 == 1]):
                account.changed[how] = self.files.paths(of)
        for row in rows[self.records["channels"][rows] == 0]:
            account.unread[path_of(self.files.root, self.files.names[row])] = UnreadError(*self.broken[int(row)])
        return account


def index_of(files: Files, workers: int | None = None) -> Index:
    """Return the index of the files that were found in a folder; what is new or changed in it is examined and kept.

    workers: processes that read; None for as many as there are cores.
    """
    old = known_index(files.root)
    stats = stats_of(files.root, files.names)
    places = None if old is None else places_of(old.files.names, files.names)
    records, broken = np.zeros(len(stats), RECORD), Broken()
    stale = np.ones(len(stats), dtype=bool)
    if old is not None and places is not None:
        before = np.stack([old.records[name] for name in ("bytes", "changed")], axis=1)
        stale = (places < 0) | (before[places] != stats).any(axis=1)
        records[~stale] = old.records[places[~stale]]
        broken = {int(row): old.broken[int(places[row])] for row in np.flatnonzero(~stale & (records["channels"] == 0))}
        _say_changed(old, files, places, stale)
    records["bytes"], records["changed"] = stats.T
    _examine(files, np.flatnonzero(stale), records, broken, cores() if workers is None else workers)
    made = datetime.now().isoformat(" ", "minutes")
    index = Index(files, records, broken, made if old is None or stale.any() else old.made)
    if old is None or stale.any() or len(old.records) != len(records):
        keep(index)
    return index


def known_index(root: Path, test_share: float | None = None) -> Index | None:
    """Return the index that was made of a folder, as it stands there; None where there is none, or it is damaged.

    No image file is looked at, so the folder may have changed since. test_share: of the data set that is asked for;
    None for any. An index of a folder of another kind (with train/ and test/, or without) is none of it.
    """
    for path in homes(root, NAME):
        if path.is_file():
            try:
                index = _read(path, root)
            except (UserError, KeyError, ValueError, OSError) as error:
                log.warning("the index of the images is not read and made anew: %s", error)
                continue
            if test_share is None or index.files.has_splits == (test_share == 0):
                tested = tested_of(index.files.label, test_share) if test_share else index.files.tested
                return replace(index, files=replace(index.files, tested=tested))
    return None


class _Examiner:
    """Decodes files and takes their digests, in any process."""

    def __init__(self, files: Files):
        self.root, self.names = files.root, files.names

    def __len__(self) -> int:
        return len(self.names)

    def __getitems__(self, rows: np.ndarray) -> tuple[np.ndarray, Broken]:
        """Return the records of some files, of which bytes and time are left out, and why some cannot be read."""
        records, broken = np.zeros(len(rows), RECORD), Broken()
        for record, row in zip(records, rows.tolist(), strict=True):
            path = path_of(self.root, self.names[row])
            try:
                found = examine(path)
            except UnreadError as error:
                broken[row] = (error.alone, error.why, error.advice)
            else:
                record["height"], record["width"], record["channels"] = found.height, found.width, found.channels
                record["changes"] = sum((how in found.changes) << bit for bit, how in enumerate(CHANGES))
            with suppress(OSError):  # of a broken file, which is named as such
                record["sha256"] = sha256_of(path)
        return records, broken


def _examine(files: Files, rows: np.ndarray, records: np.ndarray, broken: Broken, workers: int) -> None:
    """Fill in the records of some files."""
    pieces = [rows[i : i + _PIECE] for i in range(0, len(rows), _PIECE)]
    with progress() as bar:
        task = bar.add_task("indexing images", total=len(rows))
        for piece, (found, unread) in zip(pieces, read_by(_Examiner(files), pieces, workers), strict=True):
            for name in ("height", "width", "channels", "changes", "sha256"):
                records[name][piece] = found[name]
            broken |= unread
            bar.update(task, advance=len(piece))


def stats_of(root: Path, names: np.ndarray) -> np.ndarray:
    """Return bytes and time of change of each file, int64 [n, 2]; those of a link are of what it leads to.

    Both are -1 where there is no file.
    """

    def look(start: int) -> list[tuple[int, int]]:
        return [_stat(path_of(root, name)) for name in names[start : start + 1000]]

    # Threads, since a network file system answers each question late, and many at once.
    with ThreadPoolExecutor(16) as pool:
        found = [one for part in pool.map(look, range(0, len(names), 1000)) for one in part]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _stat(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:  # a link to nothing, which is broken like any other
        return -1, -1
    return found.st_size, found.st_mtime_ns


def places_of(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return for each new name its row among the old ones, -1 where it is not there."""
    if len(old) == len(new) and np.array_equal(old, new):
        return np.arange(len(new))
    order = np.argsort(old, kind="stable")
    at = np.minimum(np.searchsorted(old, new, sorter=order), len(old) - 1)
    return np.where(old[order[at]] == new, order[at], -1)


def _say_changed(old: Index, files: Files, places: np.ndarray, stale: np.ndarray) -> None:
    new = int((places < 0).sum())
    counts = {"changed": int(stale.sum()) - new, "new": new, "gone": len(old.records) - (len(places) - new)}
    if any(counts.values()):
        log.warning(
            "%s is not as it was when its index was made, %s: %s. The index is brought up to date.",
            files.root, old.made, ", ".join(f"{count} files are {how}" for how, count in counts.items() if count),
        )  # fmt: skip


def homes(root: Path, name: str) -> tuple[Path, Path]:
    """Return where a file about a folder of images is looked for and kept: beside the images, else in the cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    own = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return root / name, cache / "layerwise" / f"{own}{name}"


def keep(index: Index) -> None:
    """Write an index beside the images or, where that is not allowed, in the cache; without a place it is not kept."""
    reason: Exception | None = None
    for path in homes(index.files.root, NAME):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with published(path, force=True) as temporary, create_hdf5(temporary) as file:
                _write(file, index)
            return
        except (UserError, OSError) as error:
            reason = error
    log.warning("the index of %s is kept nowhere, and is made again by the next command: %s", index.files.root, reason)


def _write(file: h5py.File, index: Index) -> None:
    files = index.files
    file.attrs.update({"format": "layerwise-index", "format_version": _VERSION, "made": index.made})
    file.attrs["has_splits"] = files.has_splits
    texts = {"classes": list(files.classes), "broken": {str(row): why for row, why in index.broken.items()}}
    file["texts"] = np.frombuffer(json.dumps(texts).encode(), np.uint8)  # an attribute holds 64 KB at most
    file["names"], file["label"], file["tested"], file["records"] = (
        files.names,
        files.label,
        files.tested,
        index.records,
    )
    file.attrs["digest"] = _digest(file)


def _read(path: Path, root: Path) -> Index:
    with open_hdf5(path, "index of images", "layerwise-train", _ADVICE) as file:
        if file.attrs["format"] != "layerwise-index" or file.attrs["format_version"] != _VERSION:
            raise UserError(f"{path} is of another version of this software. {_ADVICE}")
        if file.attrs["digest"] != _digest(file):
            raise UserError(f"{path} is damaged: its content is not what was written. {_ADVICE}")
        texts = json.loads(file["texts"][:].tobytes())
        arrays = {name: file[name][:] for name in ("names", "label", "tested", "records")}
        made, has_splits = str(file.attrs["made"]), bool(file.attrs["has_splits"])
    files = Files(root, tuple(texts["classes"]), arrays["names"], arrays["label"], arrays["tested"], has_splits)
    broken = {int(row): (alone, why, advice) for row, (alone, why, advice) in texts["broken"].items()}
    return Index(files, arrays["records"], broken, made)


def _digest(file: h5py.File) -> str:
    """Return the SHA-256 of all values of an index."""
    found = hashlib.sha256()
    for name in ("texts", "names", "label", "tested", "records"):
        found.update(np.ascontiguousarray(file[name][:]).view(np.uint8).data)
    return found.hexdigest()
