"""Features as every measure reads them: float64 blocks of rows, centred where a mean is known.

A source is an array [n, ...] or anything that has `shape`, `len()` and slices of rows, such as a dataset of run.h5;
what stands behind the first axis is flattened to d features. No more than a block of it is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from layerwise.errors import UserError

# Values of a block: 16 MB of float64, large enough that a product with d columns is bound by arithmetic.
_BLOCK_VALUES = 1 << 21

# Told how many rows were read, for a progress bar.
Tick = Callable[[int], None]


class Rows(Protocol):
    """Features [n, ...] read on demand."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[n, ...]."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Any:
        """Return the rows of a slice of step 1 as an array."""


Array = NDArray[np.float64]
Source = Rows | NDArray[Any]


def width(x: Source) -> int:
    """Return the number d of features; raise UserError for a source without rows or without features."""
    if len(x.shape) < 2 or 0 in x.shape:
        raise UserError(f"found features of shape {x.shape}, expected [images, features], neither of them 0.")
    return int(np.prod(x.shape[1:]))


def row_slices(n: int, d: int) -> list[slice]:
    """Return slices that cover n rows of d values, a block each."""
    step = max(1, _BLOCK_VALUES // d)
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def read(x: Source, rows: slice, mean: Array | None = None) -> Array:
    """Return rows of a source as float64 [m, d], minus a mean where one is given."""
    block = np.asarray(x[rows], np.float64)
    block = block.reshape(len(block), -1)
    return block if mean is None else block - mean


def blocks(x: Source, mean: Array | None = None, tick: Tick | None = None) -> Iterator[tuple[slice, Array]]:
    """Yield all rows in order as float64 [m, d], with the slice that they are."""
    for rows in row_slices(len(x), width(x)):
        yield rows, read(x, rows, mean)
        if tick is not None:
            tick(rows.stop - rows.start)
