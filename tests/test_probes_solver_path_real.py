"""A path of penalties on features of real images: every objective agrees with an independent float64 solution."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reference import linear_optima

from layerwise.datasets import load_dataset
from probes.solver.path import LOSSES, fit_path
from probes.solver.standardiser import Standardiser

PENALTIES = [10.0 ** (e / 2) for e in range(-10, 0)]
PER_CLASS = 100


def random_features(images: np.ndarray) -> np.ndarray:
    """Return 2x2 averages of 32 random 3x3 filters and relu, float32 [n, 128], of uint8 images [n, C, H, W]."""
    weight = torch.randn(32, images.shape[1], 3, 3, generator=torch.Generator().manual_seed(0))
    maps = torch.nn.functional.conv2d(torch.from_numpy(images).float() / 255 - 0.5, weight, padding=1).relu()
    return torch.nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1).numpy()


def fashion_mnist(data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    split = load_dataset("fashion-mnist", holdout=0, data_dir=data_dir, subset=10 * PER_CLASS).splits["train"]
    return split.images, split.label


def cifar10(data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the first test images of each class of CIFAR-10, read from its archives."""
    found: dict[str, list[np.ndarray]] = {}
    archives = sorted((data_dir / "cifar10").glob("*.tar.gz"))
    if not archives:
        pytest.skip(f"{data_dir / 'cifar10'} holds no archives")
    for archive in archives:
        with tarfile.open(archive) as tar:
            for member in tar:
                split, *names = Path(member.name).parts
                if split == "test" and len(names) == 2 and len(found.setdefault(names[0], [])) < PER_CLASS:
                    file = tar.extractfile(member)
                    assert file is not None
                    found[names[0]].append(np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")))
    images = np.concatenate([np.stack(found[name]) for name in sorted(found)]).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images), np.repeat(np.arange(10), PER_CLASS)


@pytest.fixture(scope="module", params=[fashion_mnist, cifar10], ids=["fashion-mnist", "cifar10"])
def features(request: pytest.FixtureRequest, data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    images, labels = request.param(data_dir)
    x = random_features(images)
    return Standardiser(x)(x), labels


@pytest.mark.parametrize("loss", LOSSES)
def test_every_objective_of_a_path_agrees_with_an_independent_solution(features, loss, monkeypatch) -> None:
    monkeypatch.setattr("probes.solver.newton._SMALL", 0)  # float32 products, as with many samples
    x, y = features
    optima = linear_optima(x.astype(np.float64), y, PENALTIES, loss, 10)
    for fit, optimum in zip(fit_path(x, y, PENALTIES, n_classes=10, loss=loss), optima, strict=True):
        assert fit.converged
        assert fit.certificate <= 1e-4 * fit.objective
        assert abs(fit.objective - optimum) <= fit.certificate


@pytest.mark.parametrize("loss", LOSSES)
def test_a_tiny_penalty_on_real_images_is_solved(features, loss, monkeypatch) -> None:
    monkeypatch.setattr("probes.solver.newton._SMALL", 0)
    x, y = features
    larger, fit = fit_path(x, y, [1e-5, 1e-7], n_classes=10, loss=loss)
    assert fit.converged
    assert fit.certificate <= 1e-4 * fit.objective
    there = larger.objective - (larger.lam - fit.lam) / 2 * (larger.coef**2).sum()  # the larger one's weights
    assert fit.objective < there
    assert np.linalg.norm(fit.coef) > np.linalg.norm(larger.coef)
