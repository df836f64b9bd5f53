"""The float16 decision: which depths of a run file are kept in float16, and which in float32.

float16 halves the file and every later read of it. It has 11 significant bits, as many as TF32 has, its largest number
is 65504, and its smallest is 6e-8. Probes standardise each feature, so what counts of an error is its size beside the
feature's own deviation: features of 1e-8, or of 1000 +- 0.1, are lost in float16 although their values fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

FLOAT16_MAX = float(np.finfo(np.float16).max)
# Below this the values of a feature are a few of float16's smallest steps, or none.
TINY = 1e-6
# The most that rounding may move a standardised feature, root mean square over samples. The noise is then 1e-5 of the
# feature's variance. Features of trained networks move by 2e-4 to 1.7e-3, the most in A x_1 (digits, and 5,000 images
# of Fashion-MNIST): at 1e-3 most runs would keep depth 1 in float32, and write all depths twice, for nothing.
SHARE = 3e-3


class Float16Check:
    """Decides for one depth whether float16 holds it, from every batch of every split.

    It looks at values while they are written, so that the data are computed once where float16 holds them, as it does
    for nearly every depth.
    """

    def __init__(self) -> None:
        self.largest = 0.0
        self._features: dict[str, _Features] = {}

    def look(self, x: Tensor) -> None:
        """Take the next values of x_j, in float32 and of any shape."""
        if x.numel():
            self.largest = float(np.maximum(self.largest, largest_magnitude(x)))  # which keeps NaN, as max does not

    def compare(self, kind: str, x: Tensor) -> None:
        """Take the next rows that are written, float32 [n, ...], to compare them with what float16 makes of them.

        kind: "pooled" and "class_token", of which each number is a feature, or "maps", of which each channel is one.
        """
        if len(x):
            self._features.setdefault(kind, _Features()).add(x.transpose(0, 1) if kind == "maps" else x.flatten(1).T)

    @classmethod
    def of_all(cls, checks: Sequence[Float16Check]) -> Float16Check:
        """Return what one check would have seen of the values of several, as ranks have them."""
        joint = cls()
        for check in checks:
            joint.largest = float(np.maximum(joint.largest, check.largest))
            for kind, features in check._features.items():
                joint._features.setdefault(kind, _Features()).merge(features)
        return joint

    @property
    def fits(self) -> bool:
        """Whether all values so far are within float16's range."""
        return self.largest <= FLOAT16_MAX

    def loss(self) -> str | None:
        """Return what float16 would lose of the depth, in words, or None where it holds it."""
        if not self.fits:
            return f"values up to {self.largest:.3g}"
        worst = max((features.moved() for features in self._features.values()), default=0.0)
        return f"features moved by up to {worst:.2g} of their deviation" if worst > SHARE else None


class _Features:
    """Deviation of each feature, and of its rounding error, over batches (Chan, Golub and LeVeque 1983)."""

    def __init__(self) -> None:
        self._n = 0
        self._mean = self._squares = self._errors = self._largest = torch.zeros(())

    def add(self, x: Tensor) -> None:
        """Take the next values, float32 [features, ...]."""
        x = x.flatten(1)
        error = (x - x.half().float()).square_().mean(1).double()
        variance, mean = torch.var_mean(x, 1, correction=0)
        m = x.shape[1]
        self._join(m, mean.double(), variance.double() * m, error * m, x.abs().amax(1))

    def merge(self, other: _Features) -> None:
        """Take the values that another has taken."""
        if other._n:
            self._join(other._n, other._mean, other._squares, other._errors, other._largest)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another rank is told, whose device is another one."""
        return {name: value.cpu() if isinstance(value, Tensor) else value for name, value in vars(self).items()}

    def _join(self, m: int, mean: Tensor, squares: Tensor, errors: Tensor, largest: Tensor) -> None:
        n, device = self._n, mean.device
        apart = mean - self._mean.to(device)
        self._mean = self._mean.to(device) + apart * m / (n + m)
        self._squares = self._squares.to(device) + squares + apart.square() * n * m / (n + m)
        self._errors = self._errors.to(device) + errors
        self._largest = torch.maximum(self._largest.to(device), largest)
        self._n += m

    def moved(self) -> float:
        """Return the largest root mean square error of a feature in units of its deviation; infinity where all is lost.

        A constant feature has no deviation and is none to any probe.
        """
        is_tiny = (self._largest > 0) & (self._largest < TINY)
        if bool(is_tiny.any()):
            return float("inf")
        shares = (self._errors / self._squares)[self._squares > 0].sqrt()
        return float(shares.max()) if len(shares) else 0.0


def largest_magnitude(x: Tensor) -> float:
    """Return the largest |x|; NaN where one value is.

    Two reductions, since the absolute value of everything would be one more tensor of the size of x.
    """
    return float(torch.maximum(x.amax(), -x.amin()))


def asked_in_float32(depths: Iterable[int], dtype: str) -> frozenset[int]:
    """Return the depths that a user's `dtype` ("auto", "float16" or "float32") keeps in float32, whatever they hold."""
    return frozenset(depths) if dtype == "float32" else frozenset()


def dtype_of(j: int, in_float32: frozenset[int]) -> torch.dtype:
    """Return the number type in which depth j is kept."""
    return torch.float32 if j in in_float32 else torch.float16
