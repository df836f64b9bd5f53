"""The batches of a training: images on the device that trains, their order, their augmentation.

What is random is drawn on the CPU for a whole epoch and sent to the device at once, so every device sees the same
choices, and no step waits for them. A `choice` stands for n images: int64 [1, n], their rows; with augmentation [4, n],
below the rows their `draws` [3, n]: crop offsets top and left in [0, 2 padding], and flips (0 or 1). With cutout there
are two more, the middle of the square: row and column in [0, H) and [0, W). Of a random part of the original, top, left
and flip are followed by its height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from layerwise import ranks
from layerwise.config import TrainingConfig
from layerwise.datasets import Split
from layerwise.datasets.stream import StreamedSplit
from layerwise.model.maps import maps_of, rows_within
from layerwise.model.network import LayerwiseNetwork
from layerwise.training.parts import draw_parts

# Images that are evaluated, or fill a kept prefix, at once. Without gradients a batch may be larger than in training,
# and larger ones keep a GPU busier; other sizes were not timed. Another size changes scores and kept values by rounding
# at most, and BatchNorm's statistics of an untrained network, which are means over such batches.
EVALUATION_BATCH = 512


def evaluation_batch(network: LayerwiseNetwork) -> int:
    """Return how many images are evaluated at once: EVALUATION_BATCH, or of large images what memory is given to."""
    maps = maps_of(network.config, network.shapes[0], network.n_classes)
    return rows_within(EVALUATION_BATCH, maps.forward(network.config.depth))


# Rows of a choice before those of the cutout: of images that are padded, and of parts of originals.
PADDED, VIEWED = 4, 6
Batches = Iterable[tuple[Tensor, ...]]


class DeviceSplit:
    """A split's uint8 images and labels as the device that trains is given them.

    Images that would take more than half of the device's free memory stay in the machine's (is_resident is False), and
    each batch of them is sent when it is used. So is each batch of a streamed split, which other processes decode.

    size: (H, W) of an image. images: all of them, None of a streamed split. home: where they are, and choices of them.
    """

    def __init__(self, split: Split, device: torch.device, is_resident: bool | None = None):
        self.split, self.size = split, split.shape[1:]
        is_streamed = isinstance(split, StreamedSplit)
        fits = fits_device(split.nbytes, device) if is_resident is None else is_resident
        self.is_resident = fits and not is_streamed
        self.label = torch.from_numpy(split.label).to(device)
        self.device = self.label.device  # with its number, where `device` has none
        self.images: Tensor | None = None
        if not is_streamed:
            images = torch.from_numpy(split.images)
            self.images = images.to(device) if self.is_resident else images
        self.home = torch.device("cpu") if self.images is None else self.images.device

    def __len__(self) -> int:
        return len(self.label)

    def batches(self, size: int) -> int:
        """Return how many batches of at most `size` images the split makes."""
        return -(-len(self.label) // size)

    def in_order(
        self,
        to_x: Callable[[Tensor], Tensor],
        size: int = EVALUATION_BATCH,
        *,
        shared: bool = False,
        in_turns: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y) over all images in their order, x computed from uint8 images by `to_x`.

        shared: whether every rank takes its share of each batch. in_turns: whether ranks take whole batches in turns.
        Else each takes all.
        """
        parts = [slice(start, min(start + size, len(self))) for start in range(0, len(self), size)]
        if shared:
            parts = [slice(part.start + ranks.rank(), part.stop, ranks.world()) for part in parts]
        parts = parts[ranks.share(len(parts))] if in_turns else parts
        for part, images in zip(parts, self._read(parts), strict=True):
            yield to_x(images), self.label[part]

    def _read(self, parts: Iterable[slice | Tensor]) -> Iterator[Tensor]:
        """Yield the images of each part, or choice, on the device."""
        parts = (part[0] if isinstance(part, Tensor) else part for part in parts)
        if self.images is None:
            numbers = (rows if isinstance(rows, slice) else rows.numpy() for rows in parts)
            yield from map(self.send, map(torch.from_numpy, self.split.stream(numbers)))
            return
        for rows in parts:
            images = self.images[rows]
            yield images if self.is_resident else self.send(images)

    def send(self, tensor: Tensor) -> Tensor:
        """Send a tensor of the machine's memory to the device, without waiting for its arrival."""
        return tensor if self.device.type == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)

    def choices(
        self,
        config: TrainingConfig,
        seed: int,
        view: Tensor | None = None,
        flips: Tensor | None = None,
        *,
        at_once: int = 1,
        augmented: bool = True,
        device: torch.device | None = None,
        done: int = 0,
    ) -> Iterator[Tensor]:
        """Yield the choices of an epoch in random order, all of which follows from `seed`; of each this rank's share.

        view: the draws of all images where they are fixed (`fixed_view`); None draws anew.
        flips: int64 [images], whether each is mirrored, in place of what is drawn; None leaves it.
        at_once: batches in a choice; 1 where several ranks share each.
        augmented: false leaves all images as they are, whatever the configuration says.
        device: where the choices are to lie; None for where the images are.
        done: batches of the epoch that were taken before, and are left out.
        """
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator)
        rows = order[None]
        if view is not None:
            rows = torch.cat([rows, view[:, order]])
        elif config.augments and augmented:
            drawn = draw(len(order), config, self.size, generator, self.originals(config, order))
            if flips is not None:
                drawn[2] = flips[order]
            rows = torch.cat([rows, drawn])
        rows = rows[:, done * config.batch_size :]
        if rows.shape[1]:
            for choice in rows.to(device or self.home).split(at_once * config.batch_size, dim=1):
                yield choice[:, ranks.share(choice.shape[1])]

    def originals(self, config: TrainingConfig, rows: Tensor) -> Tensor | None:
        """Return height and width of the original of each of some images, int64 [2, n], where parts of it are drawn."""
        if not config.is_resized:
            return None
        assert isinstance(self.split, StreamedSplit)  # how the configuration has them read
        return torch.from_numpy(self.split.sizes)[:, rows]

    def taken(self, choices: Iterable[Tensor], config: TrainingConfig) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield for each choice uint8 images [n, C, H, W] on the device, augmented as chosen, and labels [n].

        choices: where the images are. All are asked for at once, so that a streamed split can read ahead.

        A part of the original takes its draws along with the rows of the images to the processes that decode
        (`layerwise.datasets.stream`), and of it only the cutout is left to do here.
        """
        every = list(choices)
        is_viewed = config.is_resized and any(len(choice) > 1 for choice in every)
        for choice, images in zip(every, self._viewed(every) if is_viewed else self._read(every), strict=True):
            drawn = choice if self.is_resident else self.send(choice)
            first = VIEWED if is_viewed else PADDED
            if len(drawn) > 1 and not is_viewed:
                images = augment(images, drawn[1:first], config.crop_padding, config.crop_fill)
            if len(drawn) > first:
                images = cut_out(images, drawn[first:], config.cutout)
            yield images, self.label[drawn[0]]

    def _viewed(self, choices: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the views of each choice on the device, made where their originals are decoded."""
        assert isinstance(self.split, StreamedSplit)
        yield from map(self.send, map(torch.from_numpy, self.split.views(c[:VIEWED].numpy() for c in choices)))

    def take(self, choice: Tensor, config: TrainingConfig) -> tuple[Tensor, Tensor]:
        """Return images and labels of a single choice, as `taken` does."""
        return next(self.taken([choice], config))


def fits_device(nbytes: int, device: torch.device) -> bool:
    """Return whether so many bytes take at most half of the device's free memory; on the CPU the images are there.

    The other half is left to weights, activations and a kept prefix.
    """
    return device.type == "cpu" or nbytes <= torch.cuda.mem_get_info(device)[0] / 2


def draw(
    n: int,
    config: TrainingConfig,
    size: Sequence[int],
    generator: torch.Generator,
    originals: Tensor | None = None,
) -> Tensor:
    """Draw the augmentation of n images of size (H, W), int64 [3 to 7, n].

    Top, left, flip; height and width of the part where one of the original is taken; the cutout's middle.

    originals: their heights and widths, int64 [2, n], where parts of them are taken. The generator lives on the CPU.
    """
    if originals is None:
        offsets, sides = torch.randint(0, 2 * config.crop_padding + 1, (2, n), generator=generator), []
    else:
        box = draw_parts(originals, config.crop_scale, config.crop_ratio, generator)
        offsets, sides = box[:2], [box[2:]]
    flips = torch.zeros_like(offsets[:1])
    if config.flip:
        flips = (torch.rand(1, n, generator=generator) < 0.5).long()
    middle = [torch.randint(0, side, (1, n), generator=generator) for side in size] if config.cutout else []
    return torch.cat([offsets, flips, *sides, *middle])


def fixed_view(
    n: int, config: TrainingConfig, size: Sequence[int], seed: int, originals: Tensor | None = None
) -> Tensor:
    """Return the draws of one fixed view of n images of size (H, W), as `draw` makes them, on the CPU."""
    return draw(n, config, size, torch.Generator().manual_seed(seed), originals)


def augment(images: Tensor, draws: Tensor, padding: int, fill: str = "zeros") -> Tensor:
    """Crop each image at its offset from its padded self, then mirror it where its flip says so.

    One gather for the whole batch: 1.3 ms of a step of 146 (docs/performance.md); PIL would go image by image.

    Args:
        images: [n, C, H, W], any dtype.
        draws: int64 [3, n] of `draw`.
        padding: pixels on each side.
        fill: what they are, "zeros" or "reflect".

    Returns:
        [n, C, H, W] of the same dtype on the same device.
    """
    top, left, flip = draws.to(images.device)[:, :, None]  # [n, 1] each
    n, c, h, w = images.shape
    device = images.device
    rows = top + torch.arange(h, device=device)  # [n, H]
    ascending = torch.arange(w, device=device)
    columns = left + torch.where(flip.bool(), w - 1 - ascending, ascending)  # [n, W]
    if fill == "reflect":  # the rows and columns of the image that stand there: no padded copy
        padded, rows, columns = images, _reflected(rows - padding, h), _reflected(columns - padding, w)
    else:
        padded = F.pad(images, (padding, padding, padding, padding))
    sample = torch.arange(n, device=device)[:, None, None, None]
    channel = torch.arange(c, device=device)[None, :, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _reflected(places: Tensor, size: int) -> Tensor:
    """Return places mirrored at the first and the last of `size`, which are not repeated."""
    inside = places.abs()
    return torch.where(inside < size, inside, 2 * (size - 1) - inside)


def cut_out(images: Tensor, middle: Tensor, side: int) -> Tensor:
    """Blacken a square of each image, or what of it lies inside.

    Args:
        images: [n, C, H, W]. middle: int64 [2, n], row and column. side: of the square, in pixels.
    """
    h, w = images.shape[2:]
    covered = [
        (torch.arange(size, device=images.device) - (one.to(images.device)[:, None] - side // 2))
        for one, size in zip(middle, (h, w), strict=True)
    ]
    rows, columns = ((place >= 0) & (place < side) for place in covered)
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)
