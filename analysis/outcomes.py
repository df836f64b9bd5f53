"""Outcomes of single test images: which ones the probes of a run are right about, and differences over images.

Several seeds of a probe, or draws of a projection, count an image by the share of them that are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from probes.probe import ProbeName
from probes.results.columns import PROBE_NAME
from probes.results.predictions import open_correct, predictions_path

_NAME = PROBE_NAME


def outcomes(rows: pd.DataFrame) -> pd.Series | None:
    """Return the share in [0, 1] of probes that are right about each test image, by its index.

    Args:
        rows: accuracy rows of one probe at one depth of one run, one for each seed of the probe.

    Returns None where the run has no predictions of one of them.
    """
    from layerwise.runfile import RunFile

    path = Path(rows["run"].iloc[0])
    if not predictions_path(path).exists():
        return None
    with RunFile(path) as run, open_correct(run) as read:
        found = [
            read(ProbeName(**{column: row[column] for column in _NAME}), int(row["refit"]))
            for row in rows.to_dict("records")
        ]
    known = [one for one in found if one is not None]
    return pd.concat(known, axis=1, join="inner").mean(axis=1) if len(known) == len(found) else None


def mean_difference(pairs: Sequence[tuple[pd.Series | None, pd.Series | None]]) -> pd.Series | None:
    """Return second - first of each image that all have, averaged over the pairs; None where one is missing."""
    known = [(first, second) for first, second in pairs if first is not None and second is not None]
    if len(known) < len(pairs):
        return None
    return pd.concat([second - first for first, second in known], axis=1, join="inner").mean(axis=1)
