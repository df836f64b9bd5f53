"""Owns the reference of a linear panel: what the same linear probe makes of the raw pixels."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.selection import of_classes, reads_pixels
from probes.results.statistics import wilson_interval

PIXELS = ["pixels", "pixels_low", "pixels_high"]


def with_pixels(points: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the points of a figure with the accuracy of the raw pixels, and its interval over images, beside each.

    The columns are `PIXELS`, in [0, 1]; missing where no run has such a probe. Runs on the same data agree in it, but
    for the images that each fold holds; of several runs it is the mean.

    Args:
        points: as `analysis.separability.curves` makes them, with probe, split, refit and n_samples.
        rows: all rows of the runs drawn.
    """
    own = of_classes(rows[reads_pixels(rows) & (rows["depth"] == 0)])
    found = [
        _reference(own, *point) for point in points[["probe", "split", "refit", "n_samples"]].itertuples(index=False)
    ]
    return points.assign(**dict(zip(PIXELS, np.array(found).reshape(-1, 3).T, strict=True)))


def _reference(rows: pd.DataFrame, probe: str, split: str, refit: str, n: int) -> tuple[float, float, float]:
    same = rows[(rows["probe"] == probe) & (rows["split"] == split) & rows["refit"].astype(str).isin(refit.split(", "))]
    if same.empty:
        return np.nan, np.nan, np.nan
    accuracy = float(same["value"].mean())
    return accuracy, *wilson_interval(accuracy, n)
