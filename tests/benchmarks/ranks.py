"""Two ranks of one thread beside one process of two threads, on the same training: seconds of its epochs, and ratio.

    PYTHONPATH=. python3 -m tests.benchmarks.ranks --data-dir DIR --times 3

DIR holds CIFAR-10 as train/CLASS and test/CLASS. One block of cifar10-small, 5,000 images. The sides take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from layerwise.runfile import RunFile

TRAIN = "import sys; sys.argv[0] = 'layerwise-train'; from layerwise.commands.train import train_command as c; c()"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python", sys.executable]


def seconds(data_dir: Path, ranks: int, out: Path) -> float:
    """Return what the training's epochs took on so many ranks, which together have two threads."""
    started = TORCHRUN if ranks == 2 else []
    words = ["cifar10-small", "--dataset", "imagefolder", "--data-dir", str(data_dir), "--set", "data.label=cifar10"]
    words += [
        "--depth",
        "1",
        "--set",
        "network.downsample=",
        "--epochs",
        "5",
        "--subset",
        "5000",
        "--out",
        str(out),
        "--force",
        "--quiet",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": str(2 // ranks)}
    subprocess.run([sys.executable, *started, "-c", TRAIN, *words], env=environment, check=True)
    with RunFile(out) as run:
        found = run.epoch_seconds()
        assert found is not None
        return float(found[1:].sum())  # the first epoch warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    found: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.times):
            for ranks, taken in found.items():
                taken.append(seconds(given.data_dir, ranks, Path(folder) / f"{ranks}.h5"))
                print(f"{ranks} rank{'s' * (ranks > 1)}: {taken[-1]:.2f} s", flush=True)
    ratios = [two / one for one, two in zip(found[1], found[2], strict=True)]
    print(f"ratio: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
