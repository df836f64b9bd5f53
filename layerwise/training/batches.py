"""The batches of a training: images on the device that trains, their order, their augmentation.

What is random is drawn on the CPU for a whole epoch and sent to the device at once, so every device sees the same
choices, and no step waits for them. A `choice` stands for n images: int64 [1, n], their rows; with augmentation [4, n],
below the rows their `draws` [3, n]: crop offsets top and left in [0, 2 padding], and flips (0 or 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from layerwise.config import TrainingConfig
from layerwise.datasets import Split

# Images that are evaluated, or fill a kept prefix, at once. Without gradients a batch may be larger than in training,
# and larger ones keep a GPU busier; other sizes were not timed. Another size changes scores and kept values by rounding
# at most, and BatchNorm's statistics of an untrained network, which are means over such batches.
EVALUATION_BATCH = 512
Batches = Iterable[tuple[Tensor, ...]]


class DeviceSplit:
    """A split's uint8 images and labels on the device that trains.

    Images that would take more than half of the device's free memory stay in the machine's (is_resident is False), and
    each batch of them is sent when it is used.
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
        """Send a tensor of the machine's memory to the device, without waiting for its arrival."""
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
        """Yield the choices of an epoch in random order, all of which follows from `seed`.

        view: the draws of all images where they are fixed (`fixed_view`); None draws anew.
        at_once: batches in a choice.
        augmented: false leaves all images as they are, whatever the configuration says.
        device: where the choices are to lie; None for where the images are.
        """
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator)
        rows = order[None]
        if view is not None:
            rows = torch.cat([rows, view[:, order]])
        elif config.augments and augmented:
            rows = torch.cat([rows, draw(len(order), config, generator)])
        yield from rows.to(device or self.images.device).split(at_once * config.batch_size, dim=1)

    def take(self, choice: Tensor, config: TrainingConfig) -> tuple[Tensor, Tensor]:
        """Return uint8 images [n, C, H, W] on the device, augmented as chosen, and labels [n].

        choice: where the images are.
        """
        images = self.images[choice[0]]
        if not self.is_resident:
            images, choice = self.send(images), self.send(choice)
        if len(choice) > 1:
            images = augment(images, choice[1:], config.crop_padding)
        return images, self.label[choice[0]]


def fits_device(nbytes: int, device: torch.device) -> bool:
    """Return whether so many bytes take at most half of the device's free memory; on the CPU the images are there.

    The other half is left to weights, activations and a kept prefix.
    """
    return device.type == "cpu" or nbytes <= torch.cuda.mem_get_info(device)[0] / 2


def draw(n: int, config: TrainingConfig, generator: torch.Generator) -> Tensor:
    """Draw crop offsets and flips of n images, int64 [3, n]: top, left, flip. The generator lives on the CPU."""
    offsets = torch.randint(0, 2 * config.crop_padding + 1, (2, n), generator=generator)
    if config.flip:
        return torch.cat([offsets, (torch.rand(1, n, generator=generator) < 0.5).long()])
    return torch.cat([offsets, torch.zeros_like(offsets[:1])])


def fixed_view(n: int, config: TrainingConfig, seed: int) -> Tensor:
    """Return the draws of one fixed view of n images, int64 [3, n], on the CPU."""
    return draw(n, config, torch.Generator().manual_seed(seed))


def augment(images: Tensor, draws: Tensor, padding: int) -> Tensor:
    """Crop each image at its offset from its zero-padded self, then mirror it where its flip says so.

    One gather for the whole batch: 1.3 ms of a step of 146 (docs/performance.md); PIL would go image by image.

    Args:
        images: [n, C, H, W], any dtype.
        draws: int64 [3, n] of `draw`.
        padding: pixels of zeros on each side.

    Returns:
        [n, C, H, W] of the same dtype on the same device.
    """
    top, left, flip = draws.to(images.device)[:, :, None]  # [n, 1] each
    n, c, h, w = images.shape
    device = images.device
    rows = top + torch.arange(h, device=device)  # [n, H]
    ascending = torch.arange(w, device=device)
    columns = left + torch.where(flip.bool(), w - 1 - ascending, ascending)  # [n, W]
    padded = F.pad(images, (padding, padding, padding, padding))
    sample = torch.arange(n, device=device)[:, None, None, None]
    channel = torch.arange(c, device=device)[None, :, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
