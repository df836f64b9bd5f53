"""The parts of a network: P (invertible downsampling), the block, A (averaging), the auxiliary classifier.

    x_{j+1} = relu( W_j P_j x_j )                 the block (Belilovsky et al. 2019, section 3)
    z_{j+1} = L A (relu conv)^{k-1} x_{j+1}       its auxiliary classifier

Order inside an auxiliary as in the authors' code: convolutions (each followed by BatchNorm where it is used,
then relu), A, BatchNorm, flatten, linear. The classifier with k - 1 = p hidden convolutions on a frozen depth
is the CNN-p probe.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


def downsample(x: Tensor) -> Tensor:
    """Apply P: decimate by 2 in both directions and stack the four copies on channels.

    Args:
        x: [n, C, H, W] with H and W even.

    Returns:
        [n, 4 C, H / 2, W / 2]; output channel 4 c + 2 a + b holds x[:, c, a::2, b::2]. No value is lost.
    """
    return F.pixel_unshuffle(x, 2)


def average(x: Tensor, side: int) -> Tensor:
    """Apply A: average maps [n, C, H, W] over a grid of side x side regions, giving [n, C, side, side].

    The regions are equal quarters where H and W are even, and overlap by a row where they are not (7x7).
    """
    return F.adaptive_avg_pool2d(x, side)


class Block(nn.Module):
    """One block: P or a 2x2 max-pool where asked for, a 3x3 convolution, BatchNorm where asked for, relu
    but in untrained linear networks.

    Maps [n, in_channels, H, W] to [n, width, H, W], or to half of H and W with `downsampling` or `pooling`.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        downsampling: bool,
        batch_norm: bool,
        bias: bool,
        pooling: bool = False,
        relu: bool = True,
    ):
        super().__init__()
        self.downsampling, self.pooling, self.relu = downsampling, pooling, relu
        channels = 4 * in_channels if downsampling else in_channels
        self.conv = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(width) if batch_norm else None

    def forward(self, x: Tensor) -> Tensor:
        if self.downsampling:
            x = downsample(x)
        if self.pooling:
            x = F.max_pool2d(x, 2)
        x = self.conv(x)
        x = x if self.norm is None else self.norm(x)
        return F.relu(x) if self.relu else x


class AuxiliaryClassifier(nn.Module):
    """An auxiliary classifier with k - 1 hidden convolutions; equally the CNN-p probe with p = k - 1.

    Maps [n, in_channels, H, W] to logits [n, n_classes]. At k = 1 it is linear in A x and `width` is unused.

    halving: whether x is averaged to half its resolution first, which makes the classifier four times cheaper.
    padded: whether the convolutions keep the maps' size; those of the authors' VGG-11 do not.
    """

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        *,
        k: int,
        width: int,
        batch_norm: bool,
        side: int = 2,
        halving: bool = False,
        padded: bool = True,
    ):
        super().__init__()
        self.side, self.halving = side, halving
        widths = [in_channels] + [width] * (k - 1)
        padding = 1 if padded else 0
        convs = [nn.Conv2d(a, b, kernel_size=3, padding=padding, bias=False) for a, b in pairwise(widths)]
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in convs) if batch_norm else None
        self.pooled_norm = nn.BatchNorm2d(widths[-1]) if batch_norm else None
        self.linear = nn.Linear(widths[-1] * side * side, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.halving:
            x = F.adaptive_avg_pool2d(x, (x.shape[-2] // 2, x.shape[-1] // 2))
        for i, conv in enumerate(self.convs):
            x = conv(x)
            x = F.relu(x if self.norms is None else self.norms[i](x))
        x = average(x, self.side)
        if self.pooled_norm is not None:
            x = self.pooled_norm(x)
        return self.linear(x.flatten(1))


class VggHead(nn.Module):
    """The last auxiliary classifier of VGG-11: the classifier of that network (Simonyan, Zisserman 2015), no dropout.

    Maps [n, C, H, W] to logits [n, n_classes]: a 2x2 max-pool, A to 7x7 (or to the maps' own size where that is
    smaller), two hidden layers of 4096.
    """

    HIDDEN, SIDE = 4096, 7

    def __init__(self, shape: tuple[int, int, int], n_classes: int):
        super().__init__()
        channels, height, width = shape
        self.grid = (min(self.SIDE, height // 2), min(self.SIDE, width // 2))
        self.layers = nn.Sequential(
            nn.Linear(channels * self.grid[0] * self.grid[1], self.HIDDEN),
            nn.ReLU(),
            nn.Linear(self.HIDDEN, self.HIDDEN),
            nn.ReLU(),
            nn.Linear(self.HIDDEN, n_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(F.adaptive_avg_pool2d(F.max_pool2d(x, 2), self.grid).flatten(1))
        return logits
