"""Training: layerwise-train against the published loop, on the same images, blocks and epochs, in one run.

Each side is a process of its own (tests/benchmarks/sides.py). Its whole time stands in pytest-benchmark's table; the
table printed below it holds the training alone, with the evaluation of the held images after each epoch. The floor is
the training's operations over the machine's measured rate of matrix products in bfloat16. Images are CIFAR-10's from
LAYERWISE_DATA (as published, or train/CLASS and test/CLASS), else made.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"depth": 4, "width": 64, "aux_width": 64, "k": 2, "downsample": [3], "epochs": 2}
# The prefix is filled once within the time: 20 epochs weigh that more than the 50 of the recipes.
LAST = SIZES | {"epochs": 20}
N_TRAIN, N_HELD = 2_048, 256
Results = dict[str, dict[str, Any]]


def side(images: Path, what: str, sizes: dict[str, Any] = SIZES) -> dict[str, Any]:
    """Run one side in a new process and return what it measured."""
    asked = json.dumps({"sizes": sizes, "n_train": N_TRAIN, "n_held": N_HELD, "what": what, "images": str(images)})
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.sides", asked]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of the images that all sides read."""
    path = tmp_path_factory.mktemp("images") / "images.npz"
    side(path, "gather")
    return path


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, images: Path) -> Iterator[Results]:
    """Gather what the sides measure, and print it as the table of docs/performance.md."""
    found: Results = {}
    yield found
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n\n" + "\n".join(table(images, found)) + "\n")


def table(images: Path, found: Results) -> Iterator[str]:
    """Yield the lines of the table."""
    machine, last = side(images, "machine"), side(images, "machine", LAST)
    rates = {name: rate / 1e9 for name, rate in machine["rates"].items()}
    yield f"matrix products: {rates['fp32']:.0f} GFLOP/s in float32, {rates['bf16']:.0f} in bfloat16"
    yield "| work | ours, s | published loop, s | ratio | floor, s | ours / floor |"
    yield "| --- | --- | --- | --- | --- | --- |"
    rate, nowhere = machine["rates"]["bf16"], {"blocks": [float("nan")] * 4, "seconds": float("nan")}
    theirs = found.get("published", nowhere)
    for name in (name for name in ("bf16", "fp32") if f"ours-{name}" in found):
        ours = found[f"ours-{name}"]
        each = zip(ours["blocks"], theirs["blocks"], machine["operations"], strict=True)
        for j, (own, other, spent) in enumerate(each, start=1):
            yield row(f"block {j}, {name}", own, other, spent / rate)
        yield row(f"whole run, {name}", ours["seconds"], theirs["seconds"], sum(machine["operations"]) / rate)
        whole = ours["seconds"] + ours["scoring_and_dump"]
        yield row(f"whole run, {name}, scored and dumped", whole, theirs["seconds"], float("nan"))
    other = found.get("published-last", nowhere)["seconds"]
    for way, spent in (("recomputed", last["operations"][-1]), ("kept", last["operations_last_kept"])):
        if f"ours-last-{way}" in found:
            own = found[f"ours-last-{way}"]["seconds"]
            yield row(f"block 4, {LAST['epochs']} epochs, {way}", own, other, spent / rate)


def row(work: str, ours: float, theirs: float, floor: float) -> str:
    """Return a line of the table."""
    return f"| {work} | {ours:.1f} | {theirs:.1f} | {theirs / ours:.2f} | {floor:.1f} | {ours / floor:.2f} |"


@pytest.mark.benchmark(group="train 4 blocks, M = 64, k = 2, on 2,048 images for 2 epochs")
@pytest.mark.parametrize("what", ["published", "ours-bf16", "ours-fp32"])
def test_whole_run(what: str, benchmark: BenchmarkFixture, images: Path, results: Results) -> None:
    results[what] = benchmark.pedantic(side, (images, what), rounds=1)


@pytest.mark.benchmark(group="train block 4 alone for 20 epochs, images not augmented")
@pytest.mark.parametrize("what", ["published-last", "ours-last-recomputed", "ours-last-kept"])
def test_last_block(what: str, benchmark: BenchmarkFixture, images: Path, results: Results) -> None:
    results[what] = benchmark.pedantic(side, (images, what, LAST), rounds=1)
