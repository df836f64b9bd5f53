"""Owns that torch's random streams stand, after what draws from them here, where the caller left them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_random_stream() -> Iterator[None]:
    """Put torch's random streams, on all devices in use, back after the block to where they were before it."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        yield
