"""One sweep over the depths of a run: what is fitted already, what is left; each depth is saved when it is finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from layerwise import ranks
from layerwise.commandline import if_stopped
from layerwise.runfile import RunFile
from probes.probe import Family, ProbeName
from probes.results.comparisons import compare
from probes.results.table import check_files, read_rows, rows_of, save, table_path
from probes.tasks.task import Task


def sweep(run: RunFile, task: Task, family: Family, depths: Sequence[int], *, force: bool = False) -> int:
    """Fit the probes of a family at the given depths and keep their rows; return how many probes were fitted.

    All ranks do it together; rank 0 alone reads and writes what stands beside the run.

    A probe whose rows are in the table, by the present protocol and recipe, is left alone unless `force`: it would
    only read the test split once more. What was fitted before an interruption is thus not fitted again.
    """
    ranks.by_first(lambda: check_files(run.path))
    left = ranks.by_first(lambda: missing(run, family, depths, force=force))
    saved = 0

    def kept() -> str:
        if force:
            go_on = "the same command fits all of them again"
        else:
            go_on = f"the same command {'goes on with the others' if saved else 'begins with the first'}"
        return f"Of {family.title}, {saved} of {len(left)} depths are in {table_path(run.path)}; {go_on}."

    try:
        with if_stopped(kept):
            if left:
                family.prepare(left)
            for _, fitted in family.each(list(left), lambda depth: family.fit(depth, left[depth])):
                if ranks.rank() == 0:
                    save(run, task, fitted)
                saved += 1
    finally:  # also of a sweep that is stopped: no comparison with an earlier fit stays beside a new one
        if ranks.rank() == 0:
            compare(run)
    return sum(len(wanted) for wanted in left.values())


def missing(
    run: RunFile, family: Family, depths: Sequence[int], *, force: bool = False
) -> Mapping[int, list[ProbeName]]:
    """Return the probes of a family that are still to be fitted, by depth; all of them with `force`."""
    table = read_rows(run)
    left = {
        depth: [name for name in family.names(depth) if force or _own(table, family, name).empty] for depth in depths
    }
    return {depth: names for depth, names in left.items() if names}


def rows_at(run: RunFile, family: Family, depths: Sequence[int]) -> pd.DataFrame:
    """Return the rows of a family at the given depths, in the order of its names."""
    table = read_rows(run)
    return pd.concat([_own(table, family, name) for depth in depths for name in family.names(depth)])


def _own(table: pd.DataFrame, family: Family, name: ProbeName) -> pd.DataFrame:
    return rows_of(table, name, family.iterations, family.batch_size)
