"""The float16 decision: which depths of a run file are kept in float16, and which in float32.

float16 halves the file and every later read of it. It has 11 significant bits, as many as TF32 has,
and its largest number is 65504: a depth with a larger value is kept in float32.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

FLOAT16_MAX = float(np.finfo(np.float16).max)


class Float16Check:
    """Decides for one depth whether float16 holds it, from every batch of every split.

    It looks at values while they are written, so that the data are computed once where float16 holds them, as it does
    for nearly every depth.
    """

    def __init__(self) -> None:
        self.largest = 0.0

    def look(self, x: Tensor) -> None:
        """Take the next values of x_j, in float32 and of any shape."""
        if x.numel():
            self.largest = float(np.maximum(self.largest, largest_magnitude(x)))  # which keeps NaN, as max does not

    @property
    def fits(self) -> bool:
        """Whether float16 holds all values so far."""
        return self.largest <= FLOAT16_MAX


def largest_magnitude(x: Tensor) -> float:
    """Return the largest |x|; NaN where one value is.

    Two reductions, since the absolute value of everything would be one more tensor of the size of x.
    """
    return float(torch.maximum(x.amax(), -x.amin()))


def dtype_of(j: int, in_float32: frozenset[int]) -> torch.dtype:
    """Return the number type in which depth j is kept."""
    return torch.float32 if j in in_float32 else torch.float16
