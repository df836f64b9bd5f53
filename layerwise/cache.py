"""Owns the kept output of the frozen prefix: x of every image, computed once for a block instead of in each epoch.

That needs images which do not change from epoch to epoch: not augmented, or augmented once and for all in a stated
number of fixed views. Epoch e then reads view e modulo their number.

What is kept is what `FrozenPrefix` returns, in the same number type. It lies on the device where it fits, else in the
machine's memory, else in a file without a name, which is gone as soon as nobody reads it. It is filled in the order of
the images whenever a block begins, so a training that goes on after a stop reads the same values.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from layerwise.batches import EVALUATION_BATCH, Batches, DeviceSplit
from layerwise.config import RunConfig
from layerwise.prefix import FrozenPrefix, Recomputed
from layerwise.reuse import fitting_place
from layerwise.storage import show_size

log = logging.getLogger("layerwise.cache")


class Kept(Recomputed):
    """Batches of a stage whose x is read from what was kept of every image and view.

    place: "device", "memory" or "disk"; a folder in which a file can lie is needed for the disk.
    """

    def __init__(
        self,
        data: Mapping[str, DeviceSplit],
        prefix: FrozenPrefix,
        config: RunConfig,
        depth: int,
        folder: Path | None = None,
    ):
        super().__init__(data, prefix, config, depth)
        self.device = data["train"].device
        c, h, w = prefix.shape
        self.n = {"train": self.views * len(data["train"])} | {m: len(data[m]) for m in data if m != "train"}
        shapes = {name: (n, h, w, c) for name, n in self.n.items()}
        needed = sum(prod(shape) for shape in shapes.values()) * prefix.dtype.itemsize
        self.place = fitting_place(needed, self.device, folder)
        self._kept = {m: _allocate(s, prefix.dtype, self.device, self.place, folder) for m, s in shapes.items()}
        self._fill()
        log.debug("kept the output of %d frozen blocks: %s, %s", prefix.depth, show_size(needed), self.place)

    @torch.no_grad()
    def _fill(self) -> None:
        for name, kept in self._kept.items():
            data = self.data[name]
            for v, whole in enumerate(kept.split(len(data))):
                draws = self.view(v) if name == "train" else None
                rows = torch.arange(len(data))[None]
                choices = (rows if draws is None else torch.cat([rows, draws])).split(EVALUATION_BATCH, dim=1)
                for part, choice in zip(whole.split(EVALUATION_BATCH), choices, strict=True):
                    images, _ = data.take(choice.to(data.images.device), self.config.training)
                    part.copy_(self.prefix(images).permute(0, 2, 3, 1))

    def batches(self, epoch: int) -> Batches:
        """Yield what makes the batches of an epoch: the places (of x, of y) on the device, else x and y themselves."""
        data, cfg, where = self.data["train"], self.config.training, self._kept["train"].device
        first = epoch % self.views * len(data)
        for choice in data.choices(cfg, self.order_seed(epoch), augmented=False, device=where):
            places = torch.cat([choice + first, choice])
            yield (places,) if where == self.device else self._read("train", places)

    def fetch(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x, y) of what `batches` yielded."""
        if len(batch) == 2:
            return batch
        return self._read("train", batch[0])

    def held(self) -> Batches:
        """Yield (x, y) of the validation fold."""
        kept = self._kept["validation"]
        for rows in torch.arange(len(kept), device=kept.device).split(EVALUATION_BATCH):
            yield self._read("validation", torch.stack([rows, rows]))

    def _read(self, name: str, places: Tensor) -> tuple[Tensor, Tensor]:
        x, rows = self._kept[name].index_select(0, places[0]), places[1]
        if x.device != self.device:
            x, rows = self.data[name].send(x), self.data[name].send(rows)
        return x.permute(0, 3, 1, 2), self.data[name].label[rows]


def _allocate(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, place: str, folder: Path | None
) -> Tensor:
    if place == "device":
        return torch.empty(shape, dtype=dtype, device=device)
    if place == "memory":
        return torch.empty(shape, dtype=dtype)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".prefix.") as file:  # its name goes here, its bytes later
        return torch.from_file(file.name, shared=True, size=prod(shape), dtype=dtype).view(shape)
