"""Runs as a caller of Python gives them: paths, run files that are open already, or several of either."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from layerwise.errors import UsageError
from layerwise.runfile.reader import RunFile

Run = RunFile | Path | str
Runs = Run | Iterable[Run]


def several(runs: Runs) -> list[Run]:
    """Return one run, or many, as a list; raise UsageError where there is none, or something is no run."""
    if hasattr(runs, "columns"):  # a data frame is iterated by the names of its columns, which would pass for paths
        raise _no_run(runs)
    found = [runs] if isinstance(runs, os.PathLike | str) or not isinstance(runs, Iterable) else list(runs)
    if not found:
        raise UsageError("no run was given; expected at least one: its path, or what layerwise.open_run returns.")
    for run in found:
        path_of(run)
    return found


def path_of(run: Run) -> Path:
    """Return where a run lies; raise UsageError where it is none."""
    if isinstance(run, os.PathLike | str):
        return Path(run)
    raise _no_run(run)


def _no_run(found: object) -> UsageError:
    return UsageError(
        f"found {type(found).__name__} in the place of a run; expected the path of a run file, or what "
        "layerwise.open_run returns."
    )


def paths_of(runs: Runs) -> list[Path]:
    """Return where each of the given runs lies."""
    return [path_of(run) for run in several(runs)]


@contextmanager
def opened(run: Run) -> Iterator[RunFile]:
    """Yield a run that is open; one that was given open stays so, any other is closed afterwards."""
    if isinstance(run, RunFile) and not run.is_closed:
        yield run
        return
    with run.reopened() if isinstance(run, RunFile) else RunFile(path_of(run)) as found:
        yield found
