"""HDF5 files beside a run (the state of a training, single predictions): one digest over everything in them.

run.h5 has a digest for each block of rows, since it is large and read in part. What stands beside it is small and read
whole, so one SHA-256 over structure, attributes and values serves, checked whenever such a file is opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from layerwise.errors import UserError
from layerwise.hdf5 import create_hdf5, damage_named, open_hdf5
from layerwise.publication import published
from layerwise.runfile.manifest import canonical, describe

DIGEST = "digest"


@dataclass(frozen=True)
class SealedFormat:
    """A kind of file: its `format` attribute and version, what it is called, what writes it, what to do if damaged.

    since: the first version with a digest. oldest: the first version that is still read.
    """

    name: str
    version: int
    kind: str
    writer: str
    advice: str
    since: int = 2
    oldest: int = 1


@contextmanager
def create_sealed(path: Path, form: SealedFormat) -> Iterator[h5py.File]:
    """Yield a file to write into, which replaces the one at `path` when the block ends, digest and all."""
    with published(path, force=True) as temporary, create_hdf5(temporary) as file:
        file.attrs["format"], file.attrs["format_version"] = form.name, form.version
        yield file
        file.attrs[DIGEST] = _digest(file)


@contextmanager
def open_sealed(path: Path, form: SealedFormat) -> Iterator[h5py.File]:
    """Yield the file, after its format, version and digest were checked.

    Raises UserError for a file of another format, a later version, or another digest.
    """
    with open_hdf5(path, form.kind, form.writer, form.advice) as file:
        with damage_named(path, form.advice):
            _check(file, path, form)
        yield file


def _check(file: h5py.File, path: Path, form: SealedFormat) -> None:
    if file.attrs.get("format") != form.name:
        raise UserError(
            f"{path} is not the {form.kind}: it lacks the root attribute format = {form.name!r}. Move it away."
        )
    version = int(file.attrs["format_version"])
    if version > form.version:
        raise UserError(
            f"{path} has format version {version}; this software reads up to {form.version}. Install a newer one."
        )
    if 1 <= version < form.oldest:
        raise UserError(f"{path} has format version {version}, which this software no longer reads. {form.advice}")
    has_digest = DIGEST in file.attrs
    if version < 1 or (version >= form.since and not has_digest):
        raise UserError(f"{path} is damaged: it lacks its digest. {form.advice}")
    if has_digest and file.attrs[DIGEST] != _digest(file):
        raise UserError(f"{path} is damaged: its content is not what was written (another SHA-256). {form.advice}")


def _digest(file: h5py.File) -> str:
    """Return the SHA-256 of a file's structure, attributes and values, its digest left out."""
    structure = describe(file)
    structure["/"]["attributes"].pop(DIGEST, None)
    found = hashlib.sha256(canonical(structure))
    for path in sorted(path for path, entry in structure.items() if "shape" in entry):
        found.update(np.ascontiguousarray(file[path][()]).reshape(-1).view(np.uint8).data)
    return found.hexdigest()
