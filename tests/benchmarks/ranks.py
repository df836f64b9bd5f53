"""Two ranks of one thread beside one process of two threads, on the same training: wall and CPU seconds, and ratios.

    PYTHONPATH=. python3 -m tests.benchmarks.ranks --data-dir DIR --times 3

DIR holds CIFAR-10 as train/CLASS and test/CLASS. One block of cifar10-small, 5,000 images. The sides take turns. Wall
seconds are those of the epochs after the first. CPU seconds are those of all processes together, of which a training of
one epoch is taken away: they mean something on a busy machine too. Threads sleep while they wait.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from layerwise.runfile import RunFile

TRAIN = "import sys; sys.argv[0] = 'layerwise-train'; from layerwise.commands.train import train_command as c; c()"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", sys.executable]


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.times):
            for ranks, taken in found.items():
                taken.append(seconds(given.data_dir, ranks, Path(folder) / f"{ranks}.h5"))
                wall, cpu = taken[-1]
                print(f"{ranks} rank{'s' * (ranks > 1)}: {wall:.2f} s, {cpu:.2f} s of CPU time", flush=True)
    for i, what in enumerate(("wall", "CPU")):
        ratios = [two[i] / one[i] for one, two in zip(found[1], found[2], strict=True)]
        print(f"{what} ratio: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
