"""Blocks of two convolutions above a fixed whitening layer: the network of airbench (Jordan 2024), cut into blocks.

    x_1 = gelu( W x_0 )                                            W whitens 2x2 patches, and is never trained
    x_j = gelu( BN conv gelu( BN maxpool conv x_{j-1} ) )          the paired block, j >= 2
    z_j = L max h( x_j )                                           its auxiliary classifier

h: for k = 2 nothing, for k = 3 gelu( BN maxpool conv ), for k = 4 the paired block once more; nothing on small maps.

W has the eigenvectors of the patches' covariance, each divided by the root of its eigenvalue, and their negatives. It
follows from images alone, no labels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 2  # pixels of a side
WHITENED = 5_000  # images of the train fold whose patches are taken: 4.8 million of CIFAR-10
EPSILON = 5e-4  # added to the eigenvalues, as in airbench; of standardised CIFAR-10 the smallest is about 2e-3
SCALE = 1 / 9  # of the logits, as in airbench
POOLED = 6  # the least side of maps that an auxiliary still pools to half


class WhiteningStem(nn.Module):
    """Maps x_0 [n, C, H, W] to [n, 8 C, H - 1, W - 1] by fixed filters, zeros until `whiten` sets them."""

    weight: Tensor

    def __init__(self, channels: int):
        super().__init__()
        inside = channels * PATCH**2
        self.register_buffer("weight", torch.zeros(2 * inside, channels, PATCH, PATCH))

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(F.conv2d(x, self.weight))

    @torch.no_grad()
    def whiten(self, x: Tensor) -> None:
        """Set the filters from images x_0 [n, C, H, W]. The same images give the same filters."""
        channels, size = x.shape[1], self.weight.shape[1:]
        patches = F.unfold(x.cpu(), PATCH).transpose(1, 2).reshape(-1, channels * PATCH**2).double()
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        filters = (vectors * largest.sign() / torch.sqrt(values + EPSILON)).T.reshape(-1, *size)
        self.weight.copy_(torch.cat([filters, -filters]))


class PooledConvolution(nn.Module):
    """A 3x3 convolution, a 2x2 max-pool, BatchNorm and gelu: [n, in_channels, H, W] to [n, width, H // 2, W // 2]."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.first = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.first_norm(F.max_pool2d(self.first(x), 2)))


class PairedBlock(PooledConvolution):
    """A pooled convolution and another 3x3 one: [n, in_channels, H, W] to [n, width, H // 2, W // 2]."""

    def __init__(self, in_channels: int, width: int):
        super().__init__(in_channels, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.second_norm(self.second(super().forward(x))))


class PairedClassifier(nn.Module):
    """Maps [n, in_channels, H, W] to logits [n, n_classes]: hidden layers, the largest value of each map, and a linear
    layer without bias.

    hidden: convolutions of its own, each `width` wide: none, a pooled one, or those of a paired block.
    """

    def __init__(self, in_channels: int, n_classes: int, hidden: int, width: int):
        super().__init__()
        kind = (None, PooledConvolution, PairedBlock)[hidden]
        self.block = kind and kind(in_channels, width)
        self.linear = nn.Linear(width if hidden else in_channels, n_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.block is None else self.block(x)
        logits: Tensor = self.linear(F.adaptive_max_pool2d(x, 1).flatten(1)) * SCALE
        return logits


def paired_shapes(image: tuple[int, int, int], widths: list[int]) -> list[tuple[int, int, int]]:
    """Return the shapes of x_0, x_1 (the stem's) and of a paired block for each width."""
    channels, height, width = image
    found = [image, (2 * channels * PATCH**2, height - 1, width - 1)]
    for own in widths:
        _, height, width = found[-1]
        found.append((own, height // 2, width // 2))
    return found
