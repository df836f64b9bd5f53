"""Seconds and memory of analyze-depth's measures on one depth of 50,000 images and 1,024 features, and one pair.

taskset -c 1 python tests/benchmarks/geometry.py
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from analysis.geometry.depth import geometry
from analysis.geometry.similarity import similarities


def features(n: int, d: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return float16 features [n, d] behind a relu, and labels of 10 classes."""
    y = rng.integers(0, 10, n)
    centres = rng.normal(size=(10, d)).astype(np.float32)
    x = np.empty((n, d), np.float16)
    for rows in np.array_split(np.arange(n), max(1, n // 5000)):
        x[rows] = np.maximum(rng.standard_normal((len(rows), d), dtype=np.float32) + centres[y[rows]], 0)
    return x, y


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--d", type=int, default=1_024)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    (x, y), (z, _) = features(asked.n, asked.d, rng), features(asked.n, asked.d, rng)
    before = peak_mb()
    found = []
    for one in (x, z):
        wall, cpu = time.perf_counter(), time.process_time()
        found.append(geometry(one, y).moments)
        print(f"all measures of a depth: {time.perf_counter() - wall:.1f} s, {time.process_time() - cpu:.1f} s of CPU")
    wall, cpu = time.perf_counter(), time.process_time()
    list(similarities({0: x, 1: z}, dict(enumerate(found)), [(0, 1)]))
    print(f"a pair of depths: {time.perf_counter() - wall:.1f} s, {time.process_time() - cpu:.1f} s of CPU")
    print(f"memory above the features: {peak_mb() - before:.0f} MB")


if __name__ == "__main__":
    main()
