"""The processes of one run: torchrun starts them, each holds a number, its rank, and they work on the same steps.

    torchrun --nproc-per-node 8 --no-python layerwise-train imagenet-k3 --data-dir DIR

Without torchrun there is one process, of rank 0, and nothing here does anything. Messages go through torch.distributed:
nccl between GPUs, gloo between CPUs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from layerwise.errors import UserError

Value = TypeVar("Value")

# The longest that a rank waits for another: rank 0 alone writes a file that may be tens of gigabytes. A rank that died
# is noticed at once, by its closed connection, so that this is no time to wait for the dead.
PATIENCE = timedelta(hours=6)


class EndedElsewhere(UserError):
    """Another rank failed, and has said why; this one ends with it."""


def world() -> int:
    """Return how many ranks there are; 1 without torchrun."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def started_by_torchrun() -> bool:
    """Whether this process is one of several that torchrun, or a tool that sets what it sets, started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """Return the number of this process on its machine: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Work as one rank of those that torchrun started, on a device of this kind; alone where it started none."""
    if not started_by_torchrun():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):  # of which the connection to another is closed
            raise EndedElsewhere("another rank ended, and this one with it") from error
        raise
    finally:
        dist.destroy_process_group()


def share(n: int) -> slice:
    """Return this rank's share of n rows: those that leave `rank` when divided by `world`."""
    return slice(rank(), n, world())


def add_up(tensor: Tensor) -> Tensor:
    """Put the sum over ranks into a tensor, in place, and return it. Every rank has the same bits then."""
    if world() > 1:
        dist.all_reduce(tensor)
    return tensor


def least(tensor: Tensor) -> Tensor:
    """Put the smallest of the ranks' values into a tensor, in place, and return it."""
    if world() > 1:
        dist.all_reduce(tensor, op=dist.ReduceOp.MIN)
    return tensor


def add_up_gradients(parameters: Sequence[Tensor]) -> None:
    """Put the sum over ranks into the gradient of each parameter, by one message for all of one number type.

    A rank without a row of the batch may have no gradient: it counts as 0.
    """
    if world() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    joint = add_up(torch.cat([gradient.flatten() for gradient in gradients]))
    for gradient, part in zip(gradients, joint.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def agreed(decision: bool) -> bool:
    """Return rank 0's decision on all ranks: a clock, say, differs from one to the next."""
    return bool(by_first(lambda: decision))


@torch.no_grad()
def same_on_all(tensors: Iterable[Tensor]) -> None:
    """Put rank 0's values into the tensors of all ranks, in place."""
    if world() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def by_first(work: Callable[[], Value]) -> Value:
    """Let rank 0 do some work, the others wait, and return what it returned to all.

    What is returned travels pickled. An error of the work is raised on rank 0, and ends the others without a word.
    """
    if world() == 1:
        return work()
    found: list[tuple[bool, Value | None]] = [(False, None)]
    if rank() == 0:
        try:
            found[0] = (True, work())
        finally:
            dist.broadcast_object_list(found)
    else:
        dist.broadcast_object_list(found)
    succeeded, value = found[0]
    if not succeeded:
        raise EndedElsewhere("rank 0 ended, and has said why")
    return value  # type: ignore[return-value]
