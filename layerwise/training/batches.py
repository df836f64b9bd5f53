"""Owns the batches of a training: images on the device that trains, their order, their augmentation.

What is random is drawn on the CPU for a whole epoch and sent to the device at once, so every device sees the same
choices, and no step waits for them. A `choice` makes n images: int64 [1, n], their rows; with augmentation [4, n],
with their crop offsets (top, left) and flips (0 or 1) below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from layerwise.config import TrainingConfig
from layerwise.datasets import Split

EVALUATION_BATCH = 512
Batches = Iterable[tuple[Tensor, ...]]


class DeviceSplit:
    """A split's uint8 images and labels on the device that trains.

    Images that would take more than half of what the device has free stay in the machine's memory (is_resident is
    False), and each batch of them is sent when it is wanted.
    """

    def __init__(self, split: Split, device: torch.device, is_resident: bool | None = None):
        self.is_resident = fits_device(split.images.nbytes, device) if is_resident is None else is_resident
        images = torch.from_numpy(split.images)
        self.images = images.to(device) if self.is_resident else images
        self.label = torch.from_numpy(split.label).to(device)
        self.device = self.label.device  # with its number, where `device` has none

    def __len__(self) -> int:
        return len(self.label)

    def batches(self, size: int) -> int:
        """Return how many batches of at most `size` images the split makes."""
        return -(-len(self.label) // size)

    def in_order(
        self, to_x: Callable[[Tensor], Tensor], size: int = EVALUATION_BATCH
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y) over all images in their order, x computed from uint8 images by `to_x`."""
        for images, y in zip(self.images.split(size), self.label.split(size), strict=True):
            yield to_x(images if self.is_resident else self.send(images)), y

    def send(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the machine's memory on the device, for which the host does not wait."""
        return tensor if self.device.type == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)

    def choices(
        self,
        config: TrainingConfig,
        seed: int,
        view: Tensor | None = None,
        *,
        at_once: int = 1,
        augmented: bool = True,
        device: torch.device | None = None,
    ) -> Iterator[Tensor]:
        """Yield the choices of an epoch in random order, which follow from `seed`.

        view: int64 [3, images], the draws of every image where they are fixed (`fixed_view`); None draws anew.
        at_once: batches in a choice.
        augmented: false leaves all images as they are, whatever the configuration says.
        device: where the choices are wanted; None for where the images are.
        """
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator)
        rows = order[None]
        if view is not None:
            rows = torch.cat([rows, view[:, order]])
        elif config.augments and augmented:
            rows = torch.cat([rows, draws_of(len(order), config, generator)])
        yield from rows.to(device or self.images.device).split(at_once * config.batch_size, dim=1)

    def take(self, choice: Tensor, config: TrainingConfig) -> tuple[Tensor, Tensor]:
        """Return uint8 images [n, C, H, W] on the device, augmented as chosen, and labels [n].

        choice: where the images are.
        """
        images = self.images[choice[0]]
        if not self.is_resident:
            images, choice = self.send(images), self.send(choice)
        if len(choice) > 1:
            images = augment(images, Draws(choice[1], choice[2], choice[3].bool()), config.crop_padding)
        return images, self.label[choice[0]]


def fits_device(nbytes: int, device: torch.device) -> bool:
    """Return whether so many bytes take at most half of what is free on the device; the CPU's own always do."""
    return device.type == "cpu" or nbytes <= torch.cuda.mem_get_info(device)[0] / 2


def draws_of(n: int, config: TrainingConfig, generator: torch.Generator) -> Tensor:
    """Return the crop offsets and flips of n images as int64 [3, n], on the CPU."""
    draws = draw(n, config.crop_padding, config.flip, generator)
    return torch.stack([draws.top, draws.left, draws.flip.long()])


def fixed_view(n: int, config: TrainingConfig, seed: int) -> Tensor:
    """Return the draws of one fixed view of n images, int64 [3, n], on the CPU."""
    return draws_of(n, config, torch.Generator().manual_seed(seed))


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
