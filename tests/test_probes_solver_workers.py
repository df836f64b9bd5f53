"""Blocks divided among threads: the same sums, and no trace on the threads of torch."""

from __future__ import annotations

import pytest
import torch

from probes.solver.samples import Samples
from probes.solver.workers import Workers


@pytest.fixture(params=[1, 2, 3])
def workers(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield Workers(torch.device("cpu"), Samples(7))
    torch.set_num_threads(before)


def counted(blocks):
    return torch.tensor(float(sum(b.stop - b.start for b in blocks))), torch.tensor([b.start for b in blocks]).sum()


@pytest.mark.parametrize("n_blocks", [1, 2, 7])
def test_every_block_is_summed_once(workers, n_blocks):
    blocks = [slice(3 * i, 3 * i + 3) for i in range(n_blocks)]
    for _ in range(2):
        size, starts = workers.sum(blocks, counted)
        assert (size, starts) == (3 * n_blocks, sum(b.start for b in blocks))


def test_work_without_a_result_is_done(workers):
    seen = []
    assert workers.sum([slice(i, i + 1) for i in range(5)], lambda blocks: (seen.extend(blocks), ())[1]) == ()
    assert sorted(b.start for b in seen) == list(range(5))


def test_workers_use_one_thread_each_and_the_caller_keeps_its_own(workers):
    before = torch.get_num_threads()
    blocks = [slice(i, i + 1) for i in range(before)]
    for _ in range(3):
        (threads,) = workers.sum(blocks, lambda _: (torch.tensor(torch.get_num_threads()),))
        assert threads == before
    assert torch.get_num_threads() == before


def test_a_failure_in_a_worker_is_the_callers(workers):
    def fail(blocks):
        raise ValueError("block 0")

    with pytest.raises(ValueError, match="block 0"):
        workers.sum([slice(0, 1), slice(1, 2)], fail)
