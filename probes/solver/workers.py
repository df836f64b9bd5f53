"""Blocks of rows divided among the cores: each worker multiplies whole blocks with one thread.

Blocks that stay in the cache are small, and OpenMP would wake its threads for every operation on one. Measured on two
cores with 50,000 samples of 1,024 features, a product with the Hessian takes 0.028 s for 10 columns and 0.126 s for
100 so, against 0.048 s and 0.165 s with threads inside each operation.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier

import torch
from torch import Tensor

from probes.solver.samples import Samples

Sums = tuple[Tensor, ...]


class Workers:
    """As many threads as torch would use on a CPU; on another device the caller's thread alone.

    The sums depend on the number of threads, and on nothing else.

    Args:
        samples: whose blocks are summed; of samples that ranks share, a sum is over all ranks.
    """

    def __init__(self, device: torch.device, samples: Samples):
        self._samples = samples
        self._count = torch.get_num_threads() if device.type == "cpu" else 1
        self._pool: ThreadPoolExecutor | None = None

    def sum(self, blocks: list[slice], work: Callable[[list[slice]], Sums]) -> Sums:
        """Return the sums of what the work returns for the parts of a list of blocks."""
        return self._samples.add_up(*self._sum(blocks, work))

    def _sum(self, blocks: list[slice], work: Callable[[list[slice]], Sums]) -> Sums:
        count = min(self._count, len(blocks))
        if count < 2:
            return work(blocks)
        ends = [i * len(blocks) // count for i in range(count + 1)]
        shares = [blocks[a:b] for a, b in pairwise(ends)]
        parts = list(self._started().map(work, shares))
        return tuple(sum(column[1:], column[0]) for column in zip(*parts, strict=True))

    def _started(self) -> ThreadPoolExecutor:
        if self._pool is None:
            # What a thread sets holds for itself, once it has asked for it, and for threads that have not asked yet:
            # so all ask before the caller's number is set again.
            self._pool, meeting = ThreadPoolExecutor(self._count), Barrier(self._count)
            list(self._pool.map(_use_one_thread, [meeting] * self._count))
            torch.set_num_threads(self._count)
        return self._pool


def _use_one_thread(meeting: Barrier) -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()
    meeting.wait()
