"""Standard errors of analyze-depth's measures against how much repeated draws of images differ: ratios of 1 are right.

taskset -c 1 python tests/benchmarks/geometry_intervals.py
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from analysis.geometry.depth import geometry
from analysis.geometry.influence import Measured
from analysis.geometry.neighbors import intrinsic_dimensions
from analysis.geometry.similarity import similarity

REPEATS = 150
Rng = np.random.Generator


def network(rng: Rng, n: int, fixed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features behind a relu, those of a layer above, and labels of 5 classes, equally many or drawn."""
    y = np.arange(n) % 5 if fixed else rng.integers(0, 5, n)
    of_network = np.random.default_rng(5)
    first, centres, second = (of_network.normal(size=size) for size in ((16, 16), (5, 16), (16, 12)))
    x = np.maximum(rng.normal(size=(n, 16)) @ first + 6 * centres[y], 0)
    return x, np.maximum(x @ second + 6 * rng.normal(size=(n, 12)), 0), y


def everything(rng: Rng, n: int, fixed: bool) -> dict[str, Measured]:
    x, above, y = network(rng, n, fixed)
    return dict(geometry(x, y).measures) | similarity(x, above)


def sheet(rng: Rng, n: int) -> np.ndarray:
    return np.tanh(rng.uniform(size=(n, 3)) @ np.random.default_rng(0).normal(size=(3, 50)))


def show(words: str, draw: Callable[[Rng], dict[str, Measured]]) -> None:
    """Print the mean standard error of each measure, divided by the standard deviation of its values."""
    rng = np.random.default_rng(1)
    found = [draw(rng) for _ in range(REPEATS)]
    ratios = {
        name: np.mean([one[name].error for one in found]) / np.std([one[name].value for one in found], ddof=1)
        for name in found[0]
        if name != "dead"
    }
    print(words, "; ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()), sep=": ", flush=True)


def main() -> None:
    for n in (200, 1000):
        for fixed in (False, True):
            classes = "as many of each class" if fixed else "classes drawn"
            show(f"{n} images, {classes}", lambda rng, n=n, fixed=fixed: everything(rng, n, fixed))
        for d in (5, 20):
            show(
                f"{n} images, normal in {d} dimensions",
                lambda rng, n=n, d=d: intrinsic_dimensions(rng.normal(size=(n, d))),
            )
        show(f"{n} images, a sheet of 3 dimensions in 50", lambda rng, n=n: intrinsic_dimensions(sheet(rng, n)))


if __name__ == "__main__":
    main()
