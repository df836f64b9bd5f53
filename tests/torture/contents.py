"""What a folder holds, in a form in which two ends of one command can be compared."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from pathlib import Path

import h5py
import numpy as np

from tests.torture.seal import is_intact

# What two equal computations may say differently of themselves. A probe that was killed after it read the test split
# has read it, so that the count of reads may be higher.
INCIDENTAL = ("run_id", "seconds", "test_reads", "digest")
UNREADABLE = "unreadable"
FRACTION = re.compile(r"-?\d+\.\d+(e[+-]\d+)?|-?\d+e[+-]\d+")  # as Python writes them; no digest of hex digits


def contents(folder: Path) -> dict[str, str]:
    """Return {name: what the file holds} of every file below a folder; equal numbers give equal texts."""
    return {str(path.relative_to(folder)): content(path) for path in sorted(folder.rglob("*")) if not path.is_dir()}


def content(path: Path) -> str:
    """Return what one file holds, without what differs between two equal runs."""
    if path.suffix == ".lock" or path.name == "lock" or not path.is_file():
        return "there"
    try:
        if path.name.endswith(".predictions.h5"):
            return _predictions(path)
        if path.suffix == ".h5" and path.name != "state.h5":
            return _run(path)
        if path.suffix == ".csv":
            return _rows(path)
    except Exception as error:  # whatever reading finds wrong is the finding
        return f"{UNREADABLE}: {type(error).__name__}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rows(path: Path) -> list[tuple[tuple[str, str], ...]]:
    """Return the rows of a table, sorted, without what is incidental; a ragged line is an error.

    Numbers are compared at nine digits: the order of sums in a matrix product follows where its operands lie in
    memory, and moves the last of the fourteen that a table shows.
    """
    text = "".join(line for line in path.read_text(encoding="utf-8").splitlines(True) if not line.startswith("#"))
    header, *lines = csv.reader(io.StringIO(text), strict=True)
    kept = [i for i, name in enumerate(header) if name not in INCIDENTAL]
    if any(len(line) != len(header) for line in lines):
        raise ValueError("a line has another number of cells than the header")
    return sorted(tuple((header[i], _nine_digits(line[i])) for i in kept) for line in lines)


def _nine_digits(cell: str) -> str:
    return f"{float(cell):.9g}" if FRACTION.fullmatch(cell) else cell


def _rows(path: Path) -> str:
    return hashlib.sha256(repr(rows(path)).encode()).hexdigest()


def _run(path: Path) -> str:
    with h5py.File(path, "r") as file:
        digest = str(file.attrs["content_digest"])
    return digest if is_intact(path) else f"{UNREADABLE}: not what its manifest says"


def _predictions(path: Path) -> str:
    parts: list[str] = []

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            place = "/".join(name.split("/")[1:])
            parts.append(place + hashlib.sha256(np.ascontiguousarray(item[()]).tobytes()).hexdigest())

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()
