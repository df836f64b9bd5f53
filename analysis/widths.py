"""Accuracy and teacher gap against the width of the CNN probes: a point for each probe, depth and width M.

A wider probe fits more, also on labels that have nothing to do with the classes. The teacher gap, the accuracy on the
classes minus that on a random network's labels, says whether it gains more on the classes (docs/protocol.md).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import pandas as pd

from analysis.failures import DID_NOT_TRAIN, LEFT_OUT, only_trained
from analysis.separability import curves
from analysis.tables import LINE
from layerwise.errors import UsageError, UserError
from probes.tasks.task import CLASS

MEASURES = ("accuracy", "teacher_gap")
_POINT = ["probe", "depth", "probe_width"]
_FACTS = ["dataset", "split", "n_samples", "chance", "refit", "selection", "protocol_version", "n_runs", "widths"]
_FACTS += ["epochs", "accuracy_half", "not_trained", "n_asked", LEFT_OUT, DID_NOT_TRAIN]


def against_width(
    rows: pd.DataFrame,
    probes: Sequence[str] | None = None,
    split: str = "test",
    refit: bool = True,
    keep_failed: bool = False,
) -> pd.DataFrame:
    """Return accuracy and, where the teacher control was probed, the teacher gap of CNN probes against their width.

    Args:
        rows: probe results as `analysis.tables.read` returns them, of one kind of network (mode, k).
        probes, split, refit: which rows to take, see `analysis.selection.select`; only CNN probes have a width.
        keep_failed: average networks that did not train with the others.

    Returns:
        A row for each point, ordered as drawn: probe, measure ("accuracy" or "teacher_gap"), depth, probe_width, value
        (accuracy in [0, 1], teacher gap in [-1, 1]), ci_low, ci_high; interval: over what, empty where none can be
        given; mode, k, dataset, split, n_samples, chance, refit, selection, protocol_version, n_runs, widths,
        n_asked, left_out, did_not_train.

    Raises:
        UserError: no CNN probe of several widths, several kinds of network, or what `curves` raises.
    """
    rows = only_trained(rows, LINE, keep_failed)
    names = _cnn_probes(rows, probes)
    accuracy = curves(rows, names, split, refit)
    _require_one_kind(accuracy)
    if accuracy["probe_width"].nunique() < 2:
        raise UserError(
            f"the CNN probes have one width only, M = {accuracy['probe_width'].iloc[0]}. `probe-depth --probe "
            f"{names[0]} --probe-width 64,128,256` makes others."
        )
    facts = accuracy[_POINT + LINE + _FACTS]
    points = accuracy.rename(columns={"accuracy": "value"}).assign(measure="accuracy")
    refits = {int(word) for words in accuracy["refit"] for word in str(words).split(", ")}
    gaps = _teacher_gap(rows, names, refits) if split == "test" else pd.DataFrame()
    if len(gaps):
        points = pd.concat([points, gaps.merge(facts, on=_POINT)], ignore_index=True)
    columns = ["probe", "measure", *_POINT[1:], "value", "ci_low", "ci_high", "interval", *LINE, *_FACTS]
    order = ["probe", "measure", "depth", "probe_width"]
    return points[columns].sort_values(order, kind="stable").reset_index(drop=True)


def _cnn_probes(rows: pd.DataFrame, probes: Sequence[str] | None) -> list[str]:
    if probes is not None:
        for probe in probes:
            if not re.fullmatch(r"cnn-\d+", probe):
                raise UsageError(f"probe {probe!r} has no width to draw against; give cnn-1, cnn-2 or others of these.")
        return list(probes)
    own = rows[rows["probe"].str.fullmatch(r"cnn-\d+") & (rows["control"] == "none")]
    runs = rows["run"].nunique()
    found = [str(probe) for probe, group in own.groupby("probe") if group["run"].nunique() == runs]
    if not found:
        first = rows["run"].iloc[0]
        raise UserError(
            f"no CNN probe was fitted to every run. `probe-depth {first} --probe cnn-1 --probe-width 64,128,256` makes "
            "the rows."
        )
    return found


def _require_one_kind(points: pd.DataFrame) -> None:
    kinds = points[LINE].drop_duplicates()
    if len(kinds) > 1:
        found = "; ".join(f"{mode}, k = {k}" for mode, k in kinds.itertuples(index=False))
        raise UserError(
            f"the runs are of {len(kinds)} kinds ({found}); against probe width one kind is drawn, a line for each "
            "depth. Give the runs of one."
        )


def _teacher_gap(rows: pd.DataFrame, probes: Sequence[str], refits: set[int]) -> pd.DataFrame:
    """Return a point for each probe, depth and width whose teacher gap every run has; the mean over runs and seeds.

    refits: those of the accuracies beside it; the gap is of the refitted probes where there are any.

    The interval of one network is the mean of the paired intervals of its probe seeds: a mean of numbers on the same
    images varies no more than they do, so it is, if anything, too wide.
    """
    own = rows[(rows["metric"] == "teacher_gap") & rows["probe"].isin(probes) & (rows["target"] == CLASS)]
    own = own[own["refit"].isin(refits)]
    newest = own["protocol_version"] == rows["protocol_version"].max()
    by_run = own[newest].groupby(["run", *_POINT], as_index=False)[["value", "ci_low", "ci_high"]].mean()
    runs = rows["run"].nunique()
    points = []
    for key, group in by_run.groupby(_POINT):
        if len(group) == runs:
            low, high = group[["ci_low", "ci_high"]].iloc[0] if runs == 1 else (math.nan, math.nan)
            interval = "paired over images (bootstrap 95%)" if runs == 1 else ""
            about = dict(zip(_POINT, key, strict=True))
            points.append(
                about | {"value": group["value"].mean(), "ci_low": low, "ci_high": high, "interval": interval}
            )
    return pd.DataFrame(points).assign(measure="teacher_gap") if points else pd.DataFrame()
