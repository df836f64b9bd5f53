"""Small networks as others would write them, for the tests of what extracts from them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from layerwise.datasets import Dataset, Split
from layerwise.datasets.split import channel_statistics


class SmallNet(nn.Module):
    """A convolutional network whose relu is called twice, and writes into what the layer before it returned."""

    def __init__(self, channels: int = 1, num_classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1, stride=2)
        self.fc = nn.Linear(6, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv1(x)))
        x = self.relu(self.conv2(x))
        return self.fc(x.mean((2, 3)))


class Pair(nn.Module):
    """Returns two tensors."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, 2 * x


class Awkward(nn.Module):
    """Has parts whose outputs are no depth: two tensors, and a first axis that is not the images'."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.pair = Pair()
        self.merge = nn.Flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        a, _ = self.pair(x)
        self.merge(a)
        return a.mean((2, 3))


class Transformer(nn.Module):
    """A vision transformer in small: patches of 2x2, a class token, blocks in an nn.ModuleList."""

    def __init__(self, size: int = 8, width: int = 8, depth: int = 2, num_classes: int = 10):
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 1 + (size // 2) ** 2, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 16, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])


def made_dataset(n: int = 60, channels: int = 1, side: int = 8, name: str = "made") -> Dataset:
    """Return random images of 3 classes: n for training, half as many for validation and for test."""
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = rng.integers(0, 256, (count, channels, side, side), dtype=np.uint8)
        return Split(images, np.arange(count) % 3, np.arange(count))

    splits = {"train": split(n), "validation": split(n // 2), "test": split(n // 2)}
    return Dataset(name, ("a", "b", "c"), splits, *channel_statistics(splits["train"].images))


def published(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "resnet18") -> str:
    """Let torchvision's own download function find weights of a network in a local file; return their URL."""
    import torchvision.models

    with torch.random.fork_rng():
        torch.manual_seed(5)
        state = torchvision.models.get_model(name, weights=None).state_dict()
    torch.save(state, folder / "served.pth")
    digest = hashlib.sha256((folder / "served.pth").read_bytes()).hexdigest()
    file = (folder / "served.pth").rename(folder / f"{name}-{digest[:8]}.pth")
    monkeypatch.setenv("TORCH_HOME", str(folder / "cache"))
    weights = torchvision.models.get_model_weights(name).DEFAULT
    monkeypatch.setattr(weights.value, "url", file.as_uri())
    return file.as_uri()
