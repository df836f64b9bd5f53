"""A run file with one more split: a set of images that are no part of it, of which its network computes every depth.

Probes read it as they read the run's own splits. Rounded as the file rounds its own activations, the same images give
the same features, to the rounding of the network's products.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerwise.activations import READ_BATCH, load_network
from layerwise.datasets.pictures import Form
from layerwise.datasets.shown import ShownImages, form_of_run
from layerwise.errors import UserError
from layerwise.hardware import exact_float32
from layerwise.model.blocks import average
from layerwise.model.maps import maps_of, rows_within
from layerwise.runfile import Rows, RunFile
from layerwise.runfile.layout import POOL_SIDE


class Held(Rows):
    """An array in memory, read as the rows of a file are."""

    is_contiguous = True

    def __init__(self, array: np.ndarray):
        self.path, self.shape, self.dtype, self._array = "memory", array.shape, array.dtype, array

    def __getitem__(self, key: Any) -> np.ndarray:
        return self._array[key]


class ShownRun(RunFile):
    """A run file to whose network images are shown, one set at a time; the set is then a split by its name.

    A x_j of all depths is computed in one pass over the images, and held: 4 C numbers an image and depth.

    Raises UserError for a run without its network.
    """

    def __init__(self, path: Path | str, device: torch.device, data_dir: Path | str | None = None):
        super().__init__(path, data_dir)
        self._device = device
        self._shown: ShownImages | None = None
        self._kept: dict[str, dict[int, np.ndarray]] = {}
        try:
            require_network(self)
        except BaseException:
            self.close()
            raise

    @property
    def form(self) -> Form:
        """The form in which images are read: that of the run's own."""
        data = None if self.config is None else self.config.data
        size, shorter = (0, 0) if data is None else (data.image_size, data.eval_resize)
        return form_of_run(self.depth_shape(0), size, shorter, self.path.name)

    def show(self, images: ShownImages) -> None:
        """Show a set in the place of the one before."""
        self._shown, self._kept = images, {}

    def _shows(self, split: str) -> ShownImages | None:
        return self._shown if self._shown is not None and split == self._shown.name else None

    def labels(self, split: str) -> np.ndarray:
        return super().labels(split) if (own := self._shows(split)) is None else own.label

    def indices(self, split: str) -> np.ndarray:
        return super().indices(split) if (own := self._shows(split)) is None else np.arange(len(own.label))

    def images(self, split: str) -> Rows | None:
        return super().images(split) if (own := self._shows(split)) is None else Held(own.images)

    def pooled(self, depth: int, split: str) -> Rows | None:
        if self._shows(split) is None:
            return super().pooled(depth, split)
        self._require_depth(depth)
        if "pooled" not in self._kept:
            self._kept["pooled"] = self._averages()
        return Held(self._kept["pooled"][depth])

    def maps(self, depth: int, split: str) -> Rows | None:
        return super().maps(depth, split) if self._shows(split) is None else None

    def outputs(self, j: int, split: str) -> np.ndarray | None:
        if self._shows(split) is None:
            return super().outputs(j, split)
        self._require_depth(j)
        if "outputs" not in self._kept:
            self._kept["outputs"] = self._logits()
        return self._kept["outputs"].get(j)

    def _averages(self) -> dict[int, np.ndarray]:
        """Return A x_j of every depth, in the number type of the file."""
        types = {j: np.float32 if (own := self.pooled(j, "train")) is None else own.dtype for j in self.depths}
        parts: dict[int, list[np.ndarray]] = {j: [] for j in self.depths}
        for j, x in self._computed():
            parts[j].append(average(x, POOL_SIDE).cpu().numpy().astype(types[j]))
        return {j: np.concatenate(found) for j, found in parts.items()}

    def _logits(self) -> dict[int, np.ndarray]:
        """Return what the trained auxiliaries say."""
        parts: dict[int, list[np.ndarray]] = {j: [] for j in self.trained_depths}
        network = load_network(self, self._device)
        assert network is not None
        for j, x in self._computed():
            if j in parts:
                with torch.no_grad(), exact_float32():
                    parts[j].append(network.auxiliaries[j - 1](x).cpu().numpy())
        return {j: np.concatenate(found) for j, found in parts.items()}

    def _computed(self) -> Iterator[tuple[int, Tensor]]:
        """Yield x_j of each depth of each batch of the images shown."""
        network, shown = load_network(self, self._device), self._shown
        assert network is not None and shown is not None
        maps = maps_of(network.config, network.shapes[0], network.n_classes)
        at_once = rows_within(READ_BATCH, maps.forward(max(self.depths)))
        for start in range(0, len(shown.images), at_once):
            x = torch.from_numpy(shown.images[start : start + at_once]).to(self._device)
            for j in self.depths:
                with torch.no_grad(), exact_float32():
                    x = network.advance(x, j - 1, j) if j else network.normalise(x)
                yield j, x


def require_network(run: RunFile) -> None:
    """Raise UserError for a run whose network cannot be made of its file."""
    if run.config is not None and run.weights("blocks", 1) is not None:
        return
    if (run.extraction or {}).get("kind") == "network":
        raise UserError(
            f"{run.path} holds no network, only what one built elsewhere computed, so no other images can be shown to "
            "it. Extract it anew with these images as its test split, beside the same train images "
            "(`layerwise-extract`), and probe that run."
        )
    raise UserError(
        f"{run.path} holds no network, only arrays, so no other images can be shown to it. Give their features as the "
        "test split of other arrays, beside the same train samples (`layerwise-extract --from`), and probe that run."
    )
