"""Comparisons of the probes of one run on the same test images, as rows beside theirs.

- gain: accuracy at a depth minus that at the depth before, with a paired bootstrap interval; gain_p: exact McNemar
  p-value; gain_p_holm: adjusted by Holm over the comparisons of one probe of one run.
- teacher_gap: accuracy on the class minus that on the teacher's labels, with a paired bootstrap interval.

They are computed again whenever a probe of the run was fitted, since each belongs to two fits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from layerwise.publication import is_there
from layerwise.runfile import RunFile
from probes.probe import ProbeName
from probes.results.columns import PROBE_NAME
from probes.results.paired_tests import holm, mcnemar, paired_interval
from probes.results.predictions import paired, read_correct
from probes.results.table import locked, read_rows, read_table, table_path, write_table
from probes.tasks.task import NO_CONTROL

COMPARISONS = ("gain", "gain_p", "gain_p_holm", "teacher_gap")
SIGNIFICANT = 0.05

_NAME = list(PROBE_NAME)


def compare(run: RunFile) -> None:
    """Replace the comparisons in the table of a run by those of its present rows; do nothing where it has no table."""
    if not is_there(table_path(run.path)):
        return
    with locked(run.path):
        own = read_rows(run)
        scored = own[(own["metric"] == "accuracy") & (own["split"] == "test")]
        scored = scored[scored["refit"] == scored.groupby(_NAME)["refit"].transform("max")]
        # A CNN probe of other epochs is another probe; the steps of a convex fit are no setting.
        scored = scored.assign(recipe=scored["iterations"].where(scored["probe"].str.startswith("cnn-"), 0).fillna(0))
        new = pd.DataFrame([*_gains(run, scored), *_teacher_gaps(run, scored)], columns=own.columns)
        table = read_table(table_path(run.path))
        stale = table["metric"].isin(COMPARISONS) & table.index.isin(own.index)
        write_table(table_path(run.path), [table[~stale], new])


def _gains(run: RunFile, scored: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Yield the rows of gains: depth j against depth j - 1, from depth 2 on where depth 0 is the pooled input."""
    line_key = [name for name in _NAME if name != "depth"]
    for _, line in scored.groupby([*line_key, "recipe"], sort=False):
        by_depth = {int(row["depth"]): row for row in line.to_dict("records")}
        found = []
        for depth, row in by_depth.items():
            before = by_depth.get(depth - 1)
            if before is None or (depth == 1 and row["pooling"]):
                continue
            pair = _paired(run, before, row)
            if pair is not None:
                found.append((row, mcnemar(*pair), paired_interval(*pair), pair[1].mean() - pair[0].mean()))
        adjusted = holm([p for _, p, _, _ in found])
        for (row, p, (low, high), gain), p_holm in zip(found, adjusted, strict=True):
            bare = row | {"ci_low": None, "ci_high": None}
            yield bare | {"metric": "gain", "value": gain, "ci_low": low, "ci_high": high}
            yield bare | {"metric": "gain_p", "value": p}
            yield bare | {"metric": "gain_p_holm", "value": p_holm}


def _teacher_gaps(run: RunFile, scored: pd.DataFrame) -> Iterator[dict[str, object]]:
    real = scored[scored["control"] == NO_CONTROL].set_index([*(name for name in _NAME if name != "control"), "recipe"])
    for row in scored[scored["control"] == "teacher"].to_dict("records"):
        key = tuple(row[name] for name in real.index.names)
        if key not in real.index:
            continue
        other = dict(zip(real.index.names, key, strict=True)) | real.loc[key].to_dict()
        pair = _paired(run, row, other)
        if pair is not None:
            low, high = paired_interval(*pair)
            value = pair[1].mean() - pair[0].mean()
            yield row | {"metric": "teacher_gap", "value": value, "ci_low": low, "ci_high": high}


def _paired(run: RunFile, first: dict[str, object], second: dict[str, object]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return whether two probes are right about each test image that both have seen, in one order."""
    names = [ProbeName(**{column: row[column] for column in _NAME}) for row in (first, second)]  # type: ignore[arg-type]
    refits = (int(first["refit"]), int(second["refit"]))  # type: ignore[call-overload]
    one, other = (read_correct(run, name, refit) for name, refit in zip(names, refits, strict=True))
    return paired(one, other)
