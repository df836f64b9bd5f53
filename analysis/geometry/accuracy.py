"""Accuracy of a probe at each depth as rows beside what the depth is like, so that both are drawn against one axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.geometry.measures import ACCURACY
from analysis.geometry.table import IMAGES, Asked, averaged, measured
from analysis.selection import select
from analysis.tables import LINE, NETWORK, read
from layerwise.errors import UserError, option
from probes.results.intervals import wilson_interval


def with_accuracy(runs: Sequence[Path], asked: Asked, probe: str) -> pd.DataFrame:
    """Return the rows of what each depth is like, and rows of measure "accuracy" of a probe that reads the same.

    Accuracy is in [0, 1], of the probe refitted where there is a validation fold, with Wilson's interval over images;
    means over seeds are made of it as of all measures. Its rows have a column `probe`.

    Raises:
        UserError: a run without rows of the probe, or with several at a depth.
    """
    accuracy = _accuracies(read(runs), asked, probe)
    table = measured(runs, asked, with_similarity=False).geometry
    own = table[table["run"] != ""]
    places = own.drop_duplicates(["run_id", "depth"])
    rows: list[dict[str, Any]] = []
    for place in places.to_dict("records"):
        found = accuracy[(accuracy["run_id"] == place["run_id"]) & (accuracy["depth"] == place["depth"])]
        if len(found) > 1:
            raise UserError(
                f"{place['run']} has {len(found)} numbers of probe {probe} at depth {place['depth']}, of several "
                f"widths or seeds of the probe, but one is drawn. Give {option('probe', 'linear')}, which has one."
            )
        for value, n in zip(found["value"], found["n_samples"], strict=True):
            low, high = wilson_interval(value, n)
            rows.append(place | {
                "measure": ACCURACY, "value": value, "ci_low": low, "ci_high": high,
                "error": math.sqrt(value * (1 - value) / n), "interval": IMAGES, "n": n, "probe": probe,
            })  # fmt: skip
    return pd.concat([table, pd.DataFrame(rows + averaged(rows))], ignore_index=True)


def _accuracies(rows: pd.DataFrame, asked: Asked, probe: str) -> pd.DataFrame:
    """Return the accuracies of a probe, of those that read averages the ones that read what is measured."""
    line = [*LINE, *NETWORK]
    reads_averages = (rows["probe"] == probe) & rows["pooling"].gt(0)
    if reads_averages.any():
        alike = rows["pooling"] == asked.pool
        for run, own in rows[reads_averages].groupby("run"):
            if not (own["pooling"] == asked.pool).any():
                raise UserError(
                    f"{run} has no rows of probe {probe} that read {asked.pool}x{asked.pool} averages, which are "
                    f"measured. `probe-depth {run} --probe {probe} --pool {asked.pool}` makes them."
                )
        rows = rows[~reads_averages | alike]
    chosen = select(rows, [probe], asked.split, asked.split != "validation", line)
    return chosen[np.isfinite(chosen["value"])]
