"""What is fed to a network built elsewhere: batches of its inputs, and to which split each row of them belongs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from layerwise import ranks
from layerwise.datasets import Dataset
from layerwise.datasets.folds import stratified_split
from layerwise.datasets.split import SplitFiles
from layerwise.errors import UserError
from layerwise.extraction.preprocessing import Preprocessing
from layerwise.runfile import SPLITS
from layerwise.runfile.depths import Routes


@dataclass(frozen=True)
class Batch:
    """Inputs x [n, ...] on the network's device; images uint8 [n, C, H, W] they come from; who owns each row.

    first: number of its first row in the split, where ranks share the rows of each split.
    """

    x: Tensor
    images: np.ndarray | None
    routes: Routes
    first: int | None = None


class Feed(Protocol):
    """Inputs in an order that is the same at every pass, with labels and positions int64 [n] of each split.

    kept: where its images are, as `Dataset.kept`; None of inputs that are no images. files: as of `Extraction`.
    """

    labels: dict[str, np.ndarray]
    index: dict[str, np.ndarray]
    kept: str | None
    files: dict[str, SplitFiles]

    def batches(self, only: str | None = None, *, shared: bool = False) -> Iterator[Batch]:
        """Yield all batches, or those with rows of one split alone; the rows of each split come in ascending order.

        shared: of several ranks each has a stretch of the rows of each split, which may be none.
        """
        ...


class DatasetFeed:
    """The images of a data set, preprocessed batch by batch."""

    def __init__(self, dataset: Dataset, preprocessing: Preprocessing, size: int, device: torch.device):
        self.dataset, self.preprocessing, self.size, self.device = dataset, preprocessing, size, device
        self.kept: str | None = dataset.kept
        self.labels = {name: split.label for name, split in dataset.splits.items()}
        self.index = {name: split.index for name, split in dataset.splits.items()}
        self.files = {name: split.files for name, split in dataset.splits.items() if split.files is not None}

    def batches(self, only: str | None = None, *, shared: bool = False) -> Iterator[Batch]:
        """Yield the splits one after another, each in nearly equal batches, which no number of ranks changes."""
        for name, split in self.dataset.splits.items():
            n = len(split.label) if only in (None, name) else 0
            ends = list(pairwise(np.linspace(0, n, -(-n // self.size) + 1).astype(int).tolist()))
            ends = ends[ranks.stretch(len(ends))] if shared else ends
            streamed = split.stream(slice(start, stop) for start, stop in ends)
            for (start, _), images in zip(ends, streamed, strict=True):
                x = self.preprocessing(torch.from_numpy(images).to(self.device))
                yield Batch(x, images, {name: slice(None)}, start)


class LoaderFeed:
    """The batches (x, label) of PyTorch data loaders, x as the network takes it; labels are read in a first pass.

    A stratified share of "train" becomes the validation fold where there is none and `holdout` is above 0.

    Raises UserError for loaders that lack "train" or "test" or whose labels are no classes; while batches are read, for
    those that shuffle.
    """

    kept: str | None = None

    def __init__(self, loaders: Mapping[str, Any], holdout: float, device: torch.device):
        _check_names(loaders)
        self.loaders, self.device = {name: loaders[name] for name in SPLITS if name in loaders}, device
        read = {name: _read_labels(name, loader) for name, loader in self.loaders.items()}
        self._read, self.files = read, dict[str, SplitFiles]()
        self._owned: dict[str, dict[str, np.ndarray]] = {name: {name: np.arange(len(y))} for name, y in read.items()}
        if "validation" not in loaders and holdout:
            kept, held = stratified_split(read["train"], holdout)
            self._owned["train"] = {"train": kept, "validation": held}
        flat = [(split, loader, rows) for loader, owned in self._owned.items() for split, rows in owned.items()]
        flat.sort(key=lambda part: SPLITS.index(part[0]))
        self.labels = {split: read[loader][rows] for split, loader, rows in flat}
        self.index = {split: rows for split, _, rows in flat}

    def batches(self, only: str | None = None, *, shared: bool = False) -> Iterator[Batch]:
        """Yield the batches of each loader, which is read in order: of several ranks the first has them all."""
        if shared and ranks.rank():
            return
        for name, loader in self.loaders.items():
            if only not in (None, *self._owned[name]):
                continue
            start = 0
            for x, y in loader:
                self._require_same(name, start, y)
                routes = {split: within(rows, start, len(x)) for split, rows in self._owned[name].items()}
                yield Batch(_real(name, x).to(self.device), None, routes)
                start += len(x)

    def _require_same(self, name: str, start: int, y: Any) -> None:
        """Raise UserError if a batch has other labels than in the first pass: its rows would be taken for others."""
        found = _labels(name, y)
        if not np.array_equal(found, self._read[name][start : start + len(found)]):
            raise UserError(
                f"the {name} loader gives its samples in another order at each pass, so no row could be found again. "
                "Make it with shuffle=False and without a random sampler."
            )


def within(rows: np.ndarray, start: int, n: int) -> np.ndarray:
    """Return those of ascending `rows` that lie in start .. start + n - 1, counted from start."""
    first, last = np.searchsorted(rows, [start, start + n])
    return rows[first:last] - start


def _check_names(loaders: Mapping[str, Any]) -> None:
    if not {"train", "test"} <= set(loaders) <= set(SPLITS):
        raise UserError(
            f"the loaders are named {', '.join(map(repr, loaders)) or 'nothing'}, but 'train' and 'test' are needed, "
            "and 'validation' may be there."
        )


def _read_labels(name: str, loader: Any) -> np.ndarray:
    found: list[np.ndarray] = []
    for batch in loader:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not isinstance(batch[0], Tensor):
            raise UserError(
                f"a batch of the {name} loader is no pair (x, label) with a tensor x. Of arrays "
                "DataLoader(TensorDataset(x, labels), 64) makes such, x as the network takes it."
            )
        _real(name, batch[0])
        found.append(_labels(name, batch[1]))
        if len(found[-1]) != len(batch[0]):
            raise UserError(
                f"a batch of the {name} loader has {len(batch[0])} inputs and {len(found[-1])} labels; each needs one."
            )
    label = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
    if not len(label) or not np.issubdtype(label.dtype, np.integer) or label.min() < 0:
        raise UserError(f"the labels of the {name} loader are not classes numbered from 0{_found(label)}.")
    return label.astype(np.int64)


def _labels(name: str, y: Any) -> np.ndarray:
    """Return the labels of a batch as an array, from whatever device and container they come."""
    try:
        return torch.as_tensor(y).detach().cpu().numpy().reshape(-1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the labels of the {name} loader are not classes numbered from 0 ({error}).") from None


def _real(name: str, x: Tensor) -> Tensor:
    """Return inputs in float32 if they are real numbers of another precision; other types are left to the network.

    Raises UserError for what no network of real numbers takes.
    """
    if x.is_complex() or x.layout != torch.strided or x.is_quantized or x.is_meta:
        raise UserError(
            f"the {name} loader gives inputs of {x.dtype} ({x.layout}, {x.device}), but dense real numbers are needed: "
            "float32."
        )
    return x.to(torch.float32) if x.is_floating_point() else x


def _found(label: np.ndarray) -> str:
    """Return what is wrong with labels, in words that go on a sentence."""
    if not len(label):
        return ": there are none"
    if not np.issubdtype(label.dtype, np.integer):
        return f", but of type {label.dtype}"
    worst = label.min()
    return f": {int((label == worst).sum())} are {worst}; leave out samples without a class"
