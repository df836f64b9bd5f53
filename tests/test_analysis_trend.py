"""Tests over seeds: their formulas by hand, p-values uniform under the null, power where there is a trend."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.trend import slope_contrasts, trends
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


def test_the_pooled_input_is_out_of_a_linear_trend_and_the_whole_input_is_in() -> None:
    probes = (("linear", 0), ("cnn-1", 64))
    rows = [row for seed in (0, 1) for row in run_rows([0.9, 0.5, 0.6, 0.7], probes, k=1, aux_width=64, seed=seed)]
    found = trends(table(rows)).set_index("probe")
    assert found["n_depths"].to_dict() == {"linear": 3, "cnn-1": 4}


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


def test_a_contrast_of_one_width_is_the_paired_t_test_of_the_slopes() -> None:
    rows = networks(np.random.default_rng(2), {1: 0.02, 2: 0.03})
    found = slope_contrasts(table(rows)).iloc[0]
    values = pd.DataFrame(rows).query("depth > 0").groupby(["k", "seed"])[["depth", "value"]]
    slopes = values.apply(lambda network: stats.linregress(network["depth"], network["value"]).slope)
    theirs = stats.ttest_rel(slopes[2], slopes[1])
    assert found["difference"] == pytest.approx(slopes[2].mean() - slopes[1].mean())
    assert found["p"] == pytest.approx(theirs.pvalue)
    interval = theirs.confidence_interval(0.95)
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((interval.low, interval.high))
    assert (found["first"], found["second"], found["freedom"]) == ("greedy, k = 1", "greedy, k = 2", 4)
    assert (found["compares"], found["paired"]) == ("k", True)


def test_a_contrast_of_different_seeds_is_the_t_test_of_two_samples() -> None:
    rows = networks(np.random.default_rng(2), {1: 0.02, 2: 0.03})
    other = [r | {"seed": r["seed"] + 10 * (r["k"] == 2)} for r in rows]
    found = slope_contrasts(table(other)).iloc[0]
    values = pd.DataFrame(other).query("depth > 0").groupby(["k", "seed"])[["depth", "value"]]
    slopes = values.apply(lambda network: stats.linregress(network["depth"], network["value"]).slope)
    theirs = stats.ttest_ind(slopes[2], slopes[1])
    assert found["p"] == pytest.approx(theirs.pvalue)
    interval = theirs.confidence_interval(0.95)
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((interval.low, interval.high))
    assert (found["freedom"], found["paired"]) == (8, False)


def test_widths_are_fixed_their_difference_widens_no_interval() -> None:
    rng = np.random.default_rng(3)
    rows = networks(rng, {1: 0.02, 2: 0.02}, widths=(64, 128))
    steeper = [r | {"value": r["value"] + 0.2 * r["depth"] * (r["width"] == 128)} for r in rows]
    flat, steep = (slope_contrasts(table(r)).iloc[0] for r in (rows, steeper))
    assert steep["ci_high"] - steep["ci_low"] == pytest.approx(flat["ci_high"] - flat["ci_low"])
    assert steep["difference"] == pytest.approx(flat["difference"])


def test_contrasts_cover_the_true_difference_and_reject_a_true_null_no_more_often_than_they_say() -> None:
    rng, poolings = np.random.default_rng(4), range(1, 9)  # panels of a study repeat it, and are sooner made
    slopes, truth = {1: 0.01, 2: 0.01, 3: 0.02}, np.array([0.0, 0.01, 0.01])
    covered, p, smallest = [], [], []
    for _ in range(15):
        rows = [row | {"pooling": side} for side in poolings for row in networks(rng, slopes, 3, (64, 128))]
        for _, made in slope_contrasts(table(rows)).groupby("pooling"):
            covered += list((made["ci_low"] <= truth) & (truth <= made["ci_high"]))
            p.append(made["p"].iloc[0])
            smallest.append(made["p_holm"].iloc[0])
    assert len(p) == 120
    assert 0.91 < np.mean(covered) < 0.985
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(smallest) < 0.05) < 0.1


def test_holm_is_over_the_pairs_of_one_panel() -> None:
    rows = networks(np.random.default_rng(5), {1: 0.0, 2: 0.004, 3: 0.008})
    made = slope_contrasts(table(rows))
    order = made["p"].rank().astype(int)
    largest = made.loc[order == 3].iloc[0]
    smallest = made.loc[order == 1].iloc[0]
    assert largest["p_holm"] >= largest["p"]
    assert smallest["p_holm"] == pytest.approx(min(1.0, 3 * smallest["p"]))


def test_one_seed_a_width_says_that_nothing_is_known() -> None:
    made = slope_contrasts(table(networks(np.random.default_rng(6), {1: 0.01, 2: 0.03}, seeds=1)))
    assert made[["ci_low", "ci_high", "p", "p_holm"]].isna().all(axis=None)
    assert made["freedom"].tolist() == [0]
    assert made["difference"].iloc[0] == pytest.approx(0.02, abs=0.01)
