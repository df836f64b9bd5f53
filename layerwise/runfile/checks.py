"""Whether a run file is what its manifest says, and what docs/format.md says; asked before anything of it is used.

The manifest finds every change of a written file. A file whose digests were made anew with the change has passed that;
so types, shapes and texts are then held to the format, and what is wrong is named instead of failing somewhere later.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from layerwise.config import RunConfig
from layerwise.errors import UserError
from layerwise.hdf5 import damage_named
from layerwise.runfile import layout
from layerwise.runfile.layout import FORMAT, FORMAT_VERSION, MANIFEST
from layerwise.runfile.manifest import canonical, describe, sha256

ADVICE = "Take an intact copy, or make the run again."

Entries = dict[str, dict[str, Any]]


def checked_entries(file: h5py.File, path: Path) -> Entries:
    """Return the manifest's entries by path: their attributes, and of a dataset type, shape and digests.

    Raises UserError unless digests, structure and format are right.
    """
    with damage_named(path, ADVICE):
        _require_version(file, path)
        manifest = file[MANIFEST][:].tobytes()
        if sha256(manifest) != file.attrs["manifest_digest"]:
            raise UserError(f"{path} is damaged: its manifest is not what was written. {ADVICE}")
        parts = json.loads(manifest)
        if sha256(canonical(parts["content"])) != file.attrs["content_digest"]:
            raise UserError(f"{path} is damaged: its content digest is not what was written. {ADVICE}")
        entries: Entries = parts["content"] | parts["provenance"]
        if difference := _first_difference(entries, describe(file)):
            raise UserError(f"{path} is damaged: {difference} is not what was written. {ADVICE}")
        try:
            wrong = next(_breaches(file, entries), None)
        except UserError as error:  # a value of the configuration that this version does not know
            raise UserError(
                f"{path} has a configuration that this version cannot read: {error} Install the version that wrote it, "
                "or take an intact copy."
            ) from None
        if wrong:
            raise UserError(f"{path} is damaged: {wrong}. {ADVICE}")
    return entries


def require_labels(labels: np.ndarray, n_classes: int, path: str, where: str) -> np.ndarray:
    """Return labels int64 [n] that are all classes; raise UserError with the first that is none."""
    wrong = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if len(wrong):
        raise UserError(
            f"{path} is damaged: {where} has the label {labels[wrong[0]]} in row {wrong[0]}, but its classes are "
            f"0 to {n_classes - 1}. {ADVICE}"
        )
    return labels


def _require_version(file: h5py.File, path: Path) -> None:
    if file.attrs.get("format") != FORMAT:
        raise UserError(f"{path} is HDF5, but no run file: expected the root attribute format = {FORMAT!r}.")
    version = int(file.attrs["format_version"])
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}; this software reads up to {FORMAT_VERSION}. Install a newer one."
        )
    if version < 1:
        raise UserError(f"{path} is damaged: its format version is {version}. {ADVICE}")
    if not file.attrs.get("complete", False):
        raise UserError(f"{path} is incomplete: its writer was stopped. Make the run again.")


def _first_difference(listed: Entries, found: Entries) -> str | None:
    """Return the first path whose existence, type, shape or attributes differ from the manifest, if any."""
    for path in sorted(listed.keys() | found.keys()):
        expected = {key: value for key, value in listed.get(path, {}).items() if key not in ("sha256", "rows_in_block")}
        if expected != found.get(path, {}):
            return path
    return None


_KINDS = {
    "json": "JSON object", "list": "JSON list", "text": "text", "path": "text", "count": "whole number",
    "shape": "list of three whole numbers",
}  # fmt: skip


def _breaches(file: h5py.File, entries: Entries) -> Iterator[str]:
    """Yield what in a file is against the format, in words that continue "the file is damaged: "."""
    if layout.PROVENANCE not in entries:
        yield f"it lacks {layout.PROVENANCE}"
    for path, entry in entries.items():
        is_dataset = any(re.fullmatch(pattern, path) for pattern, *_ in layout.DATASET_RULES)
        if "shape" in entry and re.fullmatch(layout.GROUPS, path):
            yield f"{path} is a dataset, where a group is to stand"
        elif "shape" not in entry and is_dataset:
            yield f"{path} is a group, where a dataset is to stand"
        elif "shape" in entry:
            yield from _dataset_breaches(path, entry, file)
        else:
            yield from _attribute_breaches(path, file[path])
    yield from _dataset_text_breaches(file)


def _dataset_breaches(path: str, entry: dict[str, Any], file: h5py.File) -> Iterator[str]:
    dataset, rows, digests = file[path], entry.get("rows_in_block"), entry.get("sha256")
    n = entry["shape"][0] if entry["shape"] else 0
    if not (isinstance(rows, int) and rows >= 1 and isinstance(digests, list) and len(digests) == math.ceil(n / rows)):
        yield f"the manifest has not one SHA-256 for each block of rows of {path}"
    for pattern, axes, kinds in layout.DATASET_RULES:
        if found := re.fullmatch(pattern, path):
            if dataset.dtype.kind not in kinds or (axes is not None and dataset.ndim != axes) or not dataset.ndim:
                yield f"{path} has the type {dataset.dtype} and {dataset.ndim} axes, which the format does not allow"
            yield from _size_breaches(path, dataset, file, found.groupdict())


def _size_breaches(path: str, dataset: h5py.Dataset, file: h5py.File, named: dict[str, str]) -> Iterator[str]:
    """Yield where a dataset has not the rows of its split, or not the shape of its depth."""
    split, depth = named.get("split"), named.get("depth")
    label = file.get(layout.labels(split)) if split else None
    if split and (label is None or not label.ndim or label.shape[0] != dataset.shape[0]):
        yield f"{path} has {dataset.shape[0]} rows, but the split {split} has not as many"
    if depth and dataset.ndim == 4:
        shape = tuple(int(side) for side in np.ravel(file[layout.depth(int(depth))].attrs["shape"]))
        whole = dataset.shape[1:] == shape
        if not whole and not (path.endswith("pooled") and dataset.shape[1] == shape[0]):
            yield f"{path} has the shape {dataset.shape[1:]} a sample, but its depth has {shape}"


def _attribute_breaches(path: str, group: h5py.Group) -> Iterator[str]:
    for pattern, kinds in layout.ATTRIBUTE_RULES:
        if re.fullmatch(pattern, path):
            for name, kind in kinds.items():
                if name in group.attrs and not _is(kind, group.attrs[name]):
                    yield f"the attribute {name} of {path} is no {_KINDS[kind]}"
    if re.fullmatch(layout.NUMBERS, path):
        for name, value in group.attrs.items():
            if np.ndim(value) or np.asarray(value).dtype.kind not in "iuf":
                yield f"the attribute {name} of {path} is no number"


def _is(kind: str, value: Any) -> bool:
    if kind == "shape":
        value = np.asarray(value)
        return value.shape == (3,) and value.dtype.kind in "iu" and bool((value > 0).all())
    if kind == "count":
        return np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iu" and value >= 0
    if not isinstance(value, str) or not (value or kind == "path"):  # of no folder
        return False
    return kind in ("text", "path") or isinstance(json.loads(value), list if kind == "list" else dict)


def _dataset_text_breaches(file: h5py.File) -> Iterator[str]:
    """Yield what in the JSON texts of the root is of another kind than readers take it for."""
    if "config" in file.attrs:
        RunConfig.from_json(file.attrs["config"])
    if "dataset" not in file.attrs:
        return
    about = json.loads(file.attrs["dataset"])
    classes, constants = about.get("classes"), about.get("normalisation")
    if not isinstance(about.get("name"), str) or not isinstance(about.get("fingerprint"), dict):
        yield "the attribute dataset of / has no name or no fingerprints"
    if not (isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)):
        yield "the attribute dataset of / names no classes"
    values = [constants.get(name) for name in ("mean", "std")] if isinstance(constants, dict) else [None]
    if not all(isinstance(value, list) and all(isinstance(x, int | float) for x in value) for value in values):
        yield "the attribute dataset of / has no normalisation by mean and std"
