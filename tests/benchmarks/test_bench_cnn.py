"""CNN probes: six of a depth together against one after the other, and shuffled reading against reading in order.

Each ratio is taken within one run, side by side, since a time on a shared machine means something only beside another.
Files lie in the page cache here: nothing can drop it without being root, so what is compared is the reading itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from layerwise.activations import READ_BATCH
from layerwise.commandline import keep_freed_memory
from layerwise.config import NetworkConfig
from layerwise.hardware import exact_float32, pick_device, pick_precision
from layerwise.model.counts import count_problems
from layerwise.model.network import LayerwiseNetwork, freeze
from layerwise.runfile import RunFile
from layerwise.runfile.writer import create_run
from probes.cnn import reading
from probes.cnn.reading import Labelled
from probes.cnn.training import Candidate, Design, train_together
from probes.tasks.task import Task

IMAGES, DEPTH = 256, 2
NETWORK = NetworkConfig(depth=DEPTH, width=32, k=2, aux_width=32)
SIX = [Candidate(Design(p, width, 0), 0.01) for p in (1, 2) for width in (64, 128, 256)]
MAPS = (4000, 64, 32, 32)  # 524 MB of float16, rows of 128 KiB


class Recomputed:
    """Batches of x_2 of random images, computed anew by frozen blocks whenever they are asked for."""

    def __init__(self) -> None:
        self.device = pick_device("auto")
        self.dtype = torch.bfloat16 if pick_precision("auto", self.device) == "bf16" else torch.float32
        rng = np.random.default_rng(0)
        self.images = torch.from_numpy(rng.integers(0, 256, (IMAGES, 3, 32, 32), dtype=np.uint8)).to(self.device)
        self.label = torch.from_numpy(rng.integers(0, 10, IMAGES)).to(self.device)
        self.network = LayerwiseNetwork(NETWORK, (3, 32, 32), 10, (0.5,) * 3, (0.25,) * 3, 0).to(self.device)
        freeze(self.network)

    def in_order(self, rows: range) -> Iterator[Tensor]:
        return (x for x, _ in self.shuffled(READ_BATCH, 0, len(rows)))

    def shuffled(self, size: int, seed: int, n: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.arange(n, device=self.device).split(size):
            with torch.no_grad(), exact_float32():
                x = self.network.advance(self.network.normalise(self.images[rows]), 0, DEPTH)
            yield x.to(self.dtype, memory_format=torch.channels_last), self.label[rows]


def seconds(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@pytest.mark.benchmark(group="six CNN probes of a depth")
def test_together_against_one_after_the_other(benchmark: BenchmarkFixture) -> None:
    keep_freed_memory()
    data = Recomputed()
    shape, precision = (32, 32, 32), pick_precision("auto", data.device)

    def train(candidates: list[Candidate]) -> None:
        train_together(
            data, IMAGES, candidates, depth=DEPTH, shape=shape, n_classes=10, epochs=1, precision=precision,  # type: ignore[arg-type]
        )  # fmt: skip

    train(SIX)
    apart = [min(seconds(lambda c=c: train([c]), data.device) for _ in range(2)) for c in SIX]  # type: ignore[misc]
    benchmark.pedantic(train, (SIX,), rounds=3)
    together = benchmark.stats.stats.min
    prefix = sum(problem.block.operations for problem in count_problems(NETWORK, (3, 32, 32), 10))
    probes = sum(candidate.design.training_operations(shape, 10) for candidate in SIX)
    bound, speedup = (len(SIX) * prefix + probes) / (prefix + probes), sum(apart) / together
    said = {"speed-up": speedup, "bound by operations": bound, "share of the bound": speedup / bound}
    benchmark.extra_info.update(said, precision=precision, device=str(data.device))
    print(f"\nsix probes together, {precision}: " + ", ".join(f"{name} {value:.3f}" for name, value in said.items()))


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with random maps at depth 1."""
    path = tmp_path_factory.mktemp("maps") / "run.h5"
    rng = np.random.default_rng(0)
    with create_run(path, force=True) as writer:
        for split, n in (("train", MAPS[0]), ("test", 10)):
            rows = writer.rows(f"depths/01/{split}/maps", (n, *MAPS[1:]), np.float16)
            for start in range(0, n, 200):
                rows.append(rng.normal(size=(min(200, n - start), *MAPS[1:])).astype(np.float16))
            writer.array(f"samples/{split}/label", rng.integers(0, 10, n))
            writer.array(f"samples/{split}/index", np.arange(n))
        writer.attributes("depths/01", {"module": "blocks.0", "shape": np.array(MAPS[1:])})
        writer.attributes("provenance", {"run_id": "bench"})
    return path


@pytest.mark.benchmark(group="read 524 MB of maps as batches on the device")
@pytest.mark.parametrize("how", ["in order", "shuffled"])
def test_reading(benchmark: BenchmarkFixture, maps: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_freed_memory()
    monkeypatch.setattr(reading, "KEPT_BYTES", 0)
    with RunFile(maps) as run:
        rows = run.maps(1, "train")
        assert rows is not None
        rows.verify()
        data = Labelled(Task(run), 1, ["train"], source="stored", device=torch.device("cpu"))

        def read() -> None:
            batches = data.in_order(range(len(data))) if how == "in order" else data.shuffled(32, 0)
            for _ in batches:
                pass

        benchmark.pedantic(read, rounds=5, warmup_rounds=1)
