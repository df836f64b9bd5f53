"""Page's test: its statistic by hand, p-values fair under the null and on small test sets, Holm over all rows."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis.trend import trends
from probes.results.paired_tests import holm
from tests.probe_rows import run_rows, table


def networks(
    rng: np.random.Generator, slopes: dict[int, float], seeds: int = 5, widths: Any = (64,), depths: int = 4
) -> list[dict[str, Any]]:
    """Return rows of networks whose accuracy rises by the slope of their k at each depth, with noise between seeds."""
    rows = []
    for k, slope in slopes.items():
        for width in widths:
            for seed in range(seeds):
                noise = rng.normal(0, 0.01, depths)
                values = [0.3, *(0.5 + width / 1000 + slope * np.arange(depths) + noise)]
                rows += run_rows([float(v) for v in values], k=k, width=width, aux_width=width, seed=seed)
    return rows


def test_pages_statistic_by_hand() -> None:
    rows = []
    for seed, values in enumerate([[0.2, 0.5, 0.6, 0.7], [0.9, 0.5, 0.7, 0.6]]):
        rows += run_rows(values, k=1, width=64, aux_width=64, seed=seed)
    found = trends(table(rows)).iloc[0]
    # ranks over depths 1..3: (1, 2, 3) and (1, 3, 2); L = 1 (1 + 1) + 2 (2 + 3) + 3 (3 + 2)
    assert found["L"] == 27
    assert (found["n_seeds"], found["n_depths"]) == (2, 3)
    # of the 36 pairs of rankings one reaches 28 and four reach 27
    assert found["p"] == pytest.approx(5 / 36)
    # L of the depths in reverse is 48 - 27 = 21
    reversed_ranks = [(4 - a, 4 - b, 4 - c) for a, b, c in itertools.permutations((1, 2, 3))]
    totals = [a[0] + b[0] + 2 * (a[1] + b[1]) + 3 * (a[2] + b[2]) for a in reversed_ranks for b in reversed_ranks]
    assert found["p_fall"] == pytest.approx(sum(total >= 21 for total in totals) / 36)


def test_the_input_is_out_of_every_trend() -> None:
    probes = (("linear", 0), ("cnn-1", 64))
    rows = [row for seed in (0, 1) for row in run_rows([0.9, 0.5, 0.6, 0.7], probes, k=1, aux_width=64, seed=seed)]
    found = trends(table(rows)).set_index("probe")
    assert found["n_depths"].to_dict() == {"linear": 3, "cnn-1": 3}


def test_one_seed_or_two_depths_make_no_trend() -> None:
    one = trends(table(run_rows([0.3, 0.5, 0.6, 0.7], k=1, seed=0))).iloc[0]
    rows = [row for seed in (0, 1) for row in run_rows([0.3, 0.5, 0.6], k=1, seed=seed)]
    two = trends(table(rows)).iloc[0]
    assert math.isnan(one["p"])
    assert math.isnan(two["p"])
    assert (one["n_seeds"], two["n_depths"]) == (1, 2)


def test_trends_are_of_one_k_and_one_width_each() -> None:
    rows = networks(np.random.default_rng(0), {1: 0.05, 2: 0.0}, widths=(64, 128))
    found = trends(table(rows)).set_index(["k", "width"])["p"]
    assert len(found) == 4
    assert (found[1] < 0.001).all()
    assert (found[2] > 0.01).all()


def test_pages_p_is_fair_under_the_null() -> None:
    rng = np.random.default_rng(1)
    p = np.concatenate([trends(table(networks(rng, {k: 0.0 for k in range(1, 51)})))["p"] for _ in range(8)])
    assert len(p) == 400
    for level in (0.05, 0.2, 0.5):
        assert abs(np.mean(p <= level) - level) < 2.6 * math.sqrt(level * (1 - level) / 400) + 0.02


def test_holm_is_over_all_rows_but_those_without_a_test() -> None:
    rows = networks(np.random.default_rng(0), {1: 0.01, 2: 0.0, 3: 0.002}, seeds=3, widths=(64, 128))
    found = trends(table(rows + networks(np.random.default_rng(1), {4: 0.05}, seeds=1)))
    known = found.dropna(subset="p")
    assert (len(known), len(found)) == (6, 7)
    smallest = known.sort_values("p").iloc[0]
    assert smallest["p_holm"] == pytest.approx(min(1.0, 6 * smallest["p"]))
    assert known["p_holm"].tolist() == holm(list(known["p"]))
    assert found.loc[found["k"] == 4, "p_holm"].isna().all()


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(("n", "p"), [(100, 0.97), (359, 0.95), (10_000, 0.85)])
def test_pages_p_is_never_too_small_where_accuracies_are_counts_that_tie(seeds: int, n: int, p: float) -> None:
    """Ranks alone decide, so the test is scipy's own; ties of small test sets get their mean rank."""
    rng = np.random.default_rng(seeds * n)
    tests = [stats.page_trend_test(rng.binomial(n, p, (seeds, 4))).pvalue for _ in range(1000)]
    for level in (0.05, 0.2):
        assert np.mean(np.array(tests) <= level) < level + 3 * math.sqrt(level * (1 - level) / 1000)
