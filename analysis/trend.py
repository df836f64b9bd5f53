"""Page's test over training seeds: does accuracy rise with depth?

The seed is the block, the depth an ordered treatment. A rank test of two depths by five seeds cannot reach p < 0.06;
the trend over all depths can. Depth 0 of a linear or nearest-neighbour probe is the pooled input, which has few
features, and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import pandas as pd
from scipy import stats

from analysis.selection import select
from analysis.separability import asked_in, average_probe_seeds
from analysis.tables import LINE, NETWORK, PANEL
from probes.names import POOLED
from probes.results.paired_tests import holm

WIDTHS = NETWORK[:2]


def trends(rows: pd.DataFrame, probes: Sequence[str] | None = None, split: str = "test") -> pd.DataFrame:
    """Return Page's test of a rise over depths, for each panel, line and width, with seeds as blocks.

    Args:
        rows: probe results as `analysis.tables.read` returns them. probes, split: as in `analysis.selection.select`.

    Returns:
        A row for each panel (probe, probe_width, pooling), line (mode, k) and cell (width, aux_width): n_seeds, n_asked
        (seeds, with those whose network did not train), n_depths, certificate (the largest), L (Page's statistic), p
        (one-sided, of no rise), p_holm (adjusted over all rows, one family), the last three missing with fewer than 2
        seeds or 3 depths.

    Source: Page 1963, by scipy.stats.page_trend_test (exact where there are few seeds and depths).
    """
    found = []
    for key, cell in ordered(rows, probes, split).groupby([*PANEL, *LINE, *WIDTHS], dropna=False, sort=False):
        block = cell.pivot(index="seed", columns="depth", values="value").dropna(axis="columns").to_numpy()
        n_seeds, n_depths = block.shape
        page = stats.page_trend_test(block) if n_seeds >= 2 and n_depths >= 3 else None
        found.append(
            dict(zip([*PANEL, *LINE, *WIDTHS], key, strict=True))
            | {"n_seeds": n_seeds, "n_asked": asked_in(cell[cell["depth"] == cell["depth"].max()])}
            | {"n_depths": n_depths, "certificate": float(cell["certificate"].max())}
            | {"L": page.statistic if page else nan, "p": page.pvalue if page else nan}
        )
    table = pd.DataFrame(found)
    return table.assign(p_holm=holm(table["p"]))


def ordered(rows: pd.DataFrame, probes: Sequence[str] | None, split: str) -> pd.DataFrame:
    """Return the accuracy of each network at each depth of the trend, means over the seeds of a probe."""
    networks = average_probe_seeds(select(rows, probes, split))
    return networks[(networks["depth"] > 0) | ~networks["probe"].isin(POOLED)]
