"""An extraction against the bare forward pass over the same images: what hooks, averages, digests and the disk add."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from foreign_networks import made_dataset

from layerwise.api import extract_network
from layerwise.extraction.models.spec import build
from layerwise.model.network import freeze

N, BATCH = 500, 64


@pytest.fixture(scope="module")
def network() -> nn.Module:
    model = build("torchvision:resnet18", {}, 0).module
    freeze(model)
    return model


@torch.no_grad()
def forward(network: nn.Module) -> None:
    for split in made_dataset(N, channels=3, side=32).splits.values():
        for images in torch.from_numpy(split.images).split(BATCH):
            network(images.float())


def extract(network: nn.Module, out: Path, store: str) -> None:
    data = made_dataset(N, channels=3, side=32)
    words = {"out": out, "trained_on": "other-data", "store": store, "device": "cpu", "force": True}
    extract_network(network, data, batch_size=BATCH, **words).close()


@pytest.mark.benchmark(group="ResNet-18 over 1,000 images of 32x32")
def test_forward_alone(benchmark: BenchmarkFixture, network: nn.Module) -> None:
    benchmark.pedantic(forward, (network,), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="ResNet-18 over 1,000 images of 32x32")
@pytest.mark.parametrize("store", ["pooled", "maps"])
def test_extract(benchmark: BenchmarkFixture, network: nn.Module, tmp_path: Path, store: str) -> None:
    benchmark.pedantic(extract, (network, tmp_path / "run.h5", store), rounds=3, warmup_rounds=1)
