"""Reading run.h5: what a file holds, and rows of it that were checked against their digests.

Opening a file checks its structure against the manifest; each block of rows is checked when it is first read,
so damage is found before a number is computed from it, and what is not used is not read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from html import escape
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from layerwise.config import RunConfig
from layerwise.errors import UserError, unknown
from layerwise.hdf5 import open_hdf5
from layerwise.runfile import layout
from layerwise.runfile.checks import ADVICE, checked_entries, require_labels
from layerwise.runfile.layout import SPLITS
from layerwise.runfile.rows import Rows

MODULES = ("blocks", "auxiliaries")  # whose weights a file holds


class RunFile:
    """An open, complete run file of format version 1. Use it as a context manager.

    data_dir: the folder of its images, for what needs them where the file holds none; None for where they were.

    Raises UserError on opening if the file is missing, is no run, is cut, incomplete, damaged in its structure,
    or of a later format version.
    """

    def __init__(self, path: Path | str, data_dir: Path | str | None = None):
        self.path = Path(path)
        self.data_dir = None if data_dir is None else Path(data_dir)
        self._handle = open_hdf5(self.path, "run file", f"`layerwise-train --out {self.path.name}`", ADVICE)
        # Rows are read through this descriptor, so that a file put under the same name meanwhile is never read.
        self._bytes = FileIO(self.path)
        self._opened: dict[str, Rows] = {}
        try:
            self._entries = checked_entries(self._file, self.path)
            _require_same_file(self._file, self._bytes)
            self._identity = self._found_identity()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; rows opened from it cannot be read any more."""
        self._handle.close()
        self._bytes.close()

    @property
    def _file(self) -> h5py.File:
        if not self._handle:
            raise UserError(f"{self.path} was closed, so nothing of it can be read any more. Open it again.")
        return self._handle

    def __fspath__(self) -> str:
        """The path, so that a run stands wherever one does."""
        return str(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path and what the file is, not its rows: a worker opens it again, and refuses another file."""
        return reopened, (self.path.absolute(), self._identity, self.data_dir)

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be read any more."""
        return self._bytes.closed

    def reopened(self, data_dir: Path | str | None = None) -> RunFile:
        """Return the same file opened anew; raise UserError where another has taken its place.

        data_dir: the folder of its images; None for the one that this one was opened with.
        """
        return reopened(self.path, self._identity, self.data_dir if data_dir is None else data_dir)

    def __repr__(self) -> str:
        if not self._handle:
            return f"RunFile({str(self.path)!r}, closed)"
        sizes = ", ".join(f"{split} {self._file[layout.labels(split)].shape[0]}" for split in self.splits)
        depths = f"depths {min(self.depths)}..{max(self.depths)}"
        return f"RunFile({str(self.path)!r}: {self.network_name}, {self.dataset['name']} ({sizes}), {depths})"

    def _repr_html_(self) -> str:
        depths = self.depths if self._handle else []
        rows = [(j, self.depth_module(j), " x ".join(map(str, self.depth_shape(j)))) for j in depths]
        lines = "".join(f"<tr><td>{j}</td><td>{escape(module)}</td><td>{shape}</td></tr>" for j, module, shape in rows)
        head = "<tr><th>depth</th><th>module</th><th>C x H x W</th></tr>"
        return f"<p>{escape(repr(self))}</p><table>{head}{lines}</table>"

    @property
    def run_id(self) -> str:
        """The identifier that this run's rows carry in tables."""
        return self._attribute(layout.PROVENANCE, "run_id")

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
        return json.loads(self._attribute(layout.ROOT, "dataset"))

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
        self._require_depth(depth)
        return self._attribute(layout.depth(depth), "module")

    def depth_shape(self, depth: int) -> tuple[int, int, int]:
        """Shape (C, H, W) of x_j."""
        self._require_depth(depth)
        channels, height, width = self._attribute(layout.depth(depth), "shape")
        return int(channels), int(height), int(width)

    def labels(self, split: str) -> np.ndarray:
        """Labels int64 [n] of a split."""
        self._require_split(split)
        found = self._rows(layout.labels(split))
        return require_labels(found[:], len(self.dataset["classes"]), str(self.path), found.path)

    def indices(self, split: str) -> np.ndarray:
        """Position int64 [n] of each sample in the published split it comes from."""
        self._require_split(split)
        return self._rows(layout.indices(split))[:]

    def files(self, split: str) -> tuple[Rows, Rows] | None:
        """Paths bytes [n] below the folder of the data, and SHA-256 uint8 [n, 32], of the files the images come from.

        None where the file names none.
        """
        self._require_split(split)
        names, sha256 = (self._rows_or_none(path(split)) for path in (layout.paths, layout.file_digests))
        return None if names is None or sha256 is None else (names, sha256)

    @property
    def image_form(self) -> tuple[tuple[int, int, int], int]:
        """Shape (C, H, W) of the images that come from files, and to what their shorter side is brought, 0 for none."""
        channels, height, width = (int(side) for side in self._attribute(layout.SAMPLES, "image_shape"))
        return (channels, height, width), int(self._attribute(layout.SAMPLES, "image_resize"))

    def _require_split(self, split: str) -> None:
        if split not in ("train", "validation", "test") or (split == "validation" and split not in self.splits):
            raise unknown("split", split, self.splits)

    def _require_depth(self, depth: int) -> None:
        if depth not in self.depths:
            raise unknown("depth", depth, self.depths)

    def images(self, split: str) -> Rows | None:
        """uint8 images [n, C, H, W] of a split, or None where the file holds none."""
        self._require_split(split)
        return self._rows_or_none(layout.images(split))

    def pooled(self, depth: int, split: str) -> Rows | None:
        """A x_j [n, C, 2, 2], or None where the file holds none."""
        return self._activations(depth, split, "pooled")

    def maps(self, depth: int, split: str) -> Rows | None:
        """x_j [n, C, H, W] whole, or None where the file holds none."""
        return self._activations(depth, split, "maps")

    def class_token(self, depth: int, split: str) -> Rows | None:
        """Class token [n, C] of a transformer's layer, or None where the file holds none."""
        return self._activations(depth, split, "class_token")

    def _activations(self, depth: int, split: str, kind: str) -> Rows | None:
        self._require_depth(depth)
        self._require_split(split)
        return self._rows_or_none(layout.activations(depth, split, kind))

    def depth_form(self, depth: int) -> str:
        """How x_j was read from the module's output: "maps", "patch tokens", "vector" and the like."""
        self._require_depth(depth)
        return self._file[layout.depth(depth)].attrs.get("form", "maps")

    @property
    def trained_depths(self) -> list[int]:
        """The depths whose trained auxiliary classifier the file holds."""
        return [j for j in self.depths if layout.module("auxiliaries", j) in self._file]

    def weights(self, kind: str, j: int) -> dict[str, np.ndarray] | None:
        """Parameters and buffers of block j ("blocks") or its auxiliary ("auxiliaries") by name, or None."""
        if kind not in MODULES:
            raise unknown("kind of weights", kind, MODULES)
        if (folder := layout.module(kind, j)) not in self._file:
            return None
        return {name: self._rows(layout.weights(kind, j, name))[:] for name in self._file[folder]}

    def scores(self, j: int) -> dict[str, float]:
        """Accuracy of auxiliary j in [0, 1] a split; empty where the file has no auxiliaries."""
        self._require_depth(j)
        folder = layout.module("auxiliaries", j)
        return dict(self._file[folder].attrs) if folder in self._file else {}

    def pruning(self, j: int) -> tuple[np.ndarray, np.ndarray, dict[str, float]] | None:
        """What pruning did to block j: filters kept int64 [F], saliencies float64 [M], accuracies by name; or None."""
        self._require_depth(j)
        if (folder := layout.pruning(j)) not in self._file:
            return None
        kept, saliency = (self._rows(path)[:] for path in (layout.kept_filters(j), layout.saliencies(j)))
        return kept, saliency, dict(self._file[folder].attrs)

    def outputs(self, j: int, split: str) -> np.ndarray | None:
        """Logits float32 [n, n_classes] of auxiliary j on a split, or None."""
        self._require_depth(j)
        self._require_split(split)
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

    def _found_identity(self) -> tuple[str, str]:
        found = self._file.attrs.get("content_digest"), self._file[layout.PROVENANCE].attrs.get("run_id")
        return str(found[0]), str(found[1])

    def _attribute(self, path: str, name: str) -> Any:
        found = self._file[path].attrs.get(name) if path in self._file else None
        if found is None:
            raise UserError(f"{self.path} lacks the attribute {name} of {path}. {ADVICE}")
        return found

    def _rows(self, path: str) -> Rows:
        if path not in self._entries:
            raise UserError(f"{self.path} lacks {path}. {ADVICE}")
        if path not in self._opened:  # kept, so that each block is checked once and not at every call
            again = reopened_rows, (self.path.absolute(), self._identity, path)
            self._opened[path] = Rows(self._file[path], self._entries[path], self._bytes, again)
        return self._opened[path]

    def _rows_or_none(self, path: str) -> Rows | None:
        return self._rows(path) if path in self._entries else None


def run_id(path: Path | str) -> str:
    """Return the run_id of a run file; raise UserError if the file is no run."""
    with RunFile(path) as run:
        return run.run_id


def reopened(path: Path, identity: tuple[str, str], data_dir: Path | str | None = None) -> RunFile:
    """Return the run file of a path, opened; raise UserError if its content or its run_id is another than expected."""
    run = RunFile(path, data_dir)
    if run._identity != identity:
        run.close()
        raise UserError(
            f"{path} is another run now (run_id {run._identity[1]}, expected {identity[1]}): it was replaced since it "
            "was opened. Open it again by layerwise.open_run, and begin anew what used it."
        )
    return run


def reopened_rows(path: Path, identity: tuple[str, str], name: str) -> Rows:
    """Return one dataset of a run file that is opened for it alone, as `reopened` opens it."""
    return reopened(path, identity)._rows(name)


def _require_same_file(file: h5py.File, raw: FileIO) -> None:
    """Raise UserError if another file was put under the name between the two openings."""
    first, second = os.fstat(file.id.get_vfd_handle()), os.fstat(raw.fileno())
    if (first.st_dev, first.st_ino) != (second.st_dev, second.st_ino):
        raise UserError(f"{raw.name} was replaced while it was being opened. Run the command again.")
