"""Owns augmentation: zero-padded random crops and left-right flips of whole uint8 batches on their device.

Equal in distribution to torchvision's RandomCrop(size, padding=p) followed by RandomHorizontalFlip, without a
loop over images: one gather moves every pixel of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Draws:
    """The random choices for a batch of n images: crop offsets `top`, `left` [n] in [0, 2 p], `flip` [n] bool."""

    top: Tensor
    left: Tensor
    flip: Tensor


def draw(n: int, padding: int, flip: bool, generator: torch.Generator) -> Draws:
    """Draw offsets and flips for n images. The generator lives on the CPU, so every device sees equal draws."""
    offsets = torch.randint(0, 2 * padding + 1, (2, n), generator=generator)
    flips = torch.rand(n, generator=generator) < 0.5 if flip else torch.zeros(n, dtype=torch.bool)
    return Draws(offsets[0], offsets[1], flips)


def augment(images: Tensor, draws: Draws, padding: int) -> Tensor:
    """Crop each image at its offset from its zero-padded self, then mirror it where its flip says so.

    Args:
        images: [n, C, H, W], any dtype.
        draws: one draw for each image.
        padding: pixels of zeros on each side.

    Returns:
        [n, C, H, W] of the same dtype on the same device.
    """
    n, c, h, w = images.shape
    device = images.device
    rows = draws.top.to(device)[:, None] + torch.arange(h, device=device)  # [n, H]
    ascending = torch.arange(w, device=device)
    columns = torch.where(draws.flip.to(device)[:, None], w - 1 - ascending, ascending)
    columns = columns + draws.left.to(device)[:, None]  # [n, W]
    padded = F.pad(images, (padding, padding, padding, padding))
    sample = torch.arange(n, device=device)[:, None, None, None]
    channel = torch.arange(c, device=device)[None, :, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
