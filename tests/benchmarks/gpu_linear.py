"""The linear probe of a whole run on a GPU: path, choice and refit at six depths, and the same objectives on the CPU.

    PYTHONPATH=. python3 tests/benchmarks/gpu_linear.py [--toy] [--device cuda]

Needs no data: features are normal with a decaying spectrum, pushed through relu; labels are drawn from the softmax
of a random linear teacher, so the classes overlap. --toy is small enough for a CPU.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from probes.solver.path import fit_path
from probes.solver.rows import Features, View
from probes.solver.standardiser import Standardiser

PENALTIES = [10.0 ** (e / 2) for e in range(-10, 0)]
CLASSES = 10
WIDTHS = (12, 1024, 1024, 1024, 1024, 1024)  # depth 0 is the pooled input, 2 x 2 x 3


def depth_data(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features float32 [n, d] and labels [n]."""
    generator = torch.Generator().manual_seed(seed)
    spectrum = torch.arange(1, d + 1).float().pow(-0.7)
    mix = torch.linalg.qr(torch.randn(d, d, generator=generator))[0]
    x = (torch.randn(n, d, generator=generator) * spectrum) @ mix
    x = torch.relu(x / x.std() + torch.randn(d, generator=generator) / 2)
    z = (x - x.mean(0)) @ torch.randn(d, CLASSES, generator=generator)
    z = 1.5 * z / z.std()
    y = torch.multinomial(z.softmax(1), 1, generator=generator)[:, 0]
    return x.numpy(), y.numpy()


def probe(x: dict[str, np.ndarray], y: dict[str, np.ndarray], device: str) -> dict[str, float]:
    """Fit the path on train, choose on validation, refit on both, score the test split once; return what is printed."""
    start = time.perf_counter()
    standardise = Standardiser(x["train"], device)
    fits = fit_path(x["train"], y["train"], PENALTIES, n_classes=CLASSES, standardiser=standardise, device=device)
    path = time.perf_counter()
    held = Features(x["validation"], standardise).whole(torch.device(device))
    best = max(fits, key=lambda fit: (fit.decision_function(held).argmax(1) == y["validation"]).mean())
    chosen = time.perf_counter()
    both = View(x["train"], x["validation"])
    standardise = Standardiser(both, device)
    labels = np.concatenate([y["train"], y["validation"]])
    (refit,) = fit_path(
        both, labels, [best.lam], n_classes=CLASSES, standardiser=standardise, device=device, start=best
    )  # fmt: skip
    accuracy = (
        refit.decision_function(Features(x["test"], standardise).whole(torch.device(device))).argmax(1) == y["test"]
    )
    end = time.perf_counter()
    return {
        "seconds": end - start, "path": path - start, "choice": chosen - path, "refit": end - chosen,
        "lambda": best.lam, "steps": max(fit.iterations for fit in fits), "refit steps": refit.iterations,
        "largest certificate / tolerance": max(f.certificate / (1e-4 * f.objective) for f in [*fits, refit]),
        "test accuracy": float(accuracy.mean()),
    }  # fmt: skip


def compare(x: np.ndarray, y: np.ndarray, device: str) -> None:
    """Print objectives of a subset on the device and on the CPU, which may differ by their certificates."""
    standardise = Standardiser(x)
    there, here = (
        fit_path(x, y, PENALTIES[::3], n_classes=CLASSES, standardiser=standardise, device=d) for d in (device, "cpu")
    )
    for a, b in zip(there, here, strict=True):
        agree = abs(a.objective - b.objective) <= a.certificate + b.certificate
        print(
            f"lambda {a.lam:.1e}: {device} {a.objective:.8f} (certificate {a.certificate:.1e}), "
            f"cpu {b.objective:.8f} (certificate {b.certificate:.1e}): {'agree' if agree else 'DIFFER'}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true", help="4,000 samples of 64 features")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    sizes = (3600, 400, 800) if asked.toy else (45_000, 5_000, 10_000)
    widths = [min(d, 64) for d in WIDTHS] if asked.toy else list(WIDTHS)
    name = torch.cuda.get_device_name() if asked.device == "cuda" else "CPU"
    print(f"torch {torch.__version__} on {name}: {len(PENALTIES)} penalties, {sizes} samples, {CLASSES} classes")
    data = []
    for depth, d in enumerate(widths):
        x, y = depth_data(sum(sizes), d, depth)
        bounds = np.cumsum(sizes)[:-1]
        data.append(tuple(dict(zip(("train", "validation", "test"), np.split(a, bounds), strict=True)) for a in (x, y)))
    start = time.perf_counter()
    warm = depth_data(2000, 64, 99)
    fit_path(*warm, PENALTIES[:2], n_classes=CLASSES, device=asked.device)
    print(f"start-up of the device: {time.perf_counter() - start:.2f} s, not counted below")
    total = 0.0
    for depth, (x, y) in enumerate(data):
        found = probe(x, y, asked.device)
        total += found["seconds"]
        print(f"depth {depth}, {widths[depth]} features: " + ", ".join(f"{k} {v:.3g}" for k, v in found.items()))
    print(f"all {len(widths)} depths: {total:.2f} s")
    if asked.device == "cuda":
        print(
            f"peak device memory: {torch.cuda.max_memory_allocated() / sizes[0] / 4 / max(widths):.2f} x the features"
        )
    x, y = data[1]
    compare(x["train"][:4000], y["train"][:4000], asked.device)


if __name__ == "__main__":
    main()
