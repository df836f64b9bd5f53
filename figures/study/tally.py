"""What is said of the networks of a study while they are worked on: how each went, and how long the rest will take."""

from __future__ import annotations

import logging
import math
import time
from contextlib import AbstractContextManager
from typing import Any

from figures.study.grid import Piece
from layerwise.commandline import progress

log = logging.getLogger("layerwise.study")


class Tally(AbstractContextManager["Tally"]):
    """Says of each network that is through how it went and how long the rest will take; shows the bar meanwhile."""

    def __init__(self, count: int):
        self.failures: dict[Piece, str] = {}
        self._count, self._through, self._begun = count, 0, time.perf_counter()
        self._at_work: list[str] = []

    def __enter__(self) -> Tally:
        self._progress = progress(estimated_over=math.inf)
        self._bar = self._progress.__enter__()
        self._task = self._bar.add_task("", total=self._count)
        return self

    def __exit__(self, *stopped_by: Any) -> None:
        self._progress.__exit__(*stopped_by)

    def begun(self, unit: Piece) -> None:
        """Show a network that is worked on from now on."""
        self._at_work.append(unit.name)
        self._bar.update(self._task, description=", ".join(self._at_work))

    def completed(self, unit: Piece, seconds: float) -> None:
        from layerwise.units import show_seconds

        place = self._place(unit)
        rest = (time.perf_counter() - self._begun) / self._through * (self._count - self._through)
        after = f", about {show_seconds(rest)} left" if rest else ""
        log.info("%s  %s in %s%s", place, unit.name, show_seconds(seconds), after)

    def failed(self, unit: Piece, error: str) -> None:
        self.failures[unit] = error
        log.error("%s  %s failed: %s", self._place(unit), unit.name, error)

    def _place(self, unit: Piece) -> str:
        """Count a network that is through, and return its place among all."""
        self._through += 1
        if unit.name in self._at_work:
            self._at_work.remove(unit.name)
        self._bar.update(self._task, advance=1, description=", ".join(self._at_work))
        return f"{self._through}/{self._count}"
