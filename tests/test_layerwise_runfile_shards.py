"""Files of rows that ranks write beside a run file: laid in row by row, and refused where the disk changed them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from layerwise.errors import UserError
from layerwise.runfile import manifest
from layerwise.runfile.shards import ShardWriter, _lay_in
from layerwise.runfile.writer import RunWriter


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    monkeypatch.setattr(manifest, "BLOCK_BYTES", 3 * 5 * 4)  # three rows
    return np.random.default_rng(0).random((11, 5), dtype=np.float32)


def written(folder: Path, rows: np.ndarray) -> ShardWriter:
    """Return what a rank wrote that has the last seven rows, in batches of five and two."""
    shards = ShardWriter(folder / "run.h5")
    shards.array("ignored", rows)
    for part in (rows[4:9], rows[9:]):
        writer = shards.rows("a/b", rows.shape, np.float32) if not shards.shards else shards.shards["/a/b"]
        writer.append(part)
    return shards


def test_rows_of_ranks_follow_each_other_with_the_digests_of_one_process(tmp_path: Path, rows: np.ndarray) -> None:
    told = {name: shard.told() for name, shard in written(tmp_path, rows).shards.items()}
    found = []
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        for name, first in (("/a/b", rows[:4]), ("/a/c", rows)):
            writer = RunWriter(file)
            own = writer.rows(name, rows.shape, np.float32)
            own.append(first)
            _lay_in(writer, [told])
            assert np.array_equal(own.dataset[:], rows)
            found.append(own.hasher.finish())
    assert found[0] == found[1] and len(found[0]) == 4
    assert not list(tmp_path.iterdir())


def test_a_file_that_the_disk_changed_is_named(tmp_path: Path, rows: np.ndarray) -> None:
    told = {name: shard.told() for name, shard in written(tmp_path, rows).shards.items()}
    path = told["/a/b"][0]
    damaged = bytearray(path.read_bytes())
    damaged[70] ^= 1
    path.write_bytes(damaged)
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        writer = RunWriter(file)
        writer.rows("a/b", rows.shape, np.float32).append(rows[:4])
        with pytest.raises(UserError, match=r"which rank 1 wrote of /a/b, is not what was written \(its SHA-256 diff"):
            _lay_in(writer, [told])
