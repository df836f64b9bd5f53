"""Features as the solver reads them: blocks of rows from any source, standardised on the way.

A source is a torch tensor, a numpy array or memory map, or anything that has `shape`, `len()` and slices of rows
that are numpy arrays, such as `layerwise.runfile.Rows`. It is copied as a whole only where it must be: to the device,
to be standardised, or to be widened to float32.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from layerwise.errors import UserError

_BLOCK_VALUES = 1 << 20


class Rows(Protocol):
    """Rows [n, ...] read on demand; what stands behind the first axis is flattened to features."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[n, ...]."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Any:
        """Return the rows of a slice of step 1 as an array."""


class Affine(Protocol):
    """What standardises features: (x - mean) / scale, computed in float32."""

    @property
    def mean(self) -> NDArray[Any]:
        """[d]."""

    @property
    def scale(self) -> NDArray[Any]:
        """[d], positive."""


Source = ArrayLike | Tensor | Rows


def at(where: str) -> str:
    """Return the words that an error message begins with."""
    return f"{where}: " if where else ""


class Features:
    """Features [n, d] of one source, float64 where the source is float64 or integer, else float32.

    Raises:
        UserError: for a source of no rows, of no features, or (arrays and tensors) of other than two axes.
    """

    def __init__(self, X: Source, standardiser: Affine | None = None, where: str = ""):
        self.where = where
        source: Any = X
        if isinstance(X, Tensor):
            source = X.detach()
        elif not _is_rows(X):
            source = np.asarray(X)
        self._rows = source
        shape = tuple(self._rows.shape)
        if 0 in shape or len(shape) < 2 or (len(shape) > 2 and not _is_rows(X)):
            raise UserError(f"{at(where)}found features of shape {shape}, expected [samples, features], neither empty.")
        self.n, self.d = shape[0], int(np.prod(shape[1:]))
        self._affine = None
        if standardiser is not None:
            self._affine = tuple(torch.from_numpy(np.float32(a)) for a in (standardiser.mean, standardiser.scale))
        first = self.block(slice(0, 1), torch.device("cpu"))
        self.dtype = first.dtype

    def block(self, rows: slice, device: torch.device) -> Tensor:
        """Return standardised rows [m, d] on a device, sharing memory with the source where it can."""
        part = self._rows[rows]
        block = part if isinstance(part, Tensor) else _as_tensor(part)
        block = block.reshape(len(part), -1).to(device)
        if self._affine is not None:
            mean, scale = (a.to(device) for a in self._affine)
            return (block.float() - mean).div_(scale)
        if block.dtype in (torch.float16, torch.bfloat16):
            return block.float()
        return block if block.is_floating_point() else block.double()

    def whole(self, device: torch.device) -> Tensor:
        """Return all features [n, d] on a device: the source itself, or one copy of it, made block by block."""
        if isinstance(self._rows, Tensor | np.ndarray) and self._affine is None:
            source = self._rows if isinstance(self._rows, Tensor) else _as_tensor(self._rows[:1])
            if source.dtype == self.dtype:
                return (source if isinstance(self._rows, Tensor) else _as_tensor(self._rows)).to(device)
        result = torch.empty(self.n, self.d, dtype=self.dtype, device=device)
        for rows in row_blocks(self.n, self.d):
            result[rows] = self.block(rows, device)
        return result

    def finite(self) -> Finite:
        """Return a counter of values that are not finite."""
        return Finite(self.where)


class Finite:
    """Counts values that are not finite while blocks are read, by several threads; at the end there may be none."""

    def __init__(self, where: str):
        self._where = where
        self._found: list[tuple[int, int]] = []

    def see(self, block: Tensor) -> Tensor:
        """Count, and return the block."""
        if not block.isfinite().all():
            self._found.append((int(block.isnan().sum()), int(block.isinf().sum())))
        return block

    def require(self) -> None:
        """Raise UserError where a value seen was not finite."""
        if self._found:
            nan, infinite = (sum(counts) for counts in zip(*self._found, strict=True))
            raise UserError(
                f"{at(self._where)}found {nan} NaN and {infinite} infinite values in the features, expected finite "
                "ones: the network that made them diverged, or float16 overflowed; train or store it again."
            )


def require_finite(x: Rows | NDArray[Any], where: str) -> None:
    """Raise UserError with their number where features [n, ...] are not finite; they are read block by block."""
    features, finite = Features(x, where=where), Finite(where)
    for rows in row_blocks(features.n, features.d):
        finite.see(features.block(rows, torch.device("cpu")))
    finite.require()


class View:
    """Rows [n, ...] of one or more sources end to end, read on demand; nothing is copied before.

    Args:
        parts: the sources, such as those of train and validation fold.
        kept: of a single source, the positions [n] of its rows to take, in their order.
        affine, projection: standardise the features and multiply them by a matrix [d, m], float32; both or none.
    """

    def __init__(
        self, *parts: Rows | NDArray[Any], kept: NDArray[np.int64] | None = None, affine: Affine | None = None,
        projection: NDArray[np.float32] | None = None,
    ):  # fmt: skip
        self._parts, self._kept, self._affine, self._projection = parts, kept, affine, projection
        self._ends = np.cumsum([len(part) for part in parts]).tolist()
        n = self._ends[-1] if kept is None else len(kept)
        self.shape: tuple[int, ...] = (n, *(parts[0].shape[1:] if projection is None else projection.shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Return the rows of a slice of step 1."""
        x = self._read(rows) if self._kept is None else self._parts[0][self._kept[rows]]  # type: ignore[index]
        if self._affine is None or self._projection is None:
            return x
        mean, scale = np.float32(self._affine.mean), np.float32(self._affine.scale)
        z: NDArray[np.float32] = (np.asarray(x, np.float32).reshape(len(x), -1) - mean) / scale
        return z @ self._projection

    def _read(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(len(self))
        found = []
        for part, end in zip(self._parts, self._ends, strict=True):
            first = end - len(part)
            low, high = max(start, first) - first, min(stop, end) - first
            if low < high:
                found.append(np.asarray(part[low:high]))
        return np.concatenate(found) if len(found) != 1 else found[0]


def row_blocks(n: int, d: int, values: int = _BLOCK_VALUES) -> list[slice]:
    """Return slices that cover n rows of d values, each of at most so many values (and at least one row)."""
    step = max(1, values // d)
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _is_rows(X: Any) -> bool:
    return not isinstance(X, Tensor | np.ndarray) and hasattr(X, "shape") and hasattr(X, "__getitem__")


def _as_tensor(part: Any) -> Tensor:
    array = np.asarray(part)
    # torch takes no read-only or negatively strided array without complaint
    return torch.from_numpy(array if array.flags.writeable and min(array.strides) >= 0 else array.copy())
