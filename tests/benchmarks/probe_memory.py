"""Peak anonymous memory of streamed linear and knn probes, at n images and at four times as many.

    PYTHONPATH=. python3 tests/benchmarks/probe_memory.py [--images 3000] [--features 512] [--classes 20]

Features are normal, pushed about by class, in a run file that layerwise-extract makes of arrays. Each probe is a
process of its own with a --max-memory that holds an eighth of the smaller set's features; its anonymous memory is read
every 10 ms. Bar: a ratio of at most 1.10.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PROBES = ("linear", "knn", "ncm")


def made(folder: Path, n: int, d: int, n_classes: int) -> Path:
    """Return a run file of n train samples and n / 5 test samples."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(n_classes, d)).astype(np.float32) / 4
    label = np.arange(n + n // 5) % n_classes
    features = rng.normal(size=(len(label), d)).astype(np.float32) + centres[label]
    split = np.where(np.arange(len(label)) < n, "train", "test")
    np.savez(folder / f"{n}.npz", features=features, labels=label, splits=split)
    run = folder / f"{n}.h5"
    words = ["--from", str(folder / f"{n}.npz"), "--trained-on", "other-data", "--out", str(run), "--device", "cpu"]
    code = "from layerwise.commands.extract import extract_command as c; c()"
    subprocess.run([sys.executable, "-c", code, *words], check=True, stdout=subprocess.DEVNULL)
    return run


def peak(run: Path, probe: str, max_memory: int) -> int:
    """Return the most bytes of anonymous memory that a probe-depth of one probe held."""
    words = [
        str(run),
        "--probe",
        probe,
        "--max-memory",
        f"{max_memory / 1e6:.3f}MB",
        "--device",
        "cpu",
        "--quiet",
        "--force",
    ]
    code = "from probes.cli import probe_command as c; c()"
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        try:
            found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
        except OSError:
            break
        most = max(most, 1024 * int(found[1]) if found else 0)
        time.sleep(0.01)
    assert process.wait() == 0
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--probes", default=",".join(PROBES))
    asked = parser.parse_args()
    limit = asked.images * asked.features // 2
    with tempfile.TemporaryDirectory() as folder:
        runs = [made(Path(folder), n, asked.features, asked.classes) for n in (asked.images, 4 * asked.images)]
        for probe in asked.probes.split(","):
            once, four = (peak(run, probe, limit) for run in runs)
            print(f"{probe}: {once / 1e6:.0f} and {four / 1e6:.0f} MB, ratio {four / once:.2f}", flush=True)


if __name__ == "__main__":
    main()
