"""Bytes and seconds as text, read and written: "8GB", "12.3 MB", "3.5 min"."""

from __future__ import annotations

import re

from layerwise.errors import UsageError

# Most that a run file takes unless more is allowed: as commands show it, and in bytes.
DEFAULT_SIZE, DEFAULT_MAX_SIZE = "8GB", 8 * 10**9


def show_seconds(seconds: float) -> str:
    """Return a duration in the unit that suits it: "0.04 s", "12 s", "3.5 min", "2.1 h"."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def parse_size(text: str) -> int:
    """Return the bytes that a text like "8GB" or "500 MB" names (powers of 1000)."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*([KMGT]?B)\s*", text.upper())
    try:
        return int(float(match[1]) * UNITS[match[2]])  # type: ignore[index]
    except (TypeError, ValueError, OverflowError):
        raise UsageError(
            f"size {text!r} is not understood; write a number with a unit, such as 500MB or 8GB."
        ) from None


def show_size(count: float) -> str:
    """Return a number of bytes in the largest unit that leaves at least 1: "12.3 MB"."""
    for unit in ("TB", "GB", "MB", "KB"):
        if count >= UNITS[unit]:
            return f"{count / UNITS[unit]:.1f} {unit}"
    return f"{count:.0f} B"
