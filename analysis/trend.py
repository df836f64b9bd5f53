"""Page's test over training seeds: does accuracy rise with depth?

The seed is the block, the depth an ordered treatment. A rank test of two depths by five seeds cannot reach p < 0.06;
the trend over all depths can. Depth 0 is left out: of a linear or nearest-neighbour probe it is the pooled input, which
has few features, and the learning rate of a CNN probe is not chosen on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import pandas as pd
from scipy import stats

from analysis.failures import only_trained, told
from analysis.selection import select
from analysis.separability import asked_in, average_probe_seeds
from analysis.tables import LINE, NETWORK, PANEL
from probes.results.paired_tests import holm

WIDTHS = NETWORK[:2]


def trends(
    rows: pd.DataFrame, probes: Sequence[str] | None = None, split: str = "test", keep_failed: bool = False
) -> pd.DataFrame:
    """Return Page's test of a rise over depths, for each panel, line and width, with seeds as blocks.

    Args:
        rows: probe results as `analysis.tables.read` returns them. probes, split: as in `analysis.selection.select`.
        keep_failed: take networks that did not train with the others.

    Returns:
        A row for each panel (probe, probe_width, pooling), line (mode, k) and cell (width, aux_width): n_seeds, n_asked
        (seeds, with those whose network did not train), n_depths, certificate (the largest), L (Page's statistic), p
        (one-sided, of no rise), p_fall (one-sided, of no fall), p_holm and p_fall_holm (each adjusted over all rows,
        one family); from L on missing with fewer than 2 seeds or 3 depths. left_out, did_not_train: of all rows.

    Source: Page 1963, by scipy.stats.page_trend_test (exact where there are few seeds and depths).
    """
    found = []
    networks = ordered(rows, probes, split, keep_failed)
    for key, cell in networks.groupby([*PANEL, *LINE, *WIDTHS], dropna=False, sort=False):
        block = cell.pivot(index="seed", columns="depth", values="value").dropna(axis="columns").to_numpy()
        n_seeds, n_depths = block.shape
        has_test = n_seeds >= 2 and n_depths >= 3
        rise, fall = (stats.page_trend_test(b) if has_test else None for b in (block, block[:, ::-1]))
        found.append(
            dict(zip([*PANEL, *LINE, *WIDTHS], key, strict=True))
            | {"n_seeds": n_seeds, "n_asked": asked_in(cell[cell["depth"] == cell["depth"].max()])}
            | {"n_depths": n_depths, "certificate": float(cell["certificate"].max())}
            | {"L": rise.statistic if rise else nan, "p": rise.pvalue if rise else nan}
            | {"p_fall": fall.pvalue if fall else nan}
        )
    table = pd.DataFrame(found).assign(**told(networks))
    return table.assign(p_holm=holm(table["p"]), p_fall_holm=holm(table["p_fall"]))


def ordered(rows: pd.DataFrame, probes: Sequence[str] | None, split: str, keep_failed: bool = False) -> pd.DataFrame:
    """Return the accuracy of each network at each depth of the trend, means over the seeds of a probe."""
    networks = average_probe_seeds(select(only_trained(rows, LINE, keep_failed), probes, split))
    return networks[networks["depth"] > 0]
