"""Random parts of images, drawn as the crops of Inception's training (Szegedy et al. 2015): share of area, then shape.

As RandomResizedCrop of torchvision: ten tries of a share and a ratio, uniform in the area and in the logarithm of the
ratio; where none fits into the image, the largest part of its middle whose ratio is allowed. Here the parts of all
images of an epoch are drawn at once, by the process that trains, so that no number of other processes changes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

TRIES = 10


def draw_parts(sizes: Tensor, scale: Sequence[float], ratio: Sequence[float], generator: torch.Generator) -> Tensor:
    """Draw a part of each of n images, int64 [4, n]: top, left, height and width, in pixels.

    Args:
        sizes: int64 [2, n], height and width of each image.
        scale: least and largest share of the image's area.
        ratio: least and largest width over height.
        generator: on the CPU. What it draws depends on the sizes, since only misfits are drawn again.
    """
    parts = _middle(sizes, ratio)
    left = torch.arange(sizes.shape[1])
    for _ in range(TRIES):
        if not len(left):
            break
        whole = sizes[:, left]
        share, shape = torch.rand(2, len(left), generator=generator, dtype=torch.float64)
        area = whole.prod(0) * (scale[0] + (scale[1] - scale[0]) * share)
        low, high = map(math.log, ratio)
        aspect = torch.exp(low + (high - low) * shape)
        part = torch.stack([(area / aspect).sqrt(), (area * aspect).sqrt()]).round().long()
        fits = ((part > 0) & (part <= whole)).all(0)
        parts[2:, left[fits]] = part[:, fits]
        parts[:2, left[fits]] = -1  # of those that fit, drawn below
        left = left[~fits]
    place = torch.rand(2, sizes.shape[1], generator=generator, dtype=torch.float64)
    drawn = (place * (sizes - parts[2:] + 1)).long()
    parts[:2] = torch.where(parts[:2] < 0, drawn, parts[:2])
    return parts


def _middle(sizes: Tensor, ratio: Sequence[float]) -> Tensor:
    """Return the largest part of the middle of each image whose ratio is allowed, int64 [4, n]."""
    height, width = sizes
    allowed = torch.stack([(width / ratio[0]).round().long(), (height * ratio[1]).round().long()])
    found = torch.minimum(sizes, allowed).clamp(min=1)
    return torch.cat([(sizes - found) // 2, found])
