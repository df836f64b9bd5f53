"""run.h5 against plain files of the same bytes: writing with digests, reading in order, reading random rows.

A time on a shared machine means something only beside another one of the same run, so each group holds the plain
file as its own yardstick, and the file is flushed to the disk on both sides. The digests are part of our times.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from layerwise.runfile import RunFile
from layerwise.runfile.writer import create_run

SHAPE = (2000, 64, 32, 32)  # 262 MB of float16 maps, rows of 128 KiB
BATCH = 256


@pytest.fixture(scope="module")
def maps() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float16)


def write_run(path: Path, maps: np.ndarray) -> None:
    with create_run(path, force=True) as writer:
        rows = writer.rows("depths/01/train/maps", SHAPE, np.float16)
        for start in range(0, SHAPE[0], BATCH):
            rows.append(maps[start : start + BATCH])
        writer.attributes("provenance", {"run_id": "bench"})


def write_plain(path: Path, maps: np.ndarray) -> None:
    with open(path, "wb") as file:
        for start in range(0, SHAPE[0], BATCH):
            file.write(maps[start : start + BATCH].data)
        file.flush()
        os.fsync(file.fileno())


def read_run(path: Path, checked: RunFile | None = None) -> None:
    with RunFile(path) as run:
        rows = (checked or run).maps(1, "train")
        assert rows is not None
        for start in range(0, SHAPE[0], BATCH):
            rows[start : start + BATCH]


def read_plain(path: Path) -> None:
    with open(path, "rb") as file:
        while file.read(BATCH * 2 * int(np.prod(SHAPE[1:]))):
            pass


@pytest.mark.benchmark(group="write 262 MB")
def test_write_plain_file(benchmark: BenchmarkFixture, tmp_path: Path, maps: np.ndarray) -> None:
    benchmark.pedantic(write_plain, (tmp_path / "plain", maps), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="write 262 MB")
def test_write_run_with_digests(benchmark: BenchmarkFixture, tmp_path: Path, maps: np.ndarray) -> None:
    benchmark.pedantic(write_run, (tmp_path / "run.h5", maps), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="read 262 MB in order")
def test_read_plain_file(benchmark: BenchmarkFixture, tmp_path: Path, maps: np.ndarray) -> None:
    write_plain(tmp_path / "plain", maps)
    benchmark.pedantic(read_plain, (tmp_path / "plain",), rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="read 262 MB in order")
def test_read_run_checking_every_digest(benchmark: BenchmarkFixture, tmp_path: Path, maps: np.ndarray) -> None:
    write_run(tmp_path / "run.h5", maps)
    benchmark.pedantic(read_run, (tmp_path / "run.h5",), rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="read 262 MB in order")
def test_read_run_checked_before(benchmark: BenchmarkFixture, tmp_path: Path, maps: np.ndarray) -> None:
    write_run(tmp_path / "run.h5", maps)
    with RunFile(tmp_path / "run.h5") as run:
        list(run.verify())
        benchmark.pedantic(read_run, (tmp_path / "run.h5", run), rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="read 1,000 random rows")
def test_random_rows_of_a_plain_file(benchmark: BenchmarkFixture, tmp_path: Path, maps: np.ndarray) -> None:
    write_plain(tmp_path / "plain", maps)
    order = np.random.default_rng(1).permutation(SHAPE[0])[:1000]
    plain = np.memmap(tmp_path / "plain", dtype=np.float16, mode="r", shape=SHAPE)
    benchmark.pedantic(lambda: plain[order], rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="read 1,000 random rows")
def test_random_rows_of_a_run(benchmark: BenchmarkFixture, tmp_path: Path, maps: np.ndarray) -> None:
    write_run(tmp_path / "run.h5", maps)
    order = np.random.default_rng(1).permutation(SHAPE[0])[:1000]
    with RunFile(tmp_path / "run.h5") as run:
        rows = run.maps(1, "train")
        assert rows is not None
        rows.verify()
        benchmark.pedantic(lambda: rows[order], rounds=5, warmup_rounds=1)
