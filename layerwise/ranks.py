"""The processes of one run: torchrun starts them, each holds a number, its rank, and they work on the same steps.

    torchrun --nproc-per-node 8 --no-python layerwise-train imagenet-k3 --data-dir DIR

Without torchrun there is one process, of rank 0, and nothing here does anything. Messages go through torch.distributed:
nccl between GPUs, gloo between CPUs.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from layerwise import launch
from layerwise.errors import EndedElsewhere, UserError

Thing = TypeVar("Thing")
Value = TypeVar("Value")

# The longest that a rank waits for another: rank 0 alone writes a file that may be tens of gigabytes, and a rank that
# is done waits for one that is still at the CNN probes of its depth. A rank that died is noticed at once, by its closed
# connection, so that this is no time to wait for the dead.
PATIENCE = timedelta(days=7)


def world() -> int:
    """Return how many ranks there are; 1 without torchrun, and for what a rank does alone."""
    return dist.get_world_size() if _is_joint() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if _is_joint() else 0


_is_alone = False  # whether this rank does something that no other knows of


def _is_joint() -> bool:
    return dist.is_initialized() and not _is_alone


@contextmanager
def _alone() -> Iterator[None]:
    """Work in the block as one process without ranks does."""
    global _is_alone
    _is_alone = True
    try:
        yield
    finally:
        _is_alone = False


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Work as one rank of those that torchrun started, on devices of this kind; alone where it started none.

    What ends one ends all, and one of them says what it was, in one line; the others raise EndedElsewhere.
    """
    if not launch.several():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # by which what travels pickled goes
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    except BaseException as error:
        if (spoken := _spoken_for_all(error)) is error:
            raise
        raise spoken from error
    finally:
        dist.destroy_process_group()


def _spoken_for_all(error: BaseException) -> BaseException:
    """Return what this rank raises of what ended it: the error itself on the rank that is to say it.

    Ranks tell each other through torchrun's store, which outlives them, or without torchrun through the first rank's.
    What several ended by alike, such as a loss that is not finite, the first of them says. Where others were merely
    left, the first says which rank is missing.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):  # torchrun ends the others as soon as one is gone
        signal.signal(signum, signal.SIG_IGN)
    own, said = rank(), "" if _is_left(error) else f"{type(error).__name__}: {error}"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = dist.TCPStore(  # type: ignore[attr-defined]
            address, port, is_master=False, timeout=timedelta(seconds=_ROLL_CALL)
        )
        store.set(f"ended/{own}", said or _LEFT)
        ended = _ended(store)
    except dist.DistError:  # without torchrun the store is the first rank's, and ends with it
        return error if said else _missing([0])
    if said:
        first = min(r for r, words in ended.items() if words == said)
        others = any(words not in (said, _LEFT) for words in ended.values())
        if own > first:
            return EndedElsewhere(said)
        return type(error)(f"rank {own}: {error}") if isinstance(error, UserError) and (own or others) else error
    if own > min(ended) or any(words != _LEFT for words in ended.values()):
        return EndedElsewhere(f"what ended another rank ended rank {own}")
    missing = [r for r in range(world()) if r not in ended]
    return _missing(missing) if missing else error


def _missing(numbers: Sequence[int]) -> UserError:
    which = f"rank {numbers[0]}" if len(numbers) == 1 else f"ranks {', '.join(map(str, numbers))}"
    return UserError(
        f"{which} of {world()} ended without a word: killed, or out of memory? What was finished is kept; the same "
        "command goes on from there, with any number of ranks."
    )


_LEFT = "left"
_ROLL_CALL = 2.0  # seconds in which every rank that lives notices that another does not, and says so


def _is_left(error: BaseException) -> bool:
    """Return whether an error is no more than that others are gone, or a signal."""
    return (
        not isinstance(error, Exception)
        or isinstance(error, dist.DistError | EndedElsewhere)
        or (isinstance(error, RuntimeError) and "gloo" in str(error))
    )


def _ended(store: Any) -> dict[int, str]:
    """Return by rank what ended it, of those that say so within _ROLL_CALL."""
    found: dict[int, str] = {}
    until = time.monotonic() + _ROLL_CALL
    while len(found) < world() and time.monotonic() < until:
        for r in (r for r in range(world()) if r not in found and store.check([f"ended/{r}"])):
            found[r] = store.get(f"ended/{r}").decode()
        time.sleep(0.05)
    return found


def share(n: int) -> slice:
    """Return this rank's share of n rows: those that leave `rank` when divided by `world`."""
    return slice(rank(), n, world())


def stretch(n: int) -> slice:
    """Return this rank's stretch of n things in a row: stretches follow each other and differ by one at most."""
    return slice(n * rank() // world(), n * (rank() + 1) // world())


def in_turns(own: Iterator[Tensor], like: Tensor, sizes: Sequence[int]) -> Iterator[Tensor]:
    """Yield on every rank what was computed of all batches, in their order, where ranks take batches in turns.

    own: what this rank computed of its batches, each [n, *like.shape]. sizes: n of every batch.
    """
    for start in range(0, len(sizes), world()):
        computed = next(own, None)
        for turn, n in enumerate(sizes[start : start + world()]):
            is_own = turn == rank() and computed is not None
            found = computed.contiguous() if is_own and computed is not None else like.new_empty(n, *like.shape)
            if world() > 1:
                dist.broadcast(found, turn)
            yield found


def all_of(value: Value) -> list[Value]:
    """Return the values of all ranks, by their number; they travel pickled."""
    found: list[Value | None] = [None] * world()
    if world() == 1:
        return [value]
    dist.all_gather_object(found, value)
    return found  # type: ignore[return-value]


def all_attempted(work: Callable[[], Value]) -> list[Value]:
    """Return what every rank's work gave, by their number; the first UserError of one is raised on all."""
    return [_given(one) for one in all_of(_attempted(work))]


def dealt(things: Sequence[Thing], work: Callable[[Thing], Value]) -> Iterator[tuple[Thing, Value]]:
    """Yield on rank 0 what was made of each thing, in their order; ranks take them in turns, each alone at its own.

    The others yield nothing. A UserError is raised on rank 0 when all before it are yielded. What is made travels
    pickled.
    """
    for i, thing in enumerate(things):
        worker = i % world()
        found = None
        if rank() == worker:
            with _alone():
                found = _attempted(functools.partial(work, thing))
        if rank() == 0:
            yield thing, _given(found if worker == 0 else _received(worker))
        elif rank() == worker:
            dist.send_object_list([found], 0)
            if isinstance(found, UserError):
                return  # to wait for rank 0, which says it and ends all


def _attempted(work: Callable[[], Value]) -> Value | UserError:
    """Return what work gives, or the UserError that it ends by, to be sent."""
    try:
        return work()
    except UserError as error:
        return error


def _given(value: Value | UserError | None) -> Value:
    """Return what was made, or raise what its maker ended by."""
    if isinstance(value, UserError):
        raise value
    return value  # type: ignore[return-value]


def _received(sender: int) -> Any:
    found = [None]
    dist.recv_object_list(found, sender)
    return found[0]


def add_up(tensor: Tensor) -> Tensor:
    """Put the sum over ranks into a tensor, in place, and return it. Every rank has the same bits then."""
    if world() > 1:
        dist.all_reduce(tensor)
    return tensor


def gathered(tensor: Tensor) -> Tensor:
    """Return the ranks' tensors of one shape as [world, ...], the same on all."""
    if world() == 1:
        return tensor[None]
    every = tensor.new_empty(world(), *tensor.shape)
    dist.all_gather(list(every), tensor)
    return every


def least(tensor: Tensor) -> Tensor:
    """Put the smallest of the ranks' values into a tensor, in place, and return it."""
    if world() > 1:
        dist.all_reduce(tensor, op=dist.ReduceOp.MIN)
    return tensor


def average_gradients(parameters: Sequence[Tensor], n: int) -> None:
    """Divide the sum of the ranks' gradients of each parameter by the sum of their n, by one message for all.

    A rank without a row of the batch may have no gradient: it counts as 0.
    """
    if world() == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    own = [*(gradient.flatten() for gradient in gradients), gradients[0].new_full((1,), n)]
    *parts, total = add_up(torch.cat(own)).split([one.numel() for one in own])
    for gradient, part in zip(gradients, parts, strict=True):
        torch.div(part.view_as(gradient), total[0], out=gradient)


def agreed(decision: bool) -> bool:
    """Return rank 0's decision on all ranks: a clock, say, differs from one to the next."""
    return bool(by_first(lambda: decision))


@torch.no_grad()
def same_on_all(tensors: Iterable[Tensor]) -> None:
    """Put rank 0's values into the tensors of all ranks, in place."""
    for tensor in tensors if world() > 1 else ():
        whole = tensor.contiguous()  # itself, but where its memory has another order, such as channels last
        dist.broadcast(whole, 0)
        if whole is not tensor:
            tensor.copy_(whole)


def of_machine(work: Callable[[], Value]) -> Value:
    """Let the first rank of each machine do some work; return to every rank what that of its machine returned.

    Ranks of a machine are numbered in a row, as torchrun and Slurm do. What is returned travels pickled. An error of
    the work is raised on the rank that did it, and ends the others without a word.
    """
    done: tuple[bool, Any] = (False, None)
    first = rank() - launch.local_number()
    try:
        if rank() == first or world() == 1:
            done = (True, work())
    finally:
        every = all_of(done)
    succeeded, value = every[first if world() > 1 else 0]
    if not succeeded:
        raise EndedElsewhere(f"rank {first} ended, and has said why")
    return value


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
