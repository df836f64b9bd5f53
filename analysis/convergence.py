"""Convergence of CNN probes: what half of their epochs give beside all of them, and which of them were not trained."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from probes.results.columns import PROBE_NAME
from probes.results.comparisons import not_trained
from probes.results.metrics import HALF

_FIT = ["run", *PROBE_NAME, "refit", "protocol_version"]


class Change(NamedTuple):
    """What the second half of the epochs does to the curves of one probe.

    largest: the largest absolute change of an accuracy, in [0, 1]. reordered: pairs of depths of which the one that is
    higher after half of the epochs is the lower one after all.
    """

    probe: str
    largest: float
    reordered: tuple[tuple[int, int], ...]


def with_convergence(accuracies: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows of accuracies with `accuracy_half` of the same fit and split, and whether it was `not_trained`.

    rows: all rows of the same runs. A fit that has no half has it missing.
    """
    half = rows[rows["metric"] == HALF]
    halves = pd.Series(half["value"].to_numpy(), pd.MultiIndex.from_frame(half[[*_FIT, "split"]]))
    own = pd.MultiIndex.from_frame(accuracies[[*_FIT, "split"]])
    failed = pd.MultiIndex.from_frame(not_trained(rows)[_FIT])
    return accuracies.assign(
        accuracy_half=halves.reindex(own).to_numpy(float) if len(halves) else np.nan,
        not_trained=pd.MultiIndex.from_frame(accuracies[_FIT]).isin(failed),
    )


def changes(points: pd.DataFrame) -> Iterator[Change]:
    """Yield the change of each CNN probe that has halves, of points as `analysis.separability.curves` returns them."""
    known = points[points["accuracy_half"].notna()]
    for probe, own in known.groupby("probe", sort=False):
        largest = float((own["accuracy"] - own["accuracy_half"]).abs().max())
        line = [name for name in ("mode", "k", "width", "seed", "probe_width") if name in own]
        lines = own.groupby(line, dropna=False)
        pairs = sorted({pair for _, line in lines for pair in _reordered(line)})
        yield Change(str(probe), largest, tuple(pairs))


def _reordered(line: pd.DataFrame) -> Iterator[tuple[int, int]]:
    points = line[["depth", "accuracy", "accuracy_half"]].sort_values("depth").itertuples(index=False)
    for one, other in combinations(points, 2):
        if (one.accuracy - other.accuracy) * (one.accuracy_half - other.accuracy_half) < 0:
            yield int(one.depth), int(other.depth)


def warnings(points: pd.DataFrame) -> Iterator[str]:
    """Yield a sentence for each probe of which half of the epochs and all of them order depths in other ways."""
    for change in changes(points):
        if change.reordered:
            pairs = ", ".join(f"{one} and {other}" for one, other in change.reordered)
            yield (
                f"{change.probe.replace('cnn-', 'CNN-')}: depths {pairs} change places between half of the epochs and "
                "all of them, so their order is not settled."
            )
