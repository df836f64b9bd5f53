"""The batches (x, y) of a stage, x the output of the frozen blocks: computed for every batch, or kept for all epochs.

Keeping needs images that do not change from epoch to epoch: not augmented, or augmented once in a stated number of
fixed views. Epoch e then reads view e modulo their number. At block 4 it shortens a step by 1.6 (docs/performance.md).

What is kept is the output of `FrozenPrefix` in its number type: on the device where it fits, else in the machine's
memory, else in an unlinked temporary file; ranks of one machine share it there. It is filled in the order of the images
whenever a block begins, so a resumed training reads the same values.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from layerwise import ranks, sharing
from layerwise.config import RunConfig
from layerwise.datasets import Sizes
from layerwise.errors import UserError
from layerwise.hardware import device_room, memory_room
from layerwise.model.architectures import network_shapes
from layerwise.model.seeds import derive_seed
from layerwise.training.batches import Batches, DeviceSplit, evaluation_batch, fixed_view
from layerwise.training.prefix import AT_ONCE, FrozenPrefix
from layerwise.units import show_size

log = logging.getLogger("layerwise.cache")


class Recomputed:
    """Batches of a stage whose x is computed from the images, by the frozen prefix, for every batch.

    data: "train", and "validation" where there is a fold. depth: of the stage's first classifier, from which its random
    streams are derived.
    """

    def __init__(self, data: Mapping[str, DeviceSplit], prefix: FrozenPrefix, config: RunConfig, depth: int):
        self.data, self.prefix, self.config, self.depth = data, prefix, config, depth
        self.views = max(1, config.training.views)
        self.at_once = evaluation_batch(prefix.network)  # images, without gradients

    def order_seed(self, epoch: int) -> int:
        """Return the seed of an epoch's order and of its augmentation."""
        return derive_seed(self.config.seed, f"order {epoch}", self.depth)

    def view(self, v: int) -> Tensor | None:
        """Return the draws of fixed view v, int64 [3, images]; None where there are no fixed views."""
        cfg = self.config
        if not cfg.training.views:
            return None
        data, seed = self.data["train"], derive_seed(cfg.seed, f"view {v}", self.depth)
        originals = data.originals(cfg.training, torch.arange(len(data)))
        draws = fixed_view(len(data), cfg.training, data.size, seed, originals)
        if (flips := self.flips(v)) is not None:
            draws[2] = flips
        return draws

    def flips(self, epoch: int) -> Tensor | None:
        """Return whether each image is mirrored in an epoch, int64 [images], where that alternates."""
        if not self.config.training.alternating_flip:
            return None
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "flips", self.depth))
        return (torch.randint(0, 2, (len(self.data["train"]),), generator=generator) + epoch) % 2

    def batches(self, epoch: int, done: int = 0) -> Batches:
        """Yield (x_0, y) of the batches of an epoch, after the `done` first; the images of several are made at once."""
        data, cfg, view = self.data["train"], self.config.training, self.view(epoch % self.views)
        at_once = max(1, AT_ONCE // (cfg.batch_size * prod(self.prefix.network.shapes[0])))
        at_once = at_once if ranks.world() == 1 else 1
        seed, flips = self.order_seed(epoch), self.flips(epoch)
        for images, y in data.taken(data.choices(cfg, seed, view, flips, at_once=at_once, done=done), cfg):
            x = self.prefix.begin(images)
            yield from zip(x.split(cfg.batch_size), y.split(cfg.batch_size), strict=True)

    def fetch(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x, y) of what `batches` yielded."""
        return self.prefix.advance(batch[0]), batch[1]

    def validation(self) -> Batches:
        """Yield (x, y) of this rank's share of the validation fold."""
        return self.data["validation"].in_order(self.prefix, self.at_once, shared=True)


class Kept(Recomputed):
    """Batches of a stage whose x was computed once for every image and view, and is read.

    folder: where a temporary file can lie; None where the disk is not to be used. place: where x is kept, "device",
    "memory" or "disk".
    """

    def __init__(
        self,
        data: Mapping[str, DeviceSplit],
        prefix: FrozenPrefix,
        config: RunConfig,
        depth: int,
        folder: Path | None,
    ):
        super().__init__(data, prefix, config, depth)
        self.device = data["train"].device
        c, h, w = prefix.shape
        self.n = {"train": self.views * len(data["train"])} | {m: len(data[m]) for m in data if m != "train"}
        shapes = {name: (n, h, w, c) for name, n in self.n.items()}
        needed = sum(prod(shape) for shape in shapes.values()) * prefix.dtype.itemsize
        # One place for all ranks, of all machines: to share memory or a file they make the same calls.
        places = ranks.all_attempted(lambda: fitting_place(needed, self.device, folder))
        self.place = max(places, key=PLACES.index)
        self._kept = {m: _allocate(s, prefix.dtype, self.device, self.place, folder) for m, s in shapes.items()}
        self._fill()
        log.debug("kept the output of %d frozen blocks: %s, %s", prefix.depth, show_size(needed), self.place)

    @torch.no_grad()
    def _fill(self) -> None:
        """Compute all of it, or where ranks of one machine share it a part; then wait for the rest."""
        for name, kept in self._kept.items():
            data = self.data[name]
            for v, whole in enumerate(kept.split(len(data))):
                draws = self.view(v) if name == "train" else None
                rows = torch.arange(len(data))[None]
                choices = (rows if draws is None else torch.cat([rows, draws])).to(data.home)
                parts = list(zip(whole.split(self.at_once), choices.split(self.at_once, dim=1), strict=True))
                parts = parts if kept.is_cuda else parts[sharing.part(len(parts))]
                taken = data.taken([choice for _, choice in parts], self.config.training)
                for (part, _), (images, _) in zip(parts, taken, strict=True):
                    part.copy_(self.prefix(images).permute(0, 2, 3, 1))
        ranks.all_of(None)

    def batches(self, epoch: int, done: int = 0) -> Batches:
        """Yield the batches of an epoch after the `done` first.

        They are (x, y), or where x is kept on the device their rows, int64 [2, n]: `fetch` reads rows inside the
        captured step, which cannot read what lies elsewhere.
        """
        data, cfg, where = self.data["train"], self.config.training, self._kept["train"].device
        first = epoch % self.views * len(data)
        for choice in data.choices(cfg, self.order_seed(epoch), augmented=False, device=where, done=done):
            places = torch.cat([choice + first, choice])
            yield (places,) if where == self.device else self._read("train", places)

    def fetch(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x, y) of what `batches` yielded."""
        if len(batch) == 2:
            return batch
        return self._read("train", batch[0])

    def validation(self) -> Batches:
        """Yield (x, y) of this rank's share of the validation fold."""
        kept = self._kept["validation"]
        for batch in torch.arange(len(kept), device=kept.device).split(self.at_once):
            rows = batch[ranks.share(len(batch))]
            yield self._read("validation", torch.stack([rows, rows]))

    def _read(self, name: str, places: Tensor) -> tuple[Tensor, Tensor]:
        x, rows = self._kept[name].index_select(0, places[0]), places[1]
        if x.device != self.device:
            x, rows = self.data[name].send(x), self.data[name].send(rows)
        return x.permute(0, 3, 1, 2), self.data[name].label[rows]


def _allocate(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, place: str, folder: Path | None
) -> Tensor:
    if place == "device" and device.type == "cuda":
        return torch.empty(shape, dtype=dtype, device=device)
    return sharing.shared_tensor(shape, dtype, folder if place == "disk" else None)


# At most this share of free memory or disk is taken. The rest is for what the forecast does not see: activations of the
# step, Python and its libraries, and other programs, whose needs grow while a training runs. A guess on the safe side.
SHARE = 0.5


def kept_bytes(config: RunConfig, sizes: Sizes) -> int:
    """Return the bytes of the largest output of a frozen prefix, over all training images and views and the fold.

    config: with its precision resolved.
    """
    net = config.network
    outputs = network_shapes(net, sizes.image)[1:]
    if not net.prune_to:
        outputs = outputs[:-1]  # the last block's output is read only where its auxiliary is fine-tuned
    images = max(1, config.training.views) * sizes.train + sizes.validation
    return max((prod(shape) for shape in outputs), default=0) * images * (2 if config.precision == "bf16" else 4)


def resolve_prefix(config: RunConfig, sizes: Sizes, device: torch.device, begun: str | None = None) -> RunConfig:
    """Return the configuration with "auto" decided: "cache" where an output is read more than once and fits.

    Augmentation that is drawn anew in each epoch is never turned into fixed views: without --views it is recomputed. On
    a GPU it is kept in the device's memory or not at all, since reading the machine's would be slower than computing.
    begun: what was decided when this training began; it is kept to, if possible, however much memory is free now.
    """
    cfg = config.training
    if cfg.prefix != "auto":
        return config
    has_prefix = config.network.depth > 1 or config.network.prune_to > 0
    can = config.mode == "greedy" and has_prefix and cfg.is_fixed
    keeps = can and begun != "recompute"
    if keeps and begun is None:
        room = device_room(device) if device.type == "cuda" else memory_room()
        keeps = cfg.repeats and kept_bytes(config, sizes) <= SHARE * room
    return replace(config, training=replace(cfg, prefix="cache" if keeps else "recompute"))


PLACES = ("device", "memory", "disk")


def fitting_place(needed: int, device: torch.device, folder: Path | None) -> str:
    """Return where to keep so many bytes: the first of `PLACES` of whose free bytes they take SHARE.

    Raises UserError where they fit nowhere.
    """
    if device.type == "cuda" and needed <= SHARE * device_room(device):
        return "device"
    if needed <= SHARE * memory_room():
        return "device" if device.type == "cpu" else "memory"
    if folder is not None and needed <= SHARE * shutil.disk_usage(folder).free:
        return "disk"
    raise UserError(
        f"keeping the output of the frozen blocks takes {show_size(needed)}, which is more than half of what is free "
        f"on the device, in memory and on the disk of {folder}. Use --prefix recompute, or fewer --views."
    )
