"""Standardisation of maps: each channel is brought to mean 0 and deviation 1 over the images fitted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from probes.cnn.reading import Labelled

TOGETHER = 32  # images whose maps are summed in float64 at once: few, since these are eight bytes a value


class ChannelStandardiser(nn.Module):
    """A frozen layer in front of a probe: (x - mean) / deviation of each channel, as the linear probe's features are.

    The zeros with which a convolution then pads its input are the mean of the channel. A constant channel has deviation
    0; it is only centred, and so becomes 0.

    Args:
        data: the maps, read once, in order and in float64 sums.
        n: the images that count: the first ones.
        dtype: number type of the maps returned, that of the products computed with them.
    """

    mean: Tensor  # [C, 1, 1] float32, as scale
    scale: Tensor

    def __init__(self, data: Labelled, n: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        mean, deviation = channel_statistics(data, n)
        for name, values in (("mean", mean), ("scale", torch.where(deviation > 0, deviation, 1.0))):
            self.register_buffer(name, values.float()[:, None, None])
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return ((x.float() - self.mean) / self.scale).to(self.dtype)


def channel_statistics(data: Labelled, n: int) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each channel over all pixels of the first n images, float64 [C], in one pass."""
    origin = total = square = None
    pixels = 0
    for batch in data.in_order(range(n)):
        for part in batch.split(TOGETHER):
            x = part.double()
            if origin is None:
                # From the first image's mean, so that the squares of a large mean do not hide a small deviation.
                origin = x[0].mean((1, 2))
                total, square = torch.zeros_like(origin), torch.zeros_like(origin)
            moved = x - origin[:, None, None]
            total += moved.sum((0, 2, 3))
            square += moved.square_().sum((0, 2, 3))
            pixels += x[:, 0].numel()
    assert origin is not None and total is not None and square is not None
    mean = total / pixels
    return origin + mean, (square / pixels - mean.square()).clamp(min=0).sqrt()
