"""Processes that read files beside the one that computes: torch's DataLoader, whose items are whole pieces of work.

No number that is drawn comes from a process here, so their count changes no result.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

from layerwise.errors import UserError


class Reader(Protocol):
    """What each process does: a map-style data set that is asked for a piece at a time."""

    def __len__(self) -> int:
        """Return the number of files."""
        ...

    def __getitems__(self, piece: Any) -> Any:
        """Return what is read for a piece of work. What went wrong is returned, as a UserError, and not raised.

        DataLoader would raise it in the main process with the traceback of the other one as its message.
        """
        ...


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_by(reader: Reader, pieces: Sequence[Any], workers: int, ahead: int = 2) -> Iterator[Any]:
    """Yield what a reader returns for each piece, in their order, read by so many processes (0: by this one).

    ahead: pieces that each process reads before they are asked for.

    Raises UserError as the reader returned it, or where a process was killed.
    """
    for found in _items(reader, pieces, min(workers, len(pieces)), ahead):
        if isinstance(found, UserError):
            raise found
        yield found


def _items(reader: Reader, pieces: Sequence[Any], workers: int, ahead: int) -> Iterator[Any]:
    if not workers:
        yield from map(reader.__getitems__, pieces)
        return
    import torch
    from torch.utils.data import DataLoader

    # Forked processes share the names of all files; others (where there is no fork) each get a copy.
    methods = multiprocessing.get_all_start_methods()
    with warnings.catch_warnings():
        # Python 3.12 warns of forks of processes with threads. What runs in these takes no lock of another thread's.
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        # More processes than cores, which somebody asked for.
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        loader: DataLoader[Any] = DataLoader(
            cast(Any, reader), batch_sampler=pieces, num_workers=workers, prefetch_factor=ahead, collate_fn=_as_it_is,
            worker_init_fn=_deaf, multiprocessing_context="fork" if "fork" in methods else None,
            generator=torch.Generator(),  # whose own stream it draws a seed from, and not the training's
        )  # fmt: skip
        items = iter(loader)
    try:
        yield from items
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a process that reads images was killed, as systems do where memory runs out. Let other programs end, or "
            "read with fewer processes."
        ) from error


def _as_it_is(found: Any) -> Any:
    return found


def _deaf(number: int) -> None:
    """Leave Ctrl-C, which a terminal sends to all, to the main process, which ends the others in order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
