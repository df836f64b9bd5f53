"""A run file that several ranks compute: the first writes it, each other a file of its rows, which the first lays in.

A rank has a stretch of the rows of each split, after those of the rank before it. It writes each dataset's rows as they
are to stand in the run file, with a SHA-256 of every 8 MiB. Rank 0 reads them once all are there, compares, and removes
each file as soon as its rows are laid in: the disk holds the datasets once, and for a moment the largest twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from layerwise import ranks
from layerwise.errors import UserError
from layerwise.publication import followed, temporary_beside
from layerwise.runfile.manifest import BlockHasher, rows_in_block, sha256
from layerwise.runfile.writer import RowWriter, RunWriter, create_run


class Shard(RowWriter):
    """The rows of one dataset that one rank computed, in a file of their own."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype):
        self.path, self.shape, self.dtype = path, shape, dtype
        self.hasher = BlockHasher(rows_in_block(shape, dtype.itemsize))
        self.written = 0
        self._file = open(path, "xb")  # noqa: SIM115, closed when all is told

    def append(self, rows: np.ndarray) -> None:
        """Write the next rows [n, ...]; they are converted to the dataset's type, rounding once."""
        converted = np.ascontiguousarray(rows, dtype=self.dtype)
        self._file.write(converted.data)
        self.hasher.update(converted)
        self.written += len(converted)

    def told(self) -> tuple[Path, int, list[str]]:
        """Return what rank 0 needs to know, when the file is complete: its path, its rows, and the digests of them."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        return self.path, self.written, self.hasher.finish()

    def close(self) -> None:
        """Write no more."""
        self._file.close()


class ShardWriter(RunWriter):
    """What a rank beside the first writes of a run file: the rows that it appends, and nothing of what all know."""

    def __init__(self, out: Path):
        self._out = followed(out)
        self.shards: dict[str, Shard] = {}

    def attributes(self, path: str, values: Mapping[str, Any]) -> None:
        """Leave attributes to the first rank."""

    def array(self, path: str, values: np.ndarray) -> None:
        """Leave whole arrays to the first rank."""

    def rows(self, path: str, shape: tuple[int, ...], dtype: np.dtype | type | str) -> RowWriter:
        """Begin a file of rows of a dataset of this full shape."""
        shard = Shard(temporary_beside(self._out), shape, np.dtype(dtype))
        self.shards["/" + path.strip("/")] = shard
        return shard


@contextmanager
def created(path: Path, *, force: bool) -> Iterator[RunWriter]:
    """Yield a writer of a run file on each rank; the file is published, by the first, when the blocks of all end.

    Each appends its stretch of the rows of what `RunWriter.rows` gives.
    """
    if ranks.rank() == 0:
        with create_run(path, force=force) as writer:
            yield writer
            _lay_in(writer, ranks.all_of(dict[str, tuple[Path, int, list[str]]]())[1:])
        ranks.by_first(lambda: None)
        return
    own = ShardWriter(path)
    try:
        yield own
        ranks.all_of({name: shard.told() for name, shard in own.shards.items()})
        ranks.by_first(lambda: None)
    finally:
        for shard in own.shards.values():
            shard.close()
            shard.path.unlink(missing_ok=True)


def _lay_in(writer: RunWriter, others: list[dict[str, tuple[Path, int, list[str]]]]) -> None:
    """Append the rows of the other ranks to the datasets, and remove their files."""
    for name, rows in writer.writers.items():
        for number, told in enumerate(others, start=1):
            if name in told:
                _append(rows, number, *told[name])


def _append(rows: RowWriter, number: int, path: Path, n: int, digests: list[str]) -> None:
    """Append the n rows of a shard, each piece of which is to have its digest; remove the file."""
    shape, dtype = rows.dataset.shape[1:], rows.dataset.dtype
    with open(path, "rb") as file:
        for digest in digests:
            count = min(n, rows.hasher.rows)
            piece = file.read(count * dtype.itemsize * int(np.prod(shape, dtype=np.int64)))
            if sha256(piece) != digest:
                raise UserError(
                    f"{path}, which rank {number} wrote of {rows.dataset.name}, is not what was written (its SHA-256 "
                    "differs). Look at that disk, then give the same command again."
                )
            rows.append(np.frombuffer(piece, dtype=dtype).reshape(count, *shape))
            n -= count
    path.unlink()
