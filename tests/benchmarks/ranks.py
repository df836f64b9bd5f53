"""Two ranks of one thread beside one process of two threads, on the same training: wall and CPU seconds, and ratios.

    PYTHONPATH=. python3 -m tests.benchmarks.ranks --data-dir DIR --times 3

DIR holds CIFAR-10 as train/CLASS and test/CLASS. One block of cifar10-small, 5,000 images. The sides take turns. Wall
seconds are those of the epochs after the first. CPU seconds are those of all processes together, of which a training of
one epoch is taken away: they mean something on a busy machine too. Threads sleep while they wait.

    PYTHONPATH=. python3 -m tests.benchmarks.ranks --probe --times 3

does so with a linear probe on 20,000 made features of 512 numbers and 10 classes: standardisation, and eight penalties
one after another, each certified. Seconds of both kinds are those of these alone.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from layerwise import ranks
from layerwise.runfile import RunFile
from probes.solver.path import Fitter
from probes.solver.standardiser import Standardiser

TRAIN = "import sys; sys.argv[0] = 'layerwise-train'; from layerwise.commands.train import train_command as c; c()"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", sys.executable]

SAMPLES, FEATURES, CLASSES = 20_000, 512, 10
PENALTIES = 10.0 ** -np.arange(0.5, 4.5, 0.5)


def training(data_dir: Path, ranks: int, out: Path, epochs: int) -> float:
    """Train on so many ranks, which together have two threads; return the CPU seconds of all processes."""
    started = TORCHRUN if ranks == 2 else []
    words = ["cifar10-small", "--dataset", "imagefolder", "--data-dir", str(data_dir), "--set", "data.label=cifar10"]
    words += ["--depth", "1", "--set", "network.downsample=", "--epochs", str(epochs), "--subset", "5000"]
    words += ["--out", str(out), "--force", "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": str(2 // ranks), "OMP_WAIT_POLICY": "passive"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *started, "-c", TRAIN, *words], env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds(data_dir: Path, ranks: int, out: Path) -> tuple[float, float]:
    """Return wall and CPU seconds of four epochs."""
    short = training(data_dir, ranks, out, 1)
    whole = training(data_dir, ranks, out, 5)
    with RunFile(out) as run:
        found = run.epoch_seconds()
        assert found is not None
        return float(found[1:].sum()), whole - short


def fit() -> None:
    """Fit the probe as one rank, or alone; print wall and CPU seconds, Newton steps and certificates."""
    with ranks.joined(torch.device("cpu")):
        rng, rows = np.random.default_rng(0), ranks.stretch(SAMPLES)
        spread = np.linspace(1, 0.05, FEATURES) * rng.normal(size=(FEATURES, FEATURES)) / np.sqrt(FEATURES)
        X = (rng.normal(size=(SAMPLES, FEATURES)) @ spread).astype(np.float32)
        y = (X @ rng.normal(size=(FEATURES, CLASSES)) + 8 * rng.gumbel(size=(SAMPLES, CLASSES))).argmax(1)
        X = X[rows].copy()
        wall, cpu = time.perf_counter(), time.process_time()
        standardise = Standardiser(X, is_shared=True)
        fitter = Fitter(X, y[rows], n_classes=CLASSES, standardiser=standardise, is_shared=True)
        fits = []
        for penalty in PENALTIES:
            ((one,),) = fitter.fit([penalty], fits[-1:] or None)
            fits.append(one)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps([wall, cpu, [one.iterations for one in fits], max(one.certificate for one in fits)]))


def fitting(ranks: int) -> tuple[float, float]:
    """Return wall seconds, and CPU seconds of all processes, of the probe on so many ranks."""
    started = TORCHRUN if ranks == 2 else []
    environment = os.environ | {"OMP_NUM_THREADS": str(2 // ranks), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, *started, "-m", "tests.benchmarks.ranks", "--fit"]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    print(f"Newton steps {found[0][2]}, certificates up to {found[0][3]:.1e}")
    return max(one[0] for one in found), sum(one[1] for one in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--data-dir", type=Path)
    asked.add_argument("--probe", action="store_true")
    asked.add_argument("--fit", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    if given.fit:
        return fit()
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.times):
            for ranks, taken in found.items():
                out = Path(folder) / f"{ranks}.h5"
                taken.append(fitting(ranks) if given.probe else seconds(given.data_dir, ranks, out))
                wall, cpu = taken[-1]
                print(f"{ranks} rank{'s' * (ranks > 1)}: {wall:.2f} s, {cpu:.2f} s of CPU time", flush=True)
    for i, what in enumerate(("wall", "CPU")):
        ratios = [two[i] / one[i] for one, two in zip(found[1], found[2], strict=True)]
        print(f"{what} ratio: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
