"""Images that stay in their files: bare decoding, the loader, and a training from it; the slowest of them limits.

Each handles the same pieces of two photographs of mixed sizes, with one process beside this one for each core but one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

sys.path.insert(0, str(Path(__file__).resolve().parent))
from photographs import of_samples
from streaming import SIDE, bare, loaded, trained

from layerwise.datasets import load_dataset
from layerwise.datasets.stream import StreamedSplit
from layerwise.datasets.workers import cores

IMAGES = 600
PROCESSES = max(1, cores() - 1)
GROUP = f"{IMAGES * 5 // 6} photographs of {SIDE} pixels"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return of_samples(tmp_path_factory.mktemp("photographs"), IMAGES)


@pytest.fixture(scope="module")
def split(folder: Path) -> StreamedSplit:
    words = {"holdout": 0.0, "image_size": SIDE, "read": "stream", "workers": PROCESSES}
    found = load_dataset("imagefolder", data_dir=folder, **words).splits["train"]
    assert isinstance(found, StreamedSplit)
    return found


@pytest.mark.benchmark(group=GROUP)
def test_bare_decoding(benchmark: BenchmarkFixture, split: StreamedSplit) -> None:
    paths = split.folder.files.paths(split.rows)
    benchmark.pedantic(bare, (paths, split, PROCESSES), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group=GROUP)
def test_the_loader(benchmark: BenchmarkFixture, split: StreamedSplit) -> None:
    benchmark.pedantic(loaded, (split,), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group=GROUP)
def test_a_training_with_its_dump(benchmark: BenchmarkFixture, folder: Path) -> None:
    rate = benchmark.pedantic(trained, (folder, PROCESSES), rounds=3, warmup_rounds=1)
    benchmark.extra_info["images/s while training"] = rate
