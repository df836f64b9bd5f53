"""Writing run.h5: rows hashed on the way, the manifest, and publication when all of it is there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from layerwise.hdf5 import create_hdf5
from layerwise.publication import published
from layerwise.runfile import layout
from layerwise.runfile.layout import FORMAT, FORMAT_VERSION, MANIFEST, ROOT
from layerwise.runfile.manifest import BlockHasher, canonical, describe, rows_in_block, sha256, split_parts

# Large datasets begin at a multiple of a page, so that their rows can be memory-mapped where they stand.
ALIGNMENT = 4096


def dataset_attribute(
    name: str, classes: Sequence[str], mean: Sequence[float], std: Sequence[float], fingerprint: Mapping[str, str]
) -> str:
    """Return the root attribute `dataset`: the data's name, classes, normalisation, and a digest of each split."""
    about = {
        "name": name,
        "fingerprint": dict(fingerprint),
        "classes": list(classes),
        "normalisation": {"mean": list(mean), "std": list(std)},
    }
    return json.dumps(about, sort_keys=True)


class FileNames(Protocol):
    """The files of a split, as `layerwise.datasets.split.SplitFiles` has them."""

    @property
    def names(self) -> np.ndarray: ...

    @property
    def sha256(self) -> np.ndarray: ...

    @property
    def image(self) -> tuple[int, int, int]: ...

    @property
    def resize(self) -> int: ...


class RowWriter:
    """Writes one contiguous dataset row by row, in order, and hashes what it writes."""

    def __init__(self, dataset: h5py.Dataset):
        self.dataset = dataset
        self.hasher = BlockHasher(rows_in_block(dataset.shape, dataset.dtype.itemsize))
        self.written = 0

    def append(self, rows: np.ndarray) -> None:
        """Write the next rows [n, ...]; they are converted to the dataset's type, rounding once."""
        converted = np.ascontiguousarray(rows, dtype=self.dataset.dtype)
        self.dataset[self.written : self.written + len(converted)] = converted
        self.hasher.update(converted)
        self.written += len(converted)


class RunWriter:
    """An unpublished run file being written; made by `create_run`. writers: of its datasets, by path."""

    def __init__(self, file: h5py.File):
        self._file = file
        self.writers: dict[str, RowWriter] = {}

    def attributes(self, path: str, values: Mapping[str, Any]) -> None:
        """Set attributes (text, numbers, arrays of numbers) on the group or dataset at `path`, making the group."""
        item = self._file.require_group(path) if path not in self._file else self._file[path]
        for name, value in values.items():
            item.attrs[name] = value

    def rows(self, path: str, shape: tuple[int, ...], dtype: np.dtype | type | str) -> RowWriter:
        """Create a contiguous dataset of the given full shape, to be filled row by row."""
        writer = RowWriter(self._file.create_dataset(path, shape=shape, dtype=dtype))
        self.writers["/" + path.strip("/")] = writer
        return writer

    def array(self, path: str, values: np.ndarray) -> None:
        """Write a whole array as a dataset; a scalar becomes an array of one row."""
        values = np.atleast_1d(values)
        self.rows(path, values.shape, values.dtype).append(values)

    def samples(self, split: str, label: np.ndarray, index: np.ndarray, files: FileNames | None = None) -> None:
        """Write the labels and positions int64 [n] of a split, and of images from files which these were."""
        self.array(layout.labels(split), label)
        self.array(layout.indices(split), index)
        if files is not None:
            self.array(layout.paths(split), files.names)
            self.array(layout.file_digests(split), files.sha256)
            form = {"image_shape": np.array(files.image, dtype=np.int64), "image_resize": files.resize}
            self.attributes(layout.SAMPLES, form)

    def finish(self) -> None:
        """Write the manifest and its digests, and last of all the mark that the file is complete."""
        description = describe(self._file)
        for path, writer in self.writers.items():
            assert writer.written == writer.dataset.shape[0], f"{path} has {writer.written} of its rows"
            description[path]["rows_in_block"] = writer.hasher.rows
            description[path]["sha256"] = writer.hasher.finish()
        parts = split_parts(description)
        manifest = canonical(parts)
        self._file.create_dataset(MANIFEST, data=np.frombuffer(manifest, dtype=np.uint8))
        self._file.attrs["content_digest"] = sha256(canonical(parts["content"]))
        self._file.attrs["manifest_digest"] = sha256(manifest)
        self._file.flush()
        self._file.attrs["complete"] = True


@contextmanager
def create_run(path: Path, *, force: bool) -> Iterator[RunWriter]:
    """Yield a writer of a run file that is published under `path` when the block ends without an error."""
    with published(path, force=force) as temporary, create_hdf5(temporary, alignment=ALIGNMENT) as file:
        writer = RunWriter(file)
        writer.attributes(ROOT, {"format": FORMAT, "format_version": FORMAT_VERSION})
        yield writer
        writer.finish()
