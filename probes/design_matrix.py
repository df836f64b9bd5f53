"""Owns the products with the feature matrix: float32 for the bulk of the work, float64 where a proof needs it.

Everything here has the problem's outputs first and the samples last, [q, n]. That orientation was measured (two
CPU cores, n = 50,000, d = 1,024): `R @ X` with 10 rows takes 0.03 s, where `X.T @ R.T` takes 0.2 to 0.9 s unless
its columns are padded to 16, and a softmax over the classes of [100, n] takes 0.002 s, where [n, 100] takes 0.075 s.
So nothing needs padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

_CHUNK_VALUES = 1 << 20  # a float64 copy of a chunk of rows is 8 MiB and stays in the cache


class DesignMatrix:
    """Features [n, d], seen centred, without a second copy of them.

    Centring changes only the meaning of the intercept, which is not penalised, so the problem stays the same;
    it makes the curvature of weights and intercept separate at the start. float32 input is used in place;
    float64 input gets one float32 copy (already centred); narrower input is widened once, which is exact.

    Attributes:
        exact: [n, d], the features as given; float64 products read this.
        mean: [d] float64.
        row_norm: the root mean square of the rows' Euclidean norms, before centring.
    """

    def __init__(self, features: Tensor) -> None:
        wide = features.dtype == torch.float64
        self.exact = features if wide else features.float()
        self.n, self.d = features.shape
        self.mean = sum((c.sum(0) for _, c in self._chunks()), torch.zeros((), device=features.device)) / self.n
        self.row_norm = math.sqrt(sum(float(c.square().sum()) for _, c in self._chunks()) / self.n)
        self._bulk = (features - self.mean).float() if wide else self.exact
        self._bulk_mean = torch.zeros_like(self.mean) if wide else self.mean

    @property
    def rows_per_chunk(self) -> int:
        """Return how many samples one float64 product covers."""
        return min(self.n, max(1, _CHUNK_VALUES // self.d), 1 << 13)

    def _chunks(self) -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, self.n, self.rows_per_chunk):
            rows = slice(start, min(start + self.rows_per_chunk, self.n))
            yield rows, self.exact[rows].double()

    def logits(self, weights: Tensor) -> Tensor:
        """Return weights [..., d] times the centred features, [..., n], in the precision of the weights."""
        flat = weights.reshape(-1, self.d)
        if weights.dtype == torch.float64:
            product = flat.new_empty(len(flat), self.n)
            for rows, chunk in self._chunks():
                product[:, rows] = flat @ chunk.T
            product -= (flat @ self.mean)[:, None]
        else:
            product = flat @ self._bulk.T
            product -= (flat @ self._bulk_mean.float())[:, None]
        return product.reshape(*weights.shape[:-1], self.n)

    def correlate(self, residuals: Tensor) -> Tensor:
        """Return the mean over samples of residuals [..., n] times centred features: [..., d], same precision."""
        flat = residuals.reshape(-1, self.n)
        totals = flat.sum(1, keepdim=True)
        if residuals.dtype == torch.float64:
            product = flat.new_zeros(len(flat), self.d)
            for rows, chunk in self._chunks():
                product += flat[:, rows] @ chunk
            product -= totals * self.mean
        else:
            product = flat @ self._bulk - totals * self._bulk_mean.float()
        return (product / self.n).reshape(*residuals.shape[:-1], self.d)

    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Return the eigenvectors [d, r] and eigenvalues [r] of the centred Gram matrix X'X/n, in float32.

        r = d, or, with more features than samples, the rank: then the n x n matrix XX' is decomposed instead,
        which spans the same directions, the only ones a penalised solution can have.
        """
        return self._gram_spectrum() if self.d <= self.n else self._kernel_spectrum()

    def _gram_spectrum(self) -> tuple[Tensor, Tensor]:
        gram = self.mean.new_zeros(self.d, self.d)
        step = max(self.rows_per_chunk, self.d)
        for start in range(0, self.n, step):
            chunk = self._bulk[start : start + step] - self._bulk_mean.float()
            gram += (chunk.T @ chunk).double()
        values, vectors = torch.linalg.eigh(gram / self.n)
        return vectors.float().contiguous(), values.clamp(min=0).float()

    def _kernel_spectrum(self) -> tuple[Tensor, Tensor]:
        centred = torch.cat([chunk - self.mean for _, chunk in self._chunks()])
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        kept = values > 1e-14 * values[-1]  # smaller ones are rounding
        vectors = centred.T @ (vectors[:, kept] / values[kept].sqrt())
        return vectors.float().contiguous(), (values[kept] / self.n).float()
