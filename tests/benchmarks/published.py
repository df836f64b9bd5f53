"""The published training loop, written from the paper and its description, to be timed beside ours.

Greedy layerwise training as it is usually written: float32 with TF32 off, images through torchvision's PIL transforms
in a DataLoader with 4 workers, the frozen blocks forwarded on every batch, the loss read by the host in every step.
Nothing here comes from the packages that are measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

WORKERS = 4
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@dataclass(frozen=True)
class Sizes:
    """The network and its training: J, M, M~, k, the blocks before which P halves, epochs and batch."""

    depth: int
    width: int
    aux_width: int
    k: int
    downsample: tuple[int, ...]
    epochs: int
    batch: int = 128
    crop_padding: int = 4
    augmented: bool = True


class Images(Dataset):
    """PIL images with labels, transformed one by one."""

    def __init__(self, images: np.ndarray, label: np.ndarray, transform: Callable[[Image.Image], Tensor]):
        self.images = [Image.fromarray(image) for image in images.transpose(0, 2, 3, 1)]
        self.label = label.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(self.images[i]), self.label[i]


class Convolution(nn.Module):
    """P where asked for, a 3x3 convolution, BatchNorm where k > 1, relu."""

    def __init__(self, channels: int, width: int, halves: bool, batch_norm: bool, bias: bool = False):
        super().__init__()
        self.halves = nn.PixelUnshuffle(2) if halves else nn.Identity()
        self.conv = nn.Conv2d(channels * (4 if halves else 1), width, 3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(width) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(self.halves(x))))


class Greedy(nn.Module):
    """All blocks and all auxiliary classifiers; `forward` goes through the first j blocks and auxiliary j."""

    def __init__(self, sizes: Sizes, n_classes: int = 10):
        super().__init__()
        self.blocks, self.heads = nn.ModuleList(), nn.ModuleList()
        channels, width, aux, batch_norm = 3, sizes.width, sizes.aux_width, sizes.k > 1
        for j in range(1, sizes.depth + 1):
            halves = j in sizes.downsample
            if halves and j > 1:
                width, aux = 2 * width, 2 * aux
            bias = j == 1 and not batch_norm
            self.blocks.append(Convolution(channels, width, halves, batch_norm, bias))
            channels = hidden = width
            layers: list[nn.Module] = []
            for _ in range(sizes.k - 1):
                layers.append(Convolution(hidden, aux, False, batch_norm))
                hidden = aux
            layers += [nn.AdaptiveAvgPool2d(2)] + ([nn.BatchNorm2d(hidden)] if batch_norm else [])
            self.heads.append(nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * hidden, n_classes)))

    def forward(self, x: Tensor, j: int) -> Tensor:
        for block in self.blocks[: j - 1]:
            x = block(x).detach()
        return self.heads[j - 1](self.blocks[j - 1](x))


def loaders(
    images: np.ndarray, label: np.ndarray, held: tuple[np.ndarray, np.ndarray], sizes: Sizes
) -> tuple[DataLoader, DataLoader]:
    """Return the loaders of the training images (uint8 [n, C, H, W]) and of those held out."""
    still = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    moving = [transforms.RandomCrop(images.shape[-1], padding=sizes.crop_padding), transforms.RandomHorizontalFlip()]
    train = Images(images, label, transforms.Compose([*(moving if sizes.augmented else []), *still]))
    test = Images(*held, transforms.Compose(still))
    return (
        DataLoader(train, batch_size=sizes.batch, shuffle=True, num_workers=WORKERS),
        DataLoader(test, batch_size=100, num_workers=WORKERS),
    )


def begin_block(network: Greedy, j: int, learning_rate: float) -> torch.optim.Optimizer:
    """Freeze the blocks below j, make block j and its classifier learn, and return their optimizer."""
    network.requires_grad_(False)
    network.eval()
    learning = nn.ModuleList([network.blocks[j - 1], network.heads[j - 1]])
    learning.requires_grad_(True)
    learning.train()
    return torch.optim.SGD(learning.parameters(), lr=learning_rate, momentum=0.9, weight_decay=5e-4)


def train_epoch(
    network: Greedy, j: int, optimizer: torch.optim.Optimizer, loader: DataLoader, device: torch.device,
    steps: int | None = None,
) -> list[float]:  # fmt: skip
    """Train block j for an epoch, or for its first `steps`; return the clock after each step."""
    criterion, clock, total = nn.CrossEntropyLoss(), [time.perf_counter()], 0.0
    for x, y in islice(loader, steps):
        x, y = x.to(device), y.to(device)
        optimizer.zero_grad()
        outputs = network(x, j)
        loss = criterion(outputs, y)
        loss.backward()
        optimizer.step()
        total += loss.item()
        outputs.argmax(1).eq(y).sum().item()
        clock.append(time.perf_counter())
    return clock


@torch.no_grad()
def test(network: Greedy, j: int, loader: DataLoader, device: torch.device) -> float:
    """Return the accuracy of classifier j."""
    network.eval()
    correct = [network(x.to(device), j).argmax(1).eq(y.to(device)).sum().item() for x, y in loader]
    return sum(correct) / len(loader.dataset)  # type: ignore[arg-type]


def exact() -> None:
    """Compute in float32 without TF32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def train(
    images: np.ndarray, label: np.ndarray, held: tuple[np.ndarray, np.ndarray], sizes: Sizes, device: torch.device
) -> tuple[list[float], float]:
    """Train every block and return the seconds of each, and the last classifier's accuracy on the held images."""
    exact()
    network = Greedy(sizes).to(device)
    loader, held_loader = loaders(images, label, held, sizes)
    seconds, accuracy = [], 0.0
    for j in range(1, sizes.depth + 1):
        start = time.perf_counter()
        for epoch in range(sizes.epochs):
            if epoch % 15 == 0:
                optimizer = begin_block(network, j, 0.1 * 0.2 ** (epoch // 15))
            nn.ModuleList([network.blocks[j - 1], network.heads[j - 1]]).train()
            train_epoch(network, j, optimizer, loader, device)
            accuracy = test(network, j, held_loader, device)
        seconds.append(time.perf_counter() - start)
    return seconds, accuracy
