"""Tests over training seeds: does accuracy rise with depth, and does it rise faster for one k?

The seed is the repetition, the width M (with the auxiliary width) a fixed factor, the depth an ordered treatment. A
rank test of two depths by five seeds cannot reach p < 0.06; the trend over all depths can. Depth 0 of a linear or
nearest-neighbour probe is the pooled input, which has few features, and is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from math import nan
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.seeds import Difference, difference
from analysis.selection import select
from analysis.separability import average_probe_seeds
from analysis.tables import LINE, NETWORK, PANEL
from probes.names import POOLED
from probes.results.paired_tests import holm

WIDTHS = NETWORK[:2]


def trends(rows: pd.DataFrame, probes: Sequence[str] | None = None, split: str = "test") -> pd.DataFrame:
    """Return Page's test of a rise over depths, for each panel, line and width, with seeds as blocks.

    Args:
        rows: probe results as `analysis.tables.read` returns them. probes, split: as in `analysis.selection.select`.

    Returns:
        A row for each panel (probe, probe_width, pooling), line (mode, k) and cell (width, aux_width): n_seeds,
        n_depths, L (Page's statistic), p (one-sided, of no rise), the last two missing with fewer than 2 seeds or 3
        depths.

    Source: Page 1963, by scipy.stats.page_trend_test (exact where there are few seeds and depths).
    """
    found = []
    for key, cell in _ordered(rows, probes, split).groupby([*PANEL, *LINE, *WIDTHS], dropna=False, sort=False):
        block = cell.pivot(index="seed", columns="depth", values="value").dropna(axis="columns").to_numpy()
        n_seeds, n_depths = block.shape
        page = stats.page_trend_test(block) if n_seeds >= 2 and n_depths >= 3 else None
        found.append(
            dict(zip([*PANEL, *LINE, *WIDTHS], key, strict=True))
            | {"n_seeds": n_seeds, "n_depths": n_depths}
            | {"L": page.statistic if page else nan, "p": page.pvalue if page else nan}
        )
    return pd.DataFrame(found)


def slope_contrasts(rows: pd.DataFrame, probes: Sequence[str] | None = None, split: str = "test") -> pd.DataFrame:
    """Return how much faster accuracy rises with depth in one line than in another, for each pair in a panel.

    The slope of a network is the least-squares slope of its accuracy on depth. A contrast is the mean over widths of
    the difference of mean slopes over seeds, by Student's t: paired within seeds where both lines have the same, else
    with the variance pooled within line and width (`analysis.seeds`). Only widths that both lines have count.
    Lines that differ in k alone are compared, and lines that differ in mode alone; p-values are adjusted by Holm over
    the pairs of a panel that answer the same of these two questions.

    Args:
        rows, probes, split: as in `trends`.

    Returns:
        A row for each panel and pair of lines: first, second (mode and k of each), compares ("k" or "mode"),
        difference (second - first, in accuracy a depth), ci_low, ci_high, p, freedom, paired, p_holm. Interval and p
        are missing where no width has two seeds.
    """
    slopes = _slopes(_ordered(rows, probes, split))
    found = []
    for key, panel in slopes.groupby(PANEL, sort=False):
        lines = [line for _, line in panel.groupby(LINE, dropna=False, sort=False)]
        pairs = [pair for pair in itertools.combinations(lines, 2) if _compared(*pair)]
        contrasts = [_contrast(first, second) for first, second in pairs]
        found += [dict(zip(PANEL, key, strict=True)) | contrast for contrast in contrasts]
    table = pd.DataFrame(found, columns=[*PANEL, "first", "second", "compares", *Difference.__dataclass_fields__])
    return table.assign(p_holm=table.groupby([*PANEL, "compares"], sort=False)["p"].transform(_holm_of_known))


def _holm_of_known(p: pd.Series) -> pd.Series:
    """Return p-values of one family adjusted by Holm; those that are missing stay missing and count for nothing."""
    known = p.dropna()
    return pd.Series(holm(known), index=known.index, dtype=float).reindex(p.index)


def _ordered(rows: pd.DataFrame, probes: Sequence[str] | None, split: str) -> pd.DataFrame:
    """Return the accuracy of each network at each depth of the trend, means over the seeds of a probe."""
    networks = average_probe_seeds(select(rows, probes, split))
    return networks[(networks["depth"] > 0) | ~networks["probe"].isin(POOLED)]


def _slopes(networks: pd.DataFrame) -> pd.DataFrame:
    key = [*PANEL, *LINE, *NETWORK]
    found = []
    for values, network in networks.groupby(key, dropna=False, sort=False):
        if len(network) > 1:
            slope = np.polyfit(network["depth"].to_numpy(float), network["value"].to_numpy(), 1)[0]
            found.append(dict(zip(key, values, strict=True)) | {"slope": float(slope)})
    return pd.DataFrame(found, columns=[*key, "slope"])


def _contrast(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, Any]:
    """Return the contrast of two lines of one panel."""
    sides = [
        {cell: group.set_index("seed")["slope"] for cell, group in line.groupby(WIDTHS, dropna=False)}
        for line in (first, second)
    ]
    cells = [cell for cell in sides[0] if cell in sides[1]]
    names = dict(zip(("first", "second"), (_name(line) for line in (first, second)), strict=True))
    if not cells:
        found = Difference(difference=nan, ci_low=nan, ci_high=nan, p=nan, freedom=0, paired=False)
    else:
        found = difference(*({cell: side[cell] for cell in cells} for side in sides))
    return names | {"compares": _compared(first, second)} | asdict(found)


def _compared(first: pd.DataFrame, second: pd.DataFrame) -> str:
    """Return the factor, "k" or "mode", in which alone two lines differ; empty where they differ in both."""
    one, other = (line[LINE].iloc[0].astype(object).fillna(0) for line in (first, second))
    different = [column for column in LINE if one[column] != other[column]]
    return different[0] if len(different) == 1 else ""


def _name(line: pd.DataFrame) -> str:
    mode, k = line[LINE].iloc[0]
    return mode if pd.isna(k) else f"{mode}, k = {int(k)}"
