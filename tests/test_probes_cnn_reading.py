"""Shuffled reading: every row once, the same batches from every source, in bounded pieces, off the HDF5 library."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_run

from layerwise.activations import Activations, open_activations
from layerwise.runfile import RunFile
from probes.cnn import reading
from probes.cnn.reading import Labelled, ahead, shuffled_order
from probes.tasks.task import Task

CPU = torch.device("cpu")
SPLITS = ("train", "validation")


class Odd(Task):
    """The images at odd positions alone."""

    def labels(self, split: str) -> np.ndarray:
        return super().labels(split)[1::2]

    def rows(self, split: str) -> np.ndarray:
        return super().rows(split)[1::2]


def labelled(run: RunFile, source: str = "stored", task: Task | None = None) -> Labelled:
    return Labelled(task or Task(run), 1, SPLITS, source=source, device=CPU)


@pytest.mark.parametrize("row_bytes", [2**10, 3 * 2**12, 2**17, 2**20])
def test_an_order_holds_every_row_once_and_differs_between_seeds(row_bytes: int) -> None:
    orders = [shuffled_order(1000, row_bytes, seed) for seed in (0, 0, 1)]
    assert all(sorted(order) == list(range(1000)) for order in orders)
    assert np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])


def test_neighbours_of_small_rows_lie_in_one_chunk_and_large_rows_anywhere() -> None:
    small, large = (np.argsort(shuffled_order(10**5, row_bytes, 0)) for row_bytes in (2**12, 2**17))
    chunk = reading.CHUNK_BYTES // 2**12
    # Pieces of 32 rows: 31 of 32 neighbours were read together, so that they lie within a chunk of each other.
    assert np.mean(np.abs(np.diff(small)) < chunk) > 0.95
    # Uniform: two rows are a third of the whole apart on average.
    assert np.mean(np.abs(np.diff(large))) == pytest.approx(10**5 / 3, rel=0.02)


def test_a_batch_of_small_rows_comes_from_all_over_the_file() -> None:
    batch = shuffled_order(50_000, 2**12, 0)[:128]
    assert len(np.unique(batch // 32)) > 120  # of 128 rows, nearly each from another piece


@pytest.mark.parametrize("task", [Task, Odd])
def test_every_source_gives_the_same_batches(run_path: Path, monkeypatch: pytest.MonkeyPatch, task: type[Task]) -> None:
    with RunFile(run_path) as run:
        found = {}
        for kept in (10**9, 0):
            monkeypatch.setattr(reading, "KEPT_BYTES", kept)
            monkeypatch.setattr(reading, "CHUNK_BYTES", 10**9 if kept else 2**18)
            # The order itself must be the same here, which small chunks would change.
            order = np.random.default_rng(0).permutation(len(labelled(run, task=task(run))))
            monkeypatch.setattr(reading, "shuffled_order", lambda n, row_bytes, seed, order=order: order)
            for source in ("stored", "recompute"):
                found[kept, source] = list(labelled(run, source, task(run)).shuffled(100, 3))
        whole = torch.cat([
            open_activations(run, 1, split, source="stored")[task(run).rows(split)] for split in SPLITS
        ])  # fmt: skip
        label = np.concatenate([task(run).labels(split) for split in SPLITS])
    for batches in found.values():
        assert torch.equal(torch.cat([y for _, y in batches]), torch.from_numpy(label[order]))
        torch.testing.assert_close(torch.cat([x for x, _ in batches]), whole[order], rtol=1e-3, atol=1e-3)
    for source in ("stored", "recompute"):
        pairs = zip(found[10**9, source], found[0, source], strict=True)
        # The network of a batch of other images gives the same maps to the last bits alone.
        tolerance = 0 if source == "stored" else 1e-5
        for (held, _), (read, _) in pairs:
            torch.testing.assert_close(held, read, rtol=tolerance, atol=tolerance)
            assert held.is_contiguous(memory_format=torch.channels_last)
            assert read.is_contiguous(memory_format=torch.channels_last)


def test_batches_are_as_equal_as_can_be(run_path: Path) -> None:
    with RunFile(run_path) as run:
        data = labelled(run)
        assert len(data) == 1438
        assert sorted({len(y) for _, y in data.shuffled(100, 0)}) == [95, 96]
        first = torch.cat([y for _, y in data.shuffled(100, 0, n=1295)])
        assert sorted(first.tolist()) == sorted(run.labels("train"))


def test_rows_in_order_are_those_of_the_file(run_path: Path) -> None:
    with RunFile(run_path) as run:
        data = labelled(run)
        fold = torch.cat(list(data.in_order(range(data.counts["train"], len(data)))))
        assert torch.equal(fold, torch.cat(list(open_activations(run, 1, "validation").batches())))


def test_no_more_than_a_chunk_is_read_at_a_time_and_by_a_thread_of_its_own(
    run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[tuple[int, bool]] = []
    read = Activations.read

    def watched(self: Activations, rows: slice | np.ndarray) -> np.ndarray:
        values = read(self, rows)
        reads.append((values.nbytes, threading.current_thread() is threading.main_thread()))
        return values

    monkeypatch.setattr(Activations, "read", watched)
    monkeypatch.setattr(reading, "KEPT_BYTES", 0)
    monkeypatch.setattr(reading, "CHUNK_BYTES", 2**18)
    with RunFile(run_path) as run:
        list(labelled(run).shuffled(64, 0))
        assert max(size for size, _ in reads) <= 2**18
        assert not any(in_main for _, in_main in reads)


def test_chunked_maps_are_read_by_the_thread_that_owns_the_hdf5_handle(
    run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "KEPT_BYTES", 0)
    monkeypatch.setattr(Activations, "is_contiguous", False)
    monkeypatch.setattr(reading, "ahead", lambda *_: pytest.fail("a thread was started"))
    with RunFile(run_path) as run:
        assert sum(len(y) for _, y in labelled(run).shuffled(64, 0)) == 1438


def test_what_comes_next_is_computed_ahead_and_its_error_arrives() -> None:
    started = threading.Event()

    def work(i: int) -> int:
        if i == 1:
            started.set()
        if i == 2:
            raise OSError("no disk")
        return 10 * i

    results = ahead(work, [0, 1, 2])
    assert next(results) == (0, 0)
    assert started.wait(5)
    assert next(results) == (1, 10)
    with pytest.raises(OSError, match="no disk"):
        next(results)


def test_runs_of_neighbouring_rows_are_read_as_single_rows_are(run_path: Path, tmp_path: Path) -> None:
    rows = np.array([7, 8, 9, 3, 4, 4, 5, 1294, 0])
    with RunFile(run_path) as run:
        maps = run.maps(1, "train")
        assert maps is not None and maps.is_contiguous
        assert np.array_equal(maps[rows], np.stack([maps[row : row + 1][0] for row in rows]))
        assert maps[rows[:0]].shape == (0, *maps.shape[1:])


def test_a_run_without_maps_gives_the_same_order_and_nearly_the_same_values(run_path: Path, tmp_path: Path) -> None:
    path = make_run(tmp_path / "run.h5", store="pooled")
    with RunFile(run_path) as stored, RunFile(path) as recomputed:
        pairs = zip(labelled(stored).shuffled(64, 5), labelled(recomputed, "auto").shuffled(64, 5), strict=True)
        for (a, label_a), (b, label_b) in pairs:
            assert torch.equal(label_a, label_b)
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
