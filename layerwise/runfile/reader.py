"""Reading run.h5: what a file holds, and rows of it that were checked against their digests.

Opening a file checks its structure against the manifest; each block of rows is checked when it is first read,
so damage is found before a number is computed from it, and what is not used is not read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from html import escape
from io import FileIO
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from layerwise.config import RunConfig
from layerwise.errors import UserError, no_file
from layerwise.runfile import layout
from layerwise.runfile.layout import FORMAT, FORMAT_VERSION, MANIFEST, SPLITS
from layerwise.runfile.manifest import canonical, describe, sha256


class Rows:
    """The rows of one dataset, read on demand and checked once against their digests.

    A contiguous dataset is read at its offset in the file, without the HDF5 library and its lock; a chunked or
    compressed one through it.
    """

    def __init__(self, dataset: h5py.Dataset, entry: dict[str, Any], file: FileIO):
        self.path = dataset.name
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype = dataset.dtype
        self._file = file
        self._dataset = dataset
        self._offset = dataset.id.get_offset()
        self._block_rows: int = entry["rows_in_block"]
        self._digests: list[str] = entry["sha256"]
        self._checked = np.zeros(len(self._digests), dtype=bool)

    def __repr__(self) -> str:
        return f"Rows({self.path}, {' x '.join(map(str, self.shape))}, {self.dtype})"

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole dataset."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))

    @property
    def is_flat(self) -> bool:
        """Whether rows are read at their offset, without the HDF5 library, so that a thread of its own may read."""
        return self._offset is not None

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return rows [n, ...] for a slice of step 1 or an integer array, in the order asked for."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            assert step == 1
            self._check(range(start // self._block_rows, -(-stop // self._block_rows)))
            return self._read(start, max(start, stop))
        rows = np.asarray(rows)
        result = np.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        self._check(np.unique(rows // self._block_rows))
        # Neighbouring rows that are asked for one after the other are read at once.
        gaps = np.flatnonzero(np.diff(rows) != 1) + 1
        for start, stop in pairwise([0, *gaps, len(rows)] if len(rows) else []):
            self._read_into(result[start:stop], int(rows[start]))
        return result

    def verify(self) -> None:
        """Read and check every block that was not checked yet; raise UserError at the first damaged one."""
        self._check(range(len(self._digests)))

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
        if self._offset is None:
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


class RunFile:
    """An open, complete run file of format version 1. Use it as a context manager.

    Raises UserError on opening if the file is missing, is no run, is cut, incomplete, damaged in its structure,
    or of a later format version.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._file = _open(self.path)
        # Rows are read through this descriptor, so that a file put under the same name meanwhile is never read.
        self._bytes = FileIO(self.path)
        self._opened: dict[str, Rows] = {}
        try:
            self._entries = _checked_entries(self._file, self.path)
            _require_same_file(self._file, self._bytes)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RunFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; rows opened from it cannot be read any more."""
        self._file.close()
        self._bytes.close()

    def __repr__(self) -> str:
        if not self._file:
            return f"RunFile({str(self.path)!r}, closed)"
        sizes = ", ".join(f"{split} {self._file[layout.labels(split)].shape[0]}" for split in self.splits)
        depths = f"depths {min(self.depths)}..{max(self.depths)}"
        return f"RunFile({str(self.path)!r}: {self.network_name}, {self.dataset['name']} ({sizes}), {depths})"

    def _repr_html_(self) -> str:
        depths = self.depths if self._file else []
        rows = [(j, self.depth_module(j), " x ".join(map(str, self.depth_shape(j)))) for j in depths]
        lines = "".join(f"<tr><td>{j}</td><td>{escape(module)}</td><td>{shape}</td></tr>" for j, module, shape in rows)
        head = "<tr><th>depth</th><th>module</th><th>C x H x W</th></tr>"
        return f"<p>{escape(repr(self))}</p><table>{head}{lines}</table>"

    @property
    def run_id(self) -> str:
        """The identifier that this run's rows carry in tables."""
        return self.provenance["run_id"]

    @property
    def content_digest(self) -> str:
        """SHA-256 over everything but the provenance."""
        return self._file.attrs["content_digest"]

    @property
    def config(self) -> RunConfig | None:
        """The configuration the run was trained with; None for a file without one."""
        text = self._file.attrs.get("config")
        return None if text is None else RunConfig.from_json(text)

    @property
    def extraction(self) -> dict[str, Any] | None:
        """What the file says of a network built elsewhere, or of arrays; None for a run trained here."""
        text = self._file.attrs.get("extraction")
        return None if text is None else json.loads(text)

    @property
    def network_name(self) -> str:
        """What figures call the network: mode and k of one trained here, else the label it was given."""
        if (config := self.config) is not None:
            return f"{config.mode}, k = {config.network.k}"
        return (self.extraction or {}).get("label", "extracted")

    @property
    def dataset(self) -> dict[str, Any]:
        """Name, fingerprint of each split, class names, and mean and std a channel ("normalisation")."""
        return json.loads(self._file.attrs["dataset"])

    @property
    def provenance(self) -> dict[str, Any]:
        """run_id, created, command, software and durations, as they stand in the file."""
        return dict(self._file[layout.PROVENANCE].attrs)

    @property
    def splits(self) -> list[str]:
        """The splits the file has samples of."""
        return [name for name in SPLITS if layout.labels(name) in self._file]

    @property
    def depths(self) -> list[int]:
        """The depths the file knows, ascending."""
        return sorted(int(name) for name in self._file[layout.DEPTHS])

    def depth_module(self, depth: int) -> str:
        """Name of the module whose output the depth is."""
        return self._depth(depth).attrs["module"]

    def depth_shape(self, depth: int) -> tuple[int, int, int]:
        """Shape (C, H, W) of x_j."""
        channels, height, width = self._depth(depth).attrs["shape"]
        return int(channels), int(height), int(width)

    def labels(self, split: str) -> np.ndarray:
        """Labels int64 [n] of a split."""
        return self._rows(layout.labels(split))[:]

    def indices(self, split: str) -> np.ndarray:
        """Position int64 [n] of each sample in the published split it comes from."""
        return self._rows(layout.indices(split))[:]

    def images(self, split: str) -> Rows | None:
        """uint8 images [n, C, H, W] of a split, or None where the file holds none."""
        return self._rows_or_none(layout.images(split))

    def pooled(self, depth: int, split: str) -> Rows | None:
        """A x_j [n, C, 2, 2], or None."""
        return self._rows_or_none(layout.activations(depth, split, "pooled"))

    def maps(self, depth: int, split: str) -> Rows | None:
        """x_j [n, C, H, W] whole, or None."""
        return self._rows_or_none(layout.activations(depth, split, "maps"))

    def class_token(self, depth: int, split: str) -> Rows | None:
        """Class token [n, C] of a transformer's layer, or None."""
        return self._rows_or_none(layout.activations(depth, split, "class_token"))

    def depth_form(self, depth: int) -> str:
        """How x_j was read from the module's output: "maps", "patch tokens", "vector" and the like."""
        return self._depth(depth).attrs.get("form", "maps")

    @property
    def trained_depths(self) -> list[int]:
        """The depths whose trained auxiliary classifier the file holds."""
        return [j for j in self.depths if layout.module("auxiliaries", j) in self._file]

    def weights(self, kind: str, j: int) -> dict[str, np.ndarray] | None:
        """Parameters and buffers of block j ("blocks") or its auxiliary ("auxiliaries") by name, or None."""
        if (folder := layout.module(kind, j)) not in self._file:
            return None
        return {name: self._rows(layout.weights(kind, j, name))[:] for name in self._file[folder]}

    def scores(self, j: int) -> dict[str, float]:
        """Accuracy of auxiliary j in [0, 1] a split; empty where the file has no auxiliaries."""
        folder = layout.module("auxiliaries", j)
        return dict(self._file[folder].attrs) if folder in self._file else {}

    def pruning(self, j: int) -> tuple[np.ndarray, np.ndarray, dict[str, float]] | None:
        """What pruning did to block j: filters kept int64 [F], saliencies float64 [M], accuracies by name; or None."""
        if (folder := layout.pruning(j)) not in self._file:
            return None
        kept, saliency = (self._rows(path)[:] for path in (layout.kept_filters(j), layout.saliencies(j)))
        return kept, saliency, dict(self._file[folder].attrs)

    def outputs(self, j: int, split: str) -> np.ndarray | None:
        """Logits float32 [n, n_classes] of auxiliary j on a split, or None."""
        rows = self._rows_or_none(layout.outputs(j, split))
        return None if rows is None else rows[:]

    def history(self) -> np.ndarray | None:
        """A structured row for each epoch, or None."""
        rows = self._rows_or_none(layout.HISTORY)
        return None if rows is None else rows[:]

    def epoch_seconds(self) -> np.ndarray | None:
        """Wall time of each epoch of `history`, float64, or None."""
        rows = self._rows_or_none(layout.EPOCH_SECONDS)
        return None if rows is None else rows[:]

    def storage(self) -> dict[str, tuple[tuple[int, ...], str, int]]:
        """Return {path: (shape, type, bytes)} for every dataset."""
        return {
            path: (tuple(entry["shape"]), entry["type"], self._file[path].nbytes)
            for path, entry in self._entries.items()
            if "shape" in entry
        }

    def verify(self) -> Iterator[str]:
        """Check every block of every dataset, yielding each path when it is found intact."""
        for path, entry in self._entries.items():
            if "sha256" in entry:
                self._rows(path).verify()
                yield path

    def _depth(self, depth: int) -> h5py.Group:
        return self._file[layout.depth(depth)]

    def _rows(self, path: str) -> Rows:
        if path not in self._opened:  # kept, so that each block is checked once and not at every call
            self._opened[path] = Rows(self._file[path], self._entries[path], self._bytes)
        return self._opened[path]

    def _rows_or_none(self, path: str) -> Rows | None:
        return self._rows(path) if path in self._entries else None


def run_id(path: Path | str) -> str:
    """Return the run_id of a run file; raise UserError if the file is no run."""
    with RunFile(path) as run:
        return run.run_id


def _open(path: Path) -> h5py.File:
    if not path.is_file():
        raise no_file(path, f"a run file, as `layerwise-train --out {path.name}` writes it")
    try:
        return h5py.File(path, "r")
    except PermissionError:
        raise UserError(f"{path} is closed to reading; change its permissions or use another copy.") from None
    except OSError as error:
        if not h5py.is_hdf5(path):
            raise UserError(
                f"{path} is no run file: it is not HDF5. Expected a file written by layerwise-train."
            ) from None
        raise UserError(
            f"{path} is HDF5, but cannot be opened: it was cut short or damaged ({_first_reason(error)}). "
            "Take an intact copy, or make the run again."
        ) from None


def _require_same_file(file: h5py.File, raw: FileIO) -> None:
    """Raise UserError if another file was put under the name between the two openings."""
    first, second = os.fstat(file.id.get_vfd_handle()), os.fstat(raw.fileno())
    if (first.st_dev, first.st_ino) != (second.st_dev, second.st_ino):
        raise UserError(f"{raw.name} was replaced while it was being opened. Run the command again.")


def _first_reason(error: OSError) -> str:
    text = str(error)
    return text[text.find("(") + 1 : text.rfind(")")] if "(" in text else text


def _checked_entries(file: h5py.File, path: Path) -> dict[str, Any]:
    """Return the manifest's entries after comparing it with its digests and with the file's structure."""
    try:
        if file.attrs.get("format") != FORMAT:
            raise UserError(f"{path} is HDF5, but no run file: expected the root attribute format = {FORMAT!r}.")
        version = int(file.attrs["format_version"])
        if version > FORMAT_VERSION:
            raise UserError(
                f"{path} has format version {version}; this software reads up to {FORMAT_VERSION}. Install a newer one."
            )
        if not file.attrs.get("complete", False):
            raise UserError(f"{path} is incomplete: its writer was stopped. Make the run again.")
        manifest = file[MANIFEST][:].tobytes()
        if sha256(manifest) != file.attrs["manifest_digest"]:
            raise UserError(f"{path} is damaged: its manifest is not what was written. Take an intact copy.")
        parts = json.loads(manifest)
        if sha256(canonical(parts["content"])) != file.attrs["content_digest"]:
            raise UserError(f"{path} is damaged: its content digest is not what was written. Take an intact copy.")
        difference = _first_difference(parts["content"] | parts["provenance"], describe(file))
    except (OSError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{path} is damaged: its structure cannot be read ({type(error).__name__}). Take an intact copy."
        ) from None
    if difference:
        raise UserError(f"{path} is damaged: {difference} is not what was written. Take an intact copy.")
    return parts["content"] | parts["provenance"]


def _first_difference(listed: dict[str, Any], found: dict[str, Any]) -> str | None:
    """Return the first path whose existence, type, shape or attributes differ from the manifest, if any."""
    for path in sorted(listed.keys() | found.keys()):
        expected = {key: value for key, value in listed.get(path, {}).items() if key not in ("sha256", "rows_in_block")}
        if expected != found.get(path, {}):
            return path
    return None
