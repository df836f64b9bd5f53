"""The linear probe against scikit-learn's converged L-BFGS, a whole run's depths, and the memory that a path takes.

Features are 2x2 averages of 256 random 3x3 filters and relu on the CIFAR-10 that LAYERWISE_DATA holds
(cifar10/*.tar.gz, with train/CLASS and test/CLASS inside), standardised: 50,000 x 1,024, 10 classes. Without it
normal features stand in, which the lines say. scikit-learn gets the same float32 array and tol=1e-6, once at every
penalty: in all about 20 minutes. A time means something only beside the other one of the same run; the last lines are
their ratios.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu_linear import PENALTIES, depth_data, probe
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.linear_model import LogisticRegression

from probes.solver.fit import LinearFit
from probes.solver.path import fit_path
from probes.solver.standardiser import Standardiser

Split = tuple[np.ndarray, np.ndarray]

N_TRAIN, N_HELD = 50_000, 5_000
LAM_AT_C_1 = 1 / N_TRAIN
# The protocol's penalties, with that of C = 1 in the place of the smallest: scikit-learn's longest fit serves twice.
PATH = [LAM_AT_C_1, *PENALTIES[1:]]
LINES: list[str] = []
SECONDS: dict[str, float] = {}


@pytest.fixture(scope="module", autouse=True)
def ratios(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print at the end what was found."""
    yield
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n" + "\n".join(LINES))


@pytest.fixture(scope="module")
def images() -> dict[str, Split] | None:
    """Return uint8 images [n, 3, 32, 32] and labels of both splits, in an order that mixes classes, or None."""
    archives = sorted((Path(os.environ.get("LAYERWISE_DATA", ".")) / "cifar10").glob("*.tar.gz"))
    if not archives:
        LINES.append("LAYERWISE_DATA holds no cifar10/*.tar.gz: normal features stand in for those of images")
        return None
    found: dict[str, list[tuple[str, np.ndarray]]] = {"train": [], "test": []}
    for archive in archives:
        with tarfile.open(archive) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isfile() else None
                if file is not None:
                    split, name, _ = Path(member.name).parts
                    found[split].append((name, np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))))
    result = {}
    for split, pairs in found.items():
        order = np.random.default_rng(0).permutation(len(pairs))
        _, labels = np.unique([pairs[i][0] for i in order], return_inverse=True)
        result[split] = np.stack([pairs[i][1] for i in order]).transpose(0, 3, 1, 2), labels
    return result


def filtered(images: np.ndarray, seed: int) -> np.ndarray:
    """Return 2x2 averages of 256 random 3x3 filters and relu, float32 [n, 1024]."""
    weight = torch.randn(256, 3, 3, 3, generator=torch.Generator().manual_seed(seed))
    parts = []
    for batch in torch.from_numpy(images).split(24):  # small enough that their memory is used again
        maps = torch.nn.functional.conv2d((batch.float() / 255 - 0.45) / 0.25, weight, padding=1).relu_()
        parts.append(torch.nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1))
    return torch.cat(parts).numpy()


@pytest.fixture(scope="module")
def train(images: dict[str, Split] | None) -> Split:
    """Return standardised features [50000, 1024] and labels."""
    x, y = depth_data(N_TRAIN, 1024, 0) if images is None else (filtered(images["train"][0], 0), images["train"][1])
    return Standardiser(x)(x), y


def timed(benchmark: BenchmarkFixture, name: str, work: Any, *, rounds: int = 1) -> Any:
    """Run and keep the seconds of the first time under a name, as scikit-learn runs once; return the last result."""
    found = []

    def noted() -> None:
        start = time.perf_counter()
        found.append(work())
        SECONDS.setdefault(name, time.perf_counter() - start)

    benchmark.pedantic(noted, rounds=rounds)
    return found[-1]


def objective(coef: np.ndarray, intercept: np.ndarray, train: Split, lam: float) -> float:
    """Return mean cross-entropy + lam/2 |coef|^2, in float64."""
    x, y = (torch.from_numpy(a) for a in train)
    weights, bias = torch.from_numpy(coef).double(), torch.from_numpy(intercept).double()
    losses = [
        torch.nn.functional.cross_entropy(part.double() @ weights.T + bias, labels, reduction="sum")
        for part, labels in zip(x.split(4096), y.split(4096), strict=True)
    ]
    return float(sum(losses) / len(y) + lam / 2 * weights.square().sum())


def scikit_learn(train: Split, lam: float) -> LogisticRegression:
    return LogisticRegression(C=1 / (len(train[1]) * lam), tol=1e-6, max_iter=20_000).fit(*train)


def certified(train: Split, lams: list[float]) -> list[LinearFit]:
    return fit_path(*train, lams, n_classes=10)


@pytest.mark.benchmark(group="50,000 x 1,024 x 10, C = 1")
def test_certified_fit_at_c_1(benchmark: BenchmarkFixture, train: Split) -> None:
    (fit,) = timed(benchmark, "ours at C = 1", lambda: certified(train, [LAM_AT_C_1]), rounds=3)
    assert fit.converged
    SECONDS["our objective"] = fit.objective


@pytest.mark.benchmark(group="50,000 x 1,024 x 10, C = 1")
def test_scikit_learn_at_c_1(benchmark: BenchmarkFixture, train: Split) -> None:
    theirs = timed(benchmark, "theirs at C = 1", lambda: scikit_learn(train, LAM_AT_C_1))
    reached = objective(theirs.coef_, theirs.intercept_, train, LAM_AT_C_1)
    assert SECONDS["our objective"] <= reached
    LINES.append(
        f"C = 1: scikit-learn {SECONDS['theirs at C = 1']:.1f} s, {theirs.n_iter_[0]} iterations, objective "
        f"{reached:.6f}; certified {SECONDS['ours at C = 1']:.2f} s, objective {SECONDS['our objective']:.6f}: "
        f"{SECONDS['theirs at C = 1'] / SECONDS['ours at C = 1']:.0f} times shorter (to hold: 50)"
    )


@pytest.mark.benchmark(group="50,000 x 1,024 x 10, a path of 10 penalties")
def test_certified_path(benchmark: BenchmarkFixture, train: Split) -> None:
    fits = timed(benchmark, "our path", lambda: certified(train, PATH), rounds=3)
    assert all(fit.converged for fit in fits)
    SECONDS.update({f"our objective at {fit.lam:.1e}": fit.objective for fit in fits})


@pytest.mark.benchmark(group="50,000 x 1,024 x 10, a path of 10 penalties")
@pytest.mark.parametrize("lam", PATH[1:], ids=[f"{lam:.1e}" for lam in PATH[1:]])
def test_scikit_learn_at_each_penalty(benchmark: BenchmarkFixture, train: Split, lam: float) -> None:
    theirs = timed(benchmark, f"theirs at {lam:.1e}", lambda: scikit_learn(train, lam))
    # Both are near one optimum; the certified fit may be above it by its tolerance.
    reached = objective(theirs.coef_, theirs.intercept_, train, lam)
    assert SECONDS[f"our objective at {lam:.1e}"] <= reached * (1 + 1e-4)
    LINES.append(
        f"lambda {lam:.1e}: scikit-learn {SECONDS[f'theirs at {lam:.1e}']:.1f} s, {theirs.n_iter_[0]} iterations"
    )
    if lam == PATH[-1]:
        total = SECONDS["theirs at C = 1"] + sum(SECONDS[f"theirs at {each:.1e}"] for each in PATH[1:])
        LINES.append(
            f"10 penalties: scikit-learn {total:.1f} s in sum, one certified path {SECONDS['our path']:.2f} s: "
            f"{total / SECONDS['our path']:.0f} times shorter (to hold: 30)"
        )


@pytest.mark.benchmark(group="all depths of a run, M = 256: path of 10, choice, refit, test")
def test_all_depths(benchmark: BenchmarkFixture, images: dict[str, Split] | None) -> None:
    def of_depth(depth: int) -> list[dict[str, np.ndarray]]:
        if images is None:
            x, y = depth_data(60_000, 1024 if depth else 12, depth)
        else:
            whole = np.concatenate([images["train"][0], images["test"][0]])
            pooled = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(whole).float(), 2).flatten(1).numpy()
            x = filtered(whole, depth) if depth else pooled
            y = np.concatenate([images["train"][1], images["test"][1]])
        names, ends = ("train", "validation", "test"), (N_TRAIN - N_HELD, N_TRAIN)
        return [dict(zip(names, np.split(a, ends), strict=True)) for a in (x, y)]

    data = [of_depth(depth) for depth in range(6)]
    found = timed(benchmark, "all depths", lambda: [probe(x, y, "cpu") for x, y in data])
    assert all(depth["largest certificate / tolerance"] <= 1 for depth in found)
    each = ", ".join(f"{depth['seconds']:.1f}" for depth in found)
    LINES.append(
        f"6 depths on {torch.get_num_threads()} cores: {each}; in all {SECONDS['all depths']:.1f} s (to hold: 120)"
    )


# ru_maxrss would begin at what this process holds, since exec keeps it; VmHWM is of the new program alone.
PEAK = """
import re
import numpy as np
from probes.solver.path import fit_path

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

x, y = np.load({features!r}), np.load({labels!r})

class Repeated:
    shape = (len(x) * {times}, x.shape[1])
    def __len__(self):
        return self.shape[0]
    def __getitem__(self, rows):
        return x[np.arange(*rows.indices(len(self))) % len(x)]

some = np.random.default_rng(0).normal(size=(2000, 64)).astype(np.float32)
fit_path(some, y[:2000], [1e-2], n_classes=10)
before = {before}
fit_path(x if {limit} is None else Repeated(), np.tile(y, {times}), {penalties}, n_classes=10, max_memory={limit})
print(peak() - before)
"""


def peak(benchmark: BenchmarkFixture, train: Split, folder: Path, **words: Any) -> int:
    """Return by how many bytes a path makes a process grow; features held in memory are counted."""
    np.save(folder / "x.npy", train[0])
    np.save(folder / "y.npy", train[1])
    program = PEAK.format(features=str(folder / "x.npy"), labels=str(folder / "y.npy"), **words)
    command = [sys.executable, "-c", program]
    run = timed(benchmark, "peak", lambda: subprocess.run(command, capture_output=True, text=True, check=True))
    return int(run.stdout)


@pytest.mark.benchmark(group="peak memory")
def test_peak_memory_of_a_path(benchmark: BenchmarkFixture, train: Split, tmp_path: Path) -> None:
    before = "peak() - x.nbytes"
    found = peak(benchmark, train, tmp_path, times=1, penalties=PATH, limit=None, before=before)
    LINES.append(f"peak memory of a path: {found / train[0].nbytes:.2f} times the features (to hold: 3)")


@pytest.mark.benchmark(group="peak memory")
@pytest.mark.parametrize("times", [1, 8])
def test_peak_memory_of_streamed_features(
    benchmark: BenchmarkFixture, train: Split, tmp_path: Path, times: int
) -> None:
    part = train[0][:25_000, :256].copy(), train[1][:25_000]
    found = peak(
        benchmark, part, tmp_path, times=times, penalties=[1e-3, 1e-2], limit=20_000_000,
        before="peak()",
    )  # fmt: skip
    LINES.append(
        f"streamed, max_memory 20 MB, {times * 25_000:,} x 256 ({times * part[0].nbytes / 1e6:.0f} MB): "
        f"peak {found / 1e6:.0f} MB"
    )
