"""The samples that a fit is over: the rows of one process, or those of all ranks, each of which holds some of them.

Whoever adds over samples adds over the rows held here, and lets `Samples` add what the ranks found. All else (weights,
directions, step lengths, decisions) each rank computes for itself, by the same operations on the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from layerwise import ranks
from layerwise.errors import UserError

Value = TypeVar("Value")


class Samples:
    """How many samples there are, here and in all, and sums over all of them.

    Attributes:
        held: rows of this process. first: how many rows stand before them, on ranks of lower number.
        n: rows of all ranks. most: the most that one holds. ranks: how many hold some.

    Args:
        is_shared: whether other ranks hold rows of the same fit; all of them then make this at the same time.
    """

    def __init__(self, held: int, *, is_shared: bool = False):
        counts = _counts(held) if is_shared else [held]
        self.held, self.first = held, sum(counts[: ranks.rank()] if is_shared else [])
        self.n, self.most, self.ranks = sum(counts), max(counts), len(counts)

    def add_up(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """Return the sums over ranks of tensors of one number type, which travel as one message."""
        if self.ranks == 1 or not parts:
            return parts
        whole = ranks.add_up(torch.cat([part.reshape(-1) for part in parts]))
        sums = whole.split([part.numel() for part in parts])
        return tuple(one.view(part.shape) for one, part in zip(sums, parts, strict=True))

    def all_of(self, work: Callable[[], Value]) -> list[Value]:
        """Return what every rank makes of the rows it holds; what is wrong with those of one is raised on all."""
        return [work()] if self.ranks == 1 else ranks.all_attempted(work)

    def require_same(self, weights: Tensor) -> None:
        """Raise UserError where ranks hold other weights, float64: what their rows say is then of no one classifier.

        Equal processors compute equal bits. Sums of whole numbers are exact in any order.
        """
        if self.ranks == 1:
            return
        own = weights.contiguous().view(torch.int64).sum()
        lowest = ranks.least(torch.stack([own, -own]))
        if lowest[0] != -lowest[1]:
            raise UserError(f"the ranks computed different weights from the same sums, {_DIFFERENT}")


_DIFFERENT = (
    "so nothing is proved of them: their processors or libraries are of different kinds. Run probe-depth on machines "
    "of one kind, or without torchrun."
)


def _counts(held: int) -> list[int]:
    """Return how many rows each rank holds; raise UserError where ranks are known to round differently.

    Of what no rank knows beforehand `require_same` is the judge; but until then each decides by its own numbers how
    many sums it takes part in, and those of another kind would wait for each other.
    """
    kind = (torch.__version__, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())
    every = ranks.all_of((held, kind))
    if len({kind for _, kind in every}) > 1:
        told = "; ".join(f"rank {r}: torch {a}, {b}, {c} threads" for r, (_, (a, b, c)) in enumerate(every))
        raise UserError(f"the ranks would compute different weights from the same sums ({told}), {_DIFFERENT}")
    return [count for count, _ in every]
