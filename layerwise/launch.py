"""What torchrun, or whoever sets the same variables, told this process: its number, and how many there are."""

from __future__ import annotations

import os


def count() -> int:
    """Return how many processes the run has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def several() -> bool:
    """Return whether this process is one of several of a run."""
    return count() > 1


def number() -> int:
    """Return the number of this process in the run, from 0: its rank."""
    return int(os.environ.get("RANK", "0")) if several() else 0


def local_number() -> int:
    """Return the number of this process on its machine, from 0: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if several() else 0


def local_count() -> int:
    """Return how many processes of the run share this machine."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) if several() else 1
