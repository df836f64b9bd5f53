"""Products with the Hessian that path, choice and refit of a linear probe take, with 300 classes or with 10.

    PYTHONPATH=. python3 tests/benchmarks/many_classes.py --data-dir CIFAR10 --weights cifar10-resnet20.pt --classes 300

Features are 2x2 averages of 128 random 3x3 filters and relu (d = 512), of the first images of CIFAR-10 as a folder,
train/CLASS/NNNNN.webp. The 300 classes are made of its ten: each is divided into 30 by k-means of what a published
ResNet-20 (He et al. 2015, option A) computes before its last layer. --certified solves every fit of the path to its
certificate, as with few classes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.cluster import KMeans
from torch import Tensor
from torch.nn import functional as F

from probes.linear import problem
from probes.linear.features import DepthData
from probes.linear.problem import LinearProblem
from probes.solver import conjugate_gradients

FINE, FILTERS = 30, 128


def images_of(folder: Path, n: int) -> tuple[Tensor, np.ndarray]:
    """Return the first n images uint8 [n, 3, 32, 32] by their index, and their labels."""
    files = sorted(folder.glob("train/*/*.webp"), key=lambda path: int(path.stem))[:n]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files]).transpose(0, 3, 1, 2)
    return torch.from_numpy(pixels.copy()), np.unique([path.parent.name for path in files], return_inverse=True)[1]


def filtered(images: Tensor) -> np.ndarray:
    """Return 2x2 averages of random filters and relu, float32 [n, 512]."""
    weight = torch.randn(FILTERS, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    parts = []
    for part in images.split(24):
        maps = F.conv2d((part.float() / 255 - 0.45) / 0.25, weight, padding=1).relu_()
        parts.append(F.adaptive_avg_pool2d(maps, 2).flatten(1))
    return torch.cat(parts).numpy()


@torch.no_grad()
def penultimate(images: Tensor, state: dict[str, Tensor]) -> np.ndarray:
    """Return what a published ResNet-20 averages before its last layer, [n, 64]."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance, scale, bias = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, variance, scale, bias)

    def network(x: Tensor) -> Tensor:
        x = F.relu(norm(F.conv2d(x, state["conv1.weight"], padding=1), "bn1"))
        for stage in (1, 2, 3):
            for i in range(3):
                name, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
                y = F.relu(norm(F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1"))
                y = norm(F.conv2d(y, state[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
                x = x[:, :, ::stride, ::stride]
                more = (y.shape[1] - x.shape[1]) // 2
                x = F.relu(y + F.pad(x, (0, 0, 0, 0, more, more)))
        return x.mean((2, 3))

    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    return torch.cat([network((part.float() / 255 - mean) / std) for part in images.split(100)]).numpy()


def divided(label: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return labels in which each class is divided by k-means of what was seen of its images."""
    fine = np.zeros_like(label)
    for c in np.unique(label):
        own = label == c
        fine[own] = FINE * c + KMeans(FINE, n_init=1, random_state=0).fit(seen[own]).labels_
    return fine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--classes", type=int, choices=(10, 10 * FINE), default=10 * FINE)
    parser.add_argument("--images", type=int, default=20_000, help="of the train fold; a tenth as many choose")
    parser.add_argument("--certified", action="store_true")
    asked = parser.parse_args()
    n = asked.images
    images, label = images_of(asked.data_dir, n + n // 5)
    if asked.classes > 10:
        state = torch.load(asked.weights, weights_only=True, map_location="cpu")
        label = divided(label, penultimate(images, state))
    if asked.certified:
        problem.MANY_CLASSES = asked.classes + 1
    images, label = images[: n + n // 10], label[: n + n // 10]  # the others are seen by k-means alone
    count, bend, say = 0, conjugate_gradients.bend, problem._say

    def counted(*words: Any) -> Tensor:
        nonlocal count
        count += 1
        return bend(*words)

    def told(data: DepthData, splits: str, fit: Any, *more: Any, **words: Any) -> None:
        print(f"{splits}, after {count} products: {fit}", flush=True)
        say(data, splits, fit, *more, **words)

    conjugate_gradients.bend, problem._say = counted, told
    x, parts = filtered(images), {"train": slice(0, n), "validation": slice(n, None)}
    y = {split: label[rows] for split, rows in parts.items()}
    data = DepthData({split: x[rows] for split, rows in parts.items()}, y, y, "made", 1, torch.device("cpu"), 8 << 30)
    probe, start = LinearProblem("linear", asked.classes, None), time.process_time()
    best = probe.fit_best(data, y, lambda penalty: None).best
    probe.fit(data, ["train", "validation"], best.lam, best)
    print(f"lambda {best.lam:.1e}: {count} products, {time.process_time() - start:.1f} s of CPU")


if __name__ == "__main__":
    main()
