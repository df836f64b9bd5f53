"""The progress bar under a cell of a notebook: one line of HTML, written anew in its place, and gone at the end.

Neither rich nor tqdm draws there without ipywidgets; a display that is updated needs nothing but the notebook.
"""

from __future__ import annotations

import importlib
import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

# Seconds between two drawings: each is a message to the browser.
_EVERY = 0.25


class Line:
    """A line of HTML under a cell, which is there once it has a text, and is replaced by the next."""

    def __init__(self, display: Any):
        self._html, self._handle, self._is_there = display.HTML, display.DisplayHandle(), False

    def show(self, text: str) -> None:
        """Put a text in the place of the last; "" takes it away."""
        if self._is_there:
            self._handle.update(self._html(text))
        else:
            self._handle.display(self._html(text))
            self._is_there = True


# The line of the running cell, by its number: the bars of a call, one after the other, all stand there.
_lines: dict[int, Line] = {}


def notebook_line() -> Line | None:
    """Return the line under the running cell; None outside of a notebook."""
    if (package := sys.modules.get("IPython")) is None:
        return None
    shell: Any = package.get_ipython()
    if not hasattr(shell, "kernel"):  # a shell on a terminal
        return None
    if shell.execution_count not in _lines:
        _lines.clear()
        _lines[shell.execution_count] = Line(importlib.import_module(f"{package.__name__}.display"))
    return _lines[shell.execution_count]


@contextmanager
def notebook_bar(line: Line) -> Iterator[Progress]:
    """Yield a bar that keeps its tasks as rich's does, and shows them in a line under the cell."""
    from rich.console import Console
    from rich.progress import Progress

    drawn = 0.0

    class Bar(Progress):
        def update(self, *args: Any, **kwargs: Any) -> None:
            super().update(*args, **kwargs)
            self._draw()

        def advance(self, *args: Any, **kwargs: Any) -> None:
            super().advance(*args, **kwargs)
            self._draw()

        def _draw(self) -> None:
            nonlocal drawn
            if time.monotonic() - drawn >= _EVERY:
                drawn = time.monotonic()
                line.show(_html(self))

    try:
        yield Bar(console=Console(file=io.StringIO(), force_jupyter=False), disable=True)
    finally:
        if drawn:
            line.show("")


def _html(bar: Progress) -> str:
    """Return a line for each task: what is done, the bar, how many of how many, and the time left."""
    lines = []
    for task in bar.tasks:
        left = task.time_remaining
        minutes = "" if left is None else f", {int(left) // 60}:{int(left) % 60:02d} left"
        count = f"{task.completed:.0f} of {task.total:.0f}" if task.total else f"{task.completed:.0f}"
        lines.append(
            f"<div>{escape(task.description)} <progress value='{task.completed:.0f}' max='{task.total or 1:.0f}'>"
            f"</progress> {count}{minutes}</div>"
        )
    return "".join(lines)
