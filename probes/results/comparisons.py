"""Comparisons of the probes of one run on the same test images, as rows beside theirs.

- gain: accuracy at a depth minus that at the depth before, with a paired bootstrap interval; gain_p: exact McNemar
  p-value; gain_p_holm: adjusted by Holm over the comparisons of one probe of one run.
- teacher_gap: accuracy on the class minus that on the teacher's labels, with a paired bootstrap interval.
- linear_gap: accuracy of a CNN probe minus that of the linear probe of the same depth, with its interval; linear_gap_p,
  linear_gap_p_holm: as for gains, over the depths. A CNN probe that is wide enough can say what a linear one says, and
  more, so one that is significantly below was not trained well (`not_trained`).

They are computed again whenever a probe of the run was fitted, since each belongs to two fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from layerwise.publication import is_there
from layerwise.runfile import RunFile
from layerwise.runfile.layout import POOL_SIDE
from probes.probe import ProbeName
from probes.results.columns import PROBE_NAME
from probes.results.paired_tests import holm, mcnemar, paired_interval
from probes.results.predictions import ReadCorrect, open_correct, paired
from probes.results.table import last_fits, locked, read_rows, read_table, table_path, write_table
from probes.tasks.task import NO_CONTROL

COMPARISONS = ("gain", "gain_p", "gain_p_holm", "teacher_gap")
AGAINST_LINEAR = ("linear_gap", "linear_gap_p", "linear_gap_p_holm")
SIGNIFICANT = 0.05
# The linear probe that stands beside a CNN probe, which reads whole maps.
_LINEAR = {"probe": "linear", "probe_width": 0, "probe_seed": 0, "pooling": POOL_SIDE}

_NAME = list(PROBE_NAME)


def compare(run: RunFile) -> None:
    """Replace the comparisons in the table of a run by those of its present rows; do nothing where it has no table."""
    if not is_there(table_path(run.path)):
        return
    with locked(run.path), open_correct(run) as read:
        own = read_rows(run)
        scored = own[(own["metric"] == "accuracy") & (own["split"] == "test")]
        scored = last_fits(scored)
        # A CNN probe of other epochs is another probe; the steps of a convex fit are no setting.
        scored = scored.assign(recipe=scored["iterations"].where(scored["probe"].str.startswith("cnn-"), 0).fillna(0))
        new = pd.DataFrame(
            [*_gains(read, scored), *_teacher_gaps(read, scored), *_against_linear(read, scored)], columns=own.columns
        )
        table = read_table(table_path(run.path))
        stale = table["metric"].isin((*COMPARISONS, *AGAINST_LINEAR)) & table.index.isin(own.index)
        write_table(table_path(run.path), [table[~stale], new])


def _gains(read: ReadCorrect, scored: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Yield the rows of gains: depth j against depth j - 1, from depth 2 on.

    The input is no depth to gain from: its pooled form has few features, and CNN probes take a rate chosen elsewhere.
    """
    for line in _lines(scored):
        by_depth, found = {int(row["depth"]): row for row in line.to_dict("records")}, []
        for depth, row in by_depth.items():
            before = by_depth.get(depth - 1)
            if before is None or depth == 1:
                continue
            pair = _paired(read, before, row)
            if pair is not None:
                found.append((row, pair))
        yield from _tested("gain", found)


def _against_linear(read: ReadCorrect, scored: pd.DataFrame) -> Iterator[dict[str, object]]:
    """Yield the rows of CNN probes against the linear probe of their depth, where the run has it."""
    for line in _lines(scored[scored["probe"].str.startswith("cnn-")]):
        found = []
        for row in line.to_dict("records"):
            same = {name: _LINEAR.get(name, row[name]) for name in _NAME}
            linear = scored[(scored[list(same)] == pd.Series(same)).all(axis=1)]
            pair = _paired(read, linear.iloc[0].to_dict(), row) if len(linear) else None
            if pair is not None:
                found.append((row, pair))
        yield from _tested("linear_gap", found)


def _lines(scored: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the rows of each probe over the depths."""
    for _, line in scored.groupby([*(name for name in _NAME if name != "depth"), "recipe"], sort=False):
        yield line


def _tested(
    metric: str, found: Sequence[tuple[dict[str, object], tuple[np.ndarray, np.ndarray]]]
) -> Iterator[dict[str, object]]:
    """Yield difference, p-value and adjusted p-value of each pair of outcomes, in the row of the second."""
    p_values = [mcnemar(*pair) for _, pair in found]
    for (row, pair), p, p_holm in zip(found, p_values, holm(p_values), strict=True):
        low, high = paired_interval(*pair)
        bare = row | {"ci_low": None, "ci_high": None}
        yield bare | {"metric": metric, "value": pair[1].mean() - pair[0].mean(), "ci_low": low, "ci_high": high}
        yield bare | {"metric": f"{metric}_p", "value": p}
        yield bare | {"metric": f"{metric}_p_holm", "value": p_holm}


def not_trained(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, of rows of runs, those of `linear_gap` whose CNN probe is significantly below the linear one.

    Only probes that are wide enough to say what the linear one says: its K classes read C channels in each of four
    quarters, of which one convolution hands on C, or the 4 (K - 1) sums that tell the classes apart.
    """
    key = [name for name in ("run_id", *_NAME, "refit", "protocol_version", "iterations") if name in rows]
    p = rows[(rows["metric"] == "linear_gap_p_holm") & (rows["value"] < SIGNIFICANT)]
    gap = rows[(rows["metric"] == "linear_gap") & (rows["value"] < 0)]
    gap = gap[gap["probe_width"] >= np.minimum(gap["channels"], POOL_SIDE**2 * (gap["n_classes"] - 1))]
    return gap[pd.MultiIndex.from_frame(gap[key]).isin(pd.MultiIndex.from_frame(p[key]))]


def _teacher_gaps(read: ReadCorrect, scored: pd.DataFrame) -> Iterator[dict[str, object]]:
    real = scored[scored["control"] == NO_CONTROL].set_index([*(name for name in _NAME if name != "control"), "recipe"])
    for row in scored[scored["control"] == "teacher"].to_dict("records"):
        key = tuple(row[name] for name in real.index.names)
        if key not in real.index:
            continue
        other = dict(zip(real.index.names, key, strict=True)) | real.loc[key].to_dict()
        pair = _paired(read, row, other)
        if pair is not None:
            low, high = paired_interval(*pair)
            value = pair[1].mean() - pair[0].mean()
            yield row | {"metric": "teacher_gap", "value": value, "ci_low": low, "ci_high": high}


def _paired(
    read: ReadCorrect, first: dict[str, object], second: dict[str, object]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return whether two probes are right about each test image that both have seen, in one order."""
    names = [ProbeName(**{column: row[column] for column in _NAME}) for row in (first, second)]  # type: ignore[arg-type]
    refits = (int(first["refit"]), int(second["refit"]))  # type: ignore[call-overload]
    one, other = (read(name, refit) for name, refit in zip(names, refits, strict=True))
    return paired(one, other)
