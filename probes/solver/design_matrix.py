"""The feature matrix of the solver: blocks of rows, products, and the spectrum of the Gram matrix.

Every pass over the samples goes block by block. A block that is multiplied forward, bent by the loss and multiplied
back is read from memory once, and what lies between the products never leaves the cache: measured on two CPU cores
with 50,000 samples of 1,024 features and 10 columns, two products take 0.039 s so, 0.076 s over all samples. On a
GPU a block is as large as memory allows: each launch costs.

Problems come first and samples last, [q, n]: `W @ X.T` and `R @ X` need no padded columns in that order, and a
softmax over the classes of [100, n] takes 0.002 s, where [n, 100] takes 0.075 s.

Features are held in memory, in place where that is possible, or, when they exceed the memory allowed, made anew from
their source for each pass. The blocks are the same, and so is the result.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probes.solver.rows import Features, row_blocks
from probes.solver.samples import Samples
from probes.solver.workers import Sums, Workers

# Values in a block on a CPU. 1 MiB of float32 stays in the cache of a core between the two products: on an Intel Xeon
# (2 MiB a core) a product with the Hessian (54,000 x 784, 10 columns) takes 0.047 s of CPU so, 0.063 s with 4 MiB; by
# two threads 0.057 and 0.063 s. With 64 features both sizes take the same. Best of several, on a busy machine.
_CACHED = 1 << 18
_LAUNCHED = 1 << 25  # on a GPU
_FEW_LOGITS = 1 << 22  # that may be kept, however few the features: 16 MiB of float32
# Of one logit where logits are kept: those of the weights and of a direction, each in float32 and float64 for a moment,
# and what a change of precision holds beside them.
_LOGIT_BYTES = 32
_GRAM_LIMIT = 4096  # the largest matrix that is decomposed: time grows with the third power, and 64 MiB are held


class DesignMatrix:
    """Features [held, d] of n samples, seen centred: products subtract the mean's share, and no second copy is held.

    Centring changes only the meaning of the intercept, which is not penalised, so the problem stays the same; it
    makes the curvature of weights and intercept nearly separate.

    Attributes:
        n: the number of all samples, also of those that other ranks hold.
        mean: [d] float64, of all samples.
        row_squares: [held] float64, the squared Euclidean norms of the rows, before centring.
        columns_kept: for so many outputs logits [columns, held] are kept: what `room` holds, and at least an eighth of
            the features; none where these are not held in memory themselves.

    Args:
        room: bytes that may be spent on logits.
        samples: what the features are of; None for all samples there are.
    """

    def __init__(
        self, features: Features, device: torch.device, *, resident: bool = True, room: int = 0,
        samples: Samples | None = None,
    ) -> None:  # fmt: skip
        self.samples = samples or Samples(features.n)
        self.n, self.d, self.device, self.resident = self.samples.n, features.d, device, resident
        self.columns_kept = self.columns(self.samples.most, self.d, room) if resident else 0
        self._features = features
        self._held = features.whole(device) if resident else None
        # Wide input is centred in float64 before it is narrowed; narrow input is taken as it is.
        self._wide = features.dtype == torch.float64
        self.workers = Workers(device, self.samples)
        self._block_values = _CACHED if device.type == "cpu" else _LAUNCHED
        self.row_squares = torch.empty(features.n, dtype=torch.float64, device=device)
        self.mean = self._measure() / self.n
        self._offset = torch.zeros_like(self.mean) if self._wide else self.mean
        self._spectrum: Spectrum | None = None  # kept: every penalty of a path needs it

    @staticmethod
    def columns(n: int, d: int, room: int) -> int:
        """Return `columns_kept` of n rows of d features that are held in memory."""
        return max(n * d // 8, _FEW_LOGITS, room // _LOGIT_BYTES) // n

    def _measure(self) -> Tensor:
        """Return the sum of the rows, [d], and keep their squares, after looking for what is not finite."""
        finite = self._features.finite()

        def work(blocks: list[slice]) -> Sums:
            total = torch.zeros(self.d, dtype=torch.float64, device=self.device)
            for rows in blocks:
                wide = finite.see(self._raw(rows)).double()
                total += wide.sum(0)
                self.row_squares[rows] = wide.square().sum(1)
            return (total,)

        (total,) = self.workers.sum(self.rows(), work)
        self.samples.all_of(finite.require)
        return total

    def rows(self, columns: int = 1) -> list[slice]:
        """Return the rows of each block, for work on so many columns beside the features.

        Where features are few, a few arrays of the block's logits [columns, m] are to stay in the cache.
        """
        return self._blocks(self.samples.held, columns)

    def additions(self, columns: int) -> int:
        """Return how many additions, at most, a product passes on its way into a sum over all samples."""
        blocks = self._blocks(self.samples.most, columns)
        return blocks[0].stop + len(blocks) + self.samples.ranks - 1

    def _blocks(self, n: int, columns: int) -> list[slice]:
        return row_blocks(n, max(self.d, 4 * columns), self._block_values)

    def _raw(self, rows: slice) -> Tensor:
        return self._features.block(rows, self.device) if self._held is None else self._held[rows]

    def block(self, rows: slice, dtype: torch.dtype) -> Tensor:
        """Return features [m, d] for `Forward` and `Backward`."""
        raw = self._raw(rows)
        return (raw - self.mean if self._wide else raw).to(dtype)

    def forward(self, theta: Tensor) -> Forward:
        """Return the map from blocks to logits of theta [P, K, d + 1], whose last column is the intercept."""
        return Forward(theta, self._offset.to(theta.dtype))

    def backward(self, theta: Tensor, dtype: torch.dtype) -> Backward:
        """Return an empty sum over samples of the shape of theta [P, K, d + 1], to which blocks are added."""
        return Backward(theta.shape, self._offset.to(dtype))

    def spectrum(self) -> Spectrum:
        """Return the eigenvectors and eigenvalues of the centred Gram matrix X'X/n, in float32.

        With more features than samples XX' is decomposed instead, which spans the same directions, the only ones a
        penalised solution can have. Where both are large, the spectrum is that of evenly spaced rows, and the
        directions that these do not span share what is left of the trace.
        """
        if self._spectrum is None:
            small = self.d <= min(self.n, _GRAM_LIMIT)
            self._spectrum = self._gram_spectrum() if small else self._kernel_spectrum()
        return self._spectrum

    def _gram_spectrum(self) -> Spectrum:
        offset = self._offset.float()

        def work(blocks: list[slice]) -> Sums:
            gram = self.mean.new_zeros(self.d, self.d)
            for rows in blocks:
                block = self.block(rows, torch.float32) - offset
                gram += block.T @ block
            return (gram,)

        (gram,) = self.workers.sum(self.rows(), work)
        values, vectors = torch.linalg.eigh(gram / self.n)
        return Spectrum(vectors.float().contiguous(), values.clamp(min=0).float(), None)

    def _kernel_spectrum(self) -> Spectrum:
        step, first = -(-self.n // _GRAM_LIMIT), self.samples.first
        chosen = self.mean.new_zeros(-(-self.n // step), self.d)
        for i in range(-first % step, self.samples.held, step):
            chosen[(first + i) // step] = self.block(slice(i, i + 1), torch.float64)[0]
        centred = self.samples.add_up(chosen)[0] - self._offset
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        kept = values > 1e-14 * values[-1]  # smaller ones are rounding
        vectors = centred.T @ (vectors[:, kept] / values[kept].sqrt())
        values = values[kept] / len(chosen)
        rest = None
        if step > 1:
            (squares,) = self.samples.add_up(self.row_squares.sum())
            trace = squares / self.n - self.mean.square().sum()
            rest = ((trace - values.sum()).clamp(min=0) / max(1, self.d - len(values))).float()
        return Spectrum(vectors.float().contiguous(), values.float(), rest)


class Spectrum:
    """Eigenvectors [d, r] and eigenvalues [r]; `rest` is that of all other directions, None where they do not count."""

    def __init__(self, vectors: Tensor, values: Tensor, rest: Tensor | None):
        self.vectors, self.values, self.rest = vectors, values, rest


class Forward:
    """The logits [P, K, m] of a block [m, d]."""

    def __init__(self, theta: Tensor, offset: Tensor):
        self._shape = theta.shape[:2]
        self._weights = theta[..., :-1].reshape(-1, theta.shape[2] - 1)
        self._intercept = (theta[..., -1].reshape(-1) - self._weights @ offset)[:, None]

    def __call__(self, block: Tensor) -> Tensor:
        return torch.addmm(self._intercept, self._weights, block.T).reshape(*self._shape, len(block))


class Backward:
    """The sum over samples of R_i (x_i - mean, 1)' for R [P, K, m] of each block."""

    def __init__(self, shape: torch.Size, offset: Tensor):
        self._shape, self._offset = shape, offset
        self._product = offset.new_zeros(shape[0] * shape[1], shape[2] - 1)
        self._sum = offset.new_zeros(shape[0] * shape[1], dtype=torch.float64)

    def add(self, residuals: Tensor, block: Tensor) -> None:
        """Add the samples of one block."""
        flat = residuals.reshape(-1, residuals.shape[2])
        self._product.addmm_(flat, block)
        self._sum += flat.sum(1, dtype=torch.float64)

    def total(self) -> Tensor:
        """Return the sum [P, K, d + 1] in the precision of the work."""
        total = self._sum.to(self._product.dtype)[:, None]
        return torch.cat([self._product - total * self._offset, total], 1).reshape(self._shape)
