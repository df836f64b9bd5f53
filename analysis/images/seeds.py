"""Means over seeds of what single images say of depths: rows of runs that differ in their seed alone."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from scipy.special import ndtri

from analysis.seeds import SEEDS, Estimate, over_seeds
from analysis.tables import LIKE
from probes.results.intervals import CONFIDENCE

_SIGNED = ("change", "depth_entropy")  # the other measures are shares
_WIDTH = 2 * float(ndtri((1 + CONFIDENCE) / 2))  # of a normal interval, in standard errors


def averaged(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the means over runs of one recipe whose seeds differ, of each probe, depth and measure.

    The interval is Student's t over seeds, never narrower than half the variance that the images give (analysis.seeds).
    Networks that did not train count for no mean, nor does a measure that a run lacks. Such rows name no run.
    """
    trained = rows[rows["failed"] == ""]
    trained = trained.assign(error=(trained["ci_high"] - trained["ci_low"]) / _WIDTH)
    place = [*LIKE, "probe", "refit", "depth", "measure"]
    found = [_mean(group, estimate) for group, estimate in over_seeds(trained, place)]
    return pd.DataFrame(found, columns=rows.columns)


def _mean(group: pd.DataFrame, estimate: Estimate) -> dict[str, Any]:
    half, first = estimate.half_width(), group.iloc[0].to_dict()
    least = -1.0 if first["measure"] in _SIGNED else 0.0
    return first | {
        "run": "", "run_id": "", "seed": math.nan, "value": estimate.mean, "p": math.nan, "p_holm": math.nan,
        "ci_low": max(least, estimate.mean - half), "ci_high": min(1.0, estimate.mean + half),
        "interval": SEEDS, "n_runs": len(group),
    }  # fmt: skip
