"""Accuracy of a probe at each depth as rows beside what the depth is like, so that both are drawn against one axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.geometry.measures import ACCURACY, CODELENGTH
from analysis.geometry.table import Asked, averaged, measured
from analysis.seeds import IMAGES
from analysis.selection import select
from analysis.tables import LINE, NETWORK, read
from layerwise.errors import UserError, option
from probes.results.intervals import normal_interval, wilson_interval
from probes.tasks.task import CLASS, NO_CONTROL


def with_accuracy(runs: Sequence[Path], asked: Asked, probe: str, measures: Sequence[str] = ()) -> pd.DataFrame:
    """Return the rows of what each depth is like, and rows of measure "accuracy" of a probe that reads the same.

    measures: those wanted beside; of "codelength" there are rows then, in bits an image, means over its orders.

    Accuracy is in [0, 1], of the probe refitted where there is a validation fold, with Wilson's interval over images;
    means over seeds are made of it as of all measures. Its rows have a column `probe`.

    Raises:
        UserError: a run without rows of the probe, or with several at a depth; one without a wanted codelength.
    """
    every = read(runs)
    accuracy = _accuracies(every, asked, probe)
    codelengths = _codelengths(every, asked) if CODELENGTH in measures else {}
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
        if found_bits := codelengths.get((place["run_id"], place["depth"])):
            rows.append(place | {"measure": CODELENGTH, "interval": IMAGES} | found_bits)
    return pd.concat([table, pd.DataFrame(rows + averaged(rows))], ignore_index=True)


def _codelengths(rows: pd.DataFrame, asked: Asked) -> dict[tuple[str, int], dict[str, float]]:
    """Return value, interval, standard error and n of the codelength of each run and depth, in bits an image."""
    own = rows[(rows["metric"] == "codelength_bits") & (rows["target"] == CLASS) & (rows["control"] == NO_CONTROL)]
    own = own[own["pooling"] == asked.pool]
    if without := [str(run) for run in rows["run"].unique() if run not in set(own["run"])]:
        raise UserError(
            f"{without[0]} has no codelength of {asked.pool}x{asked.pool} averages. `probe-depth {without[0]} --probe "
            f"codelength --pool {asked.pool}` makes it."
        )
    found = {}
    for (run_id, depth), of_orders in own.groupby(["run_id", "depth"]):
        n = int(of_orders["n_samples"].iloc[0])
        value, low, high = (float(of_orders[name].mean()) / n for name in ("value", "ci_low", "ci_high"))
        error = (high - low) / (2 * normal_interval(0.0, 1.0)[1])
        found[run_id, depth] = {"value": value, "ci_low": low, "ci_high": high, "error": error, "n": n}
    return found


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
