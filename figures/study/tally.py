"""What is said of the networks of a study while they are worked on: how each went, and how long the rest will take."""

from __future__ import annotations

import logging
import time

from figures.study.grid import Piece

log = logging.getLogger("layerwise.study")


class Tally:
    """Says of each network that is through how it went and how long the rest will take."""

    def __init__(self, count: int):
        self.failures: dict[Piece, str] = {}
        self._count, self._through, self._begun = count, 0, time.perf_counter()

    def completed(self, unit: Piece, seconds: float) -> None:
        from layerwise.units import show_seconds

        place = self._place()
        rest = (time.perf_counter() - self._begun) / self._through * (self._count - self._through)
        after = f", about {show_seconds(rest)} left" if rest else ""
        log.info("%s  %s in %s%s", place, unit.name, show_seconds(seconds), after)

    def failed(self, unit: Piece, error: str) -> None:
        self.failures[unit] = error
        log.error("%s  %s failed: %s", self._place(), unit.name, error)

    def _place(self) -> str:
        self._through += 1
        return f"{self._through}/{self._count}"


def one_line(error: BaseException) -> str:
    """Return the message of an error, whatever lines it has; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
