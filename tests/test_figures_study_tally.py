"""The tally of a study: one bar with the networks at work, done and left; a line for each that is through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rich.progress import Progress

from figures.study import tally as tallies
from figures.study.definition import Unit
from figures.study.tally import Tally
from layerwise import commandline

FIRST, SECOND, THIRD = (Unit(k=1, width=4, mode="greedy", seed=seed) for seed in range(3))


@pytest.fixture
def bar(monkeypatch: pytest.MonkeyPatch) -> Progress:
    """Return the bar that the tally fills, which is not drawn."""
    shown = Progress(disable=True, speed_estimate_period=float("inf"))

    @contextmanager
    def progress(estimated_over: float) -> Iterator[Progress]:
        yield shown

    monkeypatch.setattr(tallies, "progress", progress)
    return shown


def test_the_bar_names_the_networks_at_work_and_counts_those_through(bar: Progress) -> None:
    with Tally(3) as tally:
        (task,) = bar.tasks
        tally.begun(FIRST)
        tally.begun(SECOND)
        assert (task.description, task.completed, task.total) == (f"{FIRST.name}, {SECOND.name}", 0, 3)
        tally.completed(FIRST, 2.0)
        assert (task.description, task.completed) == (SECOND.name, 1)
        tally.failed(SECOND, "no")
        tally.begun(THIRD)
        assert (task.description, task.completed) == (THIRD.name, 2)
        assert task.time_remaining is not None
    assert tally.failures == {SECOND: "no"}


def test_where_there_is_no_terminal_each_network_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    commandline.set_verbosity(quiet=False, verbose=False)
    with Tally(2) as tally:
        for unit in (FIRST, SECOND):
            tally.begun(unit)
            tally.completed(unit, 2.0)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"1/2  {FIRST.name} in 2 s, about ")
    assert first.endswith(" left")
    assert second == f"2/2  {SECOND.name} in 2 s"
