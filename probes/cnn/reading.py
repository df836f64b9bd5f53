"""Reading of the activations of a depth for training: in random order, at the speed of reading in order.

The order is drawn in pieces of neighbouring rows that a disk reads at full speed (one row, where rows are that large)
and mixed again within some hundred pieces. It depends on shapes and seed alone, so that maps that are stored,
recomputed, or held in memory give the same batches. Memory is bounded, whatever the number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from layerwise.activations import READ_BATCH, read_activations
from layerwise.model.maps import rows_within
from layerwise.runfile import RunFile
from probes.tasks.task import Task

# Large enough to be read fast (524 MB at 84% of the speed of reading in order, docs/performance.md), and small
# enough that a chunk mixes a thousand pieces.
PIECE_BYTES = 2**17
CHUNK_BYTES = 2**27
KEPT_BYTES = 2 * 10**9  # on the CPU; on a GPU, a quarter of what is free
Item = TypeVar("Item")
Result = TypeVar("Result")


def shuffled_order(n: int, row_bytes: int, seed: int) -> np.ndarray:
    """Return a random order int64 [n] of n rows, of `row_bytes` each, in which pieces of neighbours lie near together.

    Pieces of about PIECE_BYTES, cut anew for each seed, come in random order; the rows of as many pieces as fill
    CHUNK_BYTES are then shuffled. Rows of PIECE_BYTES or more are shuffled uniformly.
    """
    rng = np.random.default_rng(seed)
    piece = -(-PIECE_BYTES // row_bytes)
    cuts = np.arange(rng.integers(piece) if piece > 1 else 0, n, piece)
    pieces = [rows for rows in np.split(np.arange(n), cuts) if len(rows)]
    order = np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])
    chunk = max(1, CHUNK_BYTES // row_bytes)
    for start in range(0, n, chunk):
        rng.shuffle(order[start : start + chunk])
    return order


def ahead(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
    """Yield each item with function(item), computed in a thread while the one before is in use."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(function, item) for item in items[:1]]
        for i, item in enumerate(items):
            result = waiting.pop().result()
            waiting += [pool.submit(function, following) for following in items[i + 1 : i + 2]]
            yield item, result


class Labelled:
    """Activations x_j of the labelled images of one or more splits, joined end to end, with their labels.

    They are held in memory where all of them together fit the budget, else each batch is read anew.

    Args:
        task: gives labels and rows.
        source: as in layerwise.activations.
        dtype: of the activations given and held.
        keep: False for what is read once, which is then never held in memory.

    Attributes:
        label: int64 [n] on the device.
        counts: number of images of each split, in the order asked for.
        at_once: images that are read in order, or scored, together.
    """

    def __init__(
        self,
        task: Task,
        depth: int,
        splits: Sequence[str],
        *,
        source: str = "auto",
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        keep: bool = True,
    ):
        self.device, self.dtype = device, dtype
        self._parts = [read_activations(task.run, depth, split, source=source, device=device) for split in splits]
        self._rows = [task.rows(split) for split in splits]
        self._starts = np.cumsum([0] + [len(rows) for rows in self._rows])
        self.label = torch.from_numpy(np.concatenate([task.labels(split) for split in splits])).to(device)
        self.counts = {split: len(rows) for split, rows in zip(splits, self._rows, strict=True)}
        self._shape = task.run.depth_shape(depth)
        self._values = math.prod(self._shape)
        # Of x_j alone, wherever it comes from, so that every source gives the same batches: x_j and what a probe's
        # first convolution makes of it, with its BatchNorm.
        self.at_once = rows_within(READ_BATCH, 3 * self._values)
        keep = keep and fits_memory(task.run, depth, len(self.label), dtype, device)
        self._kept = self._whole() if keep else None

    def __len__(self) -> int:
        return len(self.label)

    def in_order(self, rows: range) -> Iterator[Tensor]:
        """Yield x_j [n, C, H, W] of a range of rows in their order, `at_once` at a time."""
        for start in range(rows.start, rows.stop, self.at_once):
            batch = np.arange(start, min(start + self.at_once, rows.stop))
            yield self._held(batch) if self._kept is not None else self._compute(self._read(batch))

    def shuffled(self, size: int, seed: int, n: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y) over the first n rows (all by default) in the random order of `seed`.

        The batches are as equal as can be, of at most `size` rows: none is so small that its statistics are noise.
        """
        n = len(self) if n is None else n
        # As if the maps were stored in float16, whatever is read: every source has the same order.
        order = shuffled_order(n, 2 * self._values, seed)
        batches = np.array_split(order, -(-n // size))
        for rows, x in self._from_memory(batches) if self._kept is not None else self._from_disk(batches):
            yield x, self.label[torch.from_numpy(rows).to(self.device)]

    def _from_memory(self, batches: list[np.ndarray]) -> Iterator[tuple[np.ndarray, Tensor]]:
        return ((rows, self._held(rows)) for rows in batches)

    def _from_disk(self, batches: list[np.ndarray]) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Read batches, in the order of the file, while those before are in use.

        Of small rows, all batches of a chunk are read together, so that each piece is read once and at once; of large
        rows one batch after the other, which stays in the processor's cache until it is used.
        """
        row_bytes = 2 * self._values
        held = max(row_bytes, *(part.row_bytes for part in self._parts))  # an image may be larger than its maps
        together = 1 if row_bytes >= PIECE_BYTES else max(1, CHUNK_BYTES // (held * len(batches[0])))
        groups = [batches[i : i + together] for i in range(0, len(batches), together)]

        def read(group: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            rows = np.sort(np.concatenate(group))
            return rows, self._read(rows)

        is_contiguous = all(part.is_contiguous for part in self._parts)
        for group, (sorted_rows, values) in ahead(read, groups) if is_contiguous else ((g, read(g)) for g in groups):
            for rows in group:
                yield rows, self._compute(values[np.searchsorted(sorted_rows, rows)])

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Return ascending rows as the file has them."""
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        found = [self._parts[i].read(self._rows[i][rows[owner == i] - self._starts[i]]) for i in np.unique(owner)]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _compute(self, values: np.ndarray) -> Tensor:
        return self._parts[0].compute(values).to(self.dtype, memory_format=torch.channels_last)

    def _held(self, rows: np.ndarray) -> Tensor:
        assert self._kept is not None
        return self._kept[torch.from_numpy(rows).to(self.device)].permute(0, 3, 1, 2)

    def _whole(self) -> Tensor:
        """Return all activations [n, H, W, C]: channels last, in which convolutions on these devices are fastest."""
        channels, height, width = self._shape
        kept = torch.empty((len(self), height, width, channels), dtype=self.dtype, device=self.device)
        for start in range(0, len(self), self.at_once):
            rows = np.arange(start, min(start + self.at_once, len(self)))
            kept[start : start + self.at_once] = self._compute(self._read(rows)).permute(0, 2, 3, 1)
        return kept


def number_type(run: RunFile, depth: int) -> torch.dtype:
    """Return the number type of a depth in its file, in which nothing is lost that the file has."""
    rows = run.pooled(depth, "train")
    rows = run.maps(depth, "train") if rows is None else rows
    return torch.float16 if rows is not None and rows.dtype == np.float16 else torch.float32


def fits_memory(run: RunFile, depth: int, n: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether x_j of n images may be held in memory on a device."""
    return n * math.prod(run.depth_shape(depth)) * dtype.itemsize <= kept_bytes(device)


def kept_bytes(device: torch.device) -> int:
    """Return how many bytes of activations may be held in memory on a device."""
    return torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else KEPT_BYTES
