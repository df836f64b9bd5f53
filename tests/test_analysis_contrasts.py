"""Contrasts of early gain, slope and final level: by hand, as t-tests, their families, and by simulation."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.contrasts import QUANTITIES, contrasts
from probes.results.paired_tests import holm
from tests.probe_rows import run_rows, table

# What a quantity is of accuracies at depths 1 to 4.
WEIGHTS = {"early gain": (-1, 1, 0, 0), "slope": (-0.3, -0.1, 0.1, 0.3), "final level": (0, 0, 0, 1)}


def networks(
    rng: np.random.Generator,
    slopes: dict[int, float],
    seeds: int = 5,
    widths: Any = (64,),
    n_samples: int = 10_000_000,
    **fields: Any,
) -> list[dict[str, Any]]:
    """Return rows of networks whose accuracy rises by the slope of their k at each of 4 depths, with noise of seeds.

    So many images that Student's t decides, unless told otherwise; accuracies are counts of them.
    """
    rows = []
    for k, slope in slopes.items():
        for width in widths:
            for seed in range(seeds):
                p = 0.5 + width / 1000 + slope * np.arange(4) + rng.normal(0, 0.01, 4)
                values = [0.3, *(rng.binomial(n_samples, p) / n_samples)]
                same = {"k": k, "width": width, "aux_width": width, "seed": seed, "n_samples": n_samples}
                rows += run_rows([float(v) for v in values], **same | fields)
    return rows


def quantities(rows: list[dict[str, Any]], quantity: str) -> pd.Series:
    """Return a quantity of each network, by k and seed."""
    curves = pd.DataFrame(rows).pivot(index=["k", "seed"], columns="depth", values="value")
    return curves[[1, 2, 3, 4]] @ np.array(WEIGHTS[quantity])


def test_the_three_numbers_of_a_curve_by_hand() -> None:
    one = [r for s in (0, 1) for r in run_rows([0.9, 0.50, 0.60, 0.65, 0.69], k=1, seed=s)]
    other = [r for s in (0, 1) for r in run_rows([0.9, 0.50, 0.55, 0.65, 0.75], k=2, seed=s)]
    found = contrasts(table(one + other)).set_index("quantity")["difference"]
    assert found.to_dict() == pytest.approx({"early gain": -0.05, "slope": 0.085 - 0.062, "final level": 0.06})
    assert tuple(found.index) == QUANTITIES


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_a_contrast_of_one_width_is_the_paired_t_test(quantity: str) -> None:
    rows = networks(np.random.default_rng(2), {1: 0.02, 2: 0.03})
    found = contrasts(table(rows)).set_index("quantity").loc[quantity]
    values = quantities(rows, quantity)
    theirs = stats.ttest_rel(values[2], values[1])
    assert found["difference"] == pytest.approx(values[2].mean() - values[1].mean())
    assert found["p"] == pytest.approx(theirs.pvalue)
    interval = theirs.confidence_interval(0.95)
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((interval.low, interval.high))
    assert (found["first"], found["second"], found["freedom"]) == ("greedy, k = 1", "greedy, k = 2", 4)
    assert (found["compares"], found["paired"]) == ("k", True)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_a_contrast_of_different_seeds_is_the_t_test_of_two_samples(quantity: str) -> None:
    rows = networks(np.random.default_rng(2), {1: 0.02, 2: 0.03})
    other = [r | {"seed": r["seed"] + 10 * (r["k"] == 2)} for r in rows]
    found = contrasts(table(other)).set_index("quantity").loc[quantity]
    values = quantities(other, quantity)
    theirs = stats.ttest_ind(values[2], values[1])
    assert found["p"] == pytest.approx(theirs.pvalue)
    interval = theirs.confidence_interval(0.95)
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((interval.low, interval.high))
    assert (found["freedom"], found["paired"]) == (8, False)


@pytest.mark.parametrize(("quantity", "bound"), [("early gain", 0.02), ("slope", 0.02 / 3), ("final level", 0.02)])
def test_less_than_the_bound_is_shown_by_two_one_sided_tests(quantity: str, bound: float) -> None:
    rows = networks(np.random.default_rng(2), {1: 0.02, 2: 0.02})
    found = contrasts(table(rows), bound=0.02).set_index("quantity").loc[quantity]
    values = quantities(rows, quantity)
    apart = values[2] - values[1]
    theirs = max(
        stats.ttest_1samp(apart, bound, alternative="less").pvalue,
        stats.ttest_1samp(apart, -bound, alternative="greater").pvalue,
    )
    assert found["bound"] == pytest.approx(bound)
    assert found["p_within"] == pytest.approx(theirs)


def test_widths_are_fixed_their_difference_widens_no_interval() -> None:
    rng = np.random.default_rng(3)
    rows = networks(rng, {1: 0.02, 2: 0.02}, widths=(64, 128))
    steeper = [r | {"value": r["value"] + 0.05 * r["depth"] * (r["width"] == 128)} for r in rows]
    flat, steep = (contrasts(table(r)) for r in (rows, steeper))
    widths = [(made["ci_high"] - made["ci_low"]).tolist() for made in (flat, steep)]
    assert widths[0] == pytest.approx(widths[1])
    assert steep["difference"].tolist() == pytest.approx(flat["difference"].tolist())


def test_the_images_share_of_a_number_is_that_of_its_weighted_accuracies() -> None:
    """Two seeds agree in everything, so that the images alone make the interval."""
    rows = [r for k in (1, 2) for s in (0, 1) for r in run_rows([0.3, 0.5, 0.6, 0.7, 0.8], k=k, seed=s, n_samples=400)]
    found = contrasts(table(rows)).set_index("quantity")
    accuracies = np.array([0.5, 0.6, 0.7, 0.8])
    for quantity, weights in WEIGHTS.items():
        variance = np.square(weights) @ (accuracies * (1 - accuracies)) / 400  # of a network; two seeds, two lines
        half = (found["ci_high"] - found["ci_low"])[quantity] / 2
        assert half == pytest.approx(1.96 * math.sqrt(0.5 * variance), rel=0.01)
        assert found["p"][quantity] == 1


SETTINGS = list(itertools.product((2, 3, 5), (100, 359, 10_000)))
PANELS = 40


@functools.cache
def simulated(seeds: int, n_samples: int) -> pd.DataFrame:
    """Return contrasts of 40 studies in which k = 3 alone rises faster, by 0.01 a depth; truth: of each difference."""
    rng, rows = np.random.default_rng([seeds, n_samples]), []
    for side in range(1, PANELS + 1):  # panels of one study are as many studies, and sooner made
        rows += networks(rng, {1: 0.01, 2: 0.01, 3: 0.02}, seeds, (64, 128), n_samples, pooling=side)
    made = contrasts(table(rows), bound=0.01)
    other = made["quantity"].map({"early gain": 0.01, "slope": 0.01, "final level": 0.03})
    return made.assign(truth=other.where(made["second"] == "greedy, k = 3", 0.0))


def at_most(rate: float, count: int) -> float:
    """Return the largest share of so many draws that a true rate gives, but once in 30,000 times."""
    return rate + 4 * math.sqrt(rate * (1 - rate) / count)


@pytest.mark.parametrize(("seeds", "n_samples"), SETTINGS)
def test_contrasts_cover_the_truth_and_reject_a_true_null_no_more_often_than_they_say(
    seeds: int, n_samples: int
) -> None:
    made = simulated(seeds, n_samples)
    missed = (made["ci_low"] > made["truth"]) | (made["truth"] > made["ci_high"])
    # The two differences from k = 3 share its networks, so that half of the intervals count.
    assert missed.mean() < at_most(0.05, len(made) // 2)
    null = made[made["truth"] == 0]
    assert (null["p"] < 0.05).mean() < at_most(0.05, len(null))


def test_families_of_true_nulls_have_a_false_one_and_bounds_are_called_kept_5_times_of_100_at_most() -> None:
    made = pd.concat([simulated(*setting).assign(setting=str(setting)) for setting in SETTINGS])
    null = made[made["truth"] == 0]
    smallest = null.groupby(["setting", "pooling"])["p_holm"].min()
    assert len(smallest) == PANELS * len(SETTINGS)
    assert (smallest < 0.05).mean() < at_most(0.05, len(smallest))
    at_the_bound = made[(made["quantity"] == "early gain") & (made["truth"] == 0.01)]
    assert (at_the_bound["p_within"] < 0.05).mean() < at_most(0.05, len(at_the_bound) // 2)


def test_a_family_is_all_numbers_and_pairs_of_one_probe_that_answer_one_question() -> None:
    rng = np.random.default_rng(5)
    rows = networks(rng, {1: 0.0, 2: 0.004, 3: 0.008}) + networks(rng, {1: 0.0, 2: 0.0, 3: 0.0}, mode="parallel")
    rows += networks(rng, {1: 0.0, 2: 0.0}, mode="untrained")  # those of k = 2 stand for k = 3 too
    rows += [row | {"pooling": 4, "value": row["value"] / 2} for row in rows]
    made = contrasts(table(rows))
    families = made.groupby(["pooling", "compares"])
    sizes = {"k": 18, "mode": 9, "training": 18}
    assert families.size().to_dict() == {(side, what): n for side in (2, 4) for what, n in sizes.items()}
    pairs = made.loc[made["compares"] == "training", ["first", "second"]].drop_duplicates()
    assert {("greedy, k = 3", "untrained, k = 2"), ("parallel, k = 1", "untrained, k = 1")} < set(
        pairs.itertuples(index=False, name=None)
    )
    for _, family in families:
        assert family["p_holm"].tolist() == holm(list(family["p"]))
        assert family["p_within_holm"].tolist() == holm(list(family["p_within"]))


def test_a_network_that_lacks_a_depth_lacks_the_numbers_of_that_depth() -> None:
    rows = [row for row in networks(np.random.default_rng(7), {1: 0.0, 2: 0.01}) if row["depth"] != 4]
    assert contrasts(table(rows))["quantity"].tolist() == ["early gain", "slope"]
    rows = [row for row in networks(np.random.default_rng(7), {1: 0.0, 2: 0.01}) if row["depth"] != 1]
    assert contrasts(table(rows))["quantity"].tolist() == ["slope", "final level"]


def test_one_seed_a_width_says_that_nothing_is_known() -> None:
    made = contrasts(table(networks(np.random.default_rng(6), {1: 0.01, 2: 0.03}, seeds=1)))
    assert made[["ci_low", "ci_high", "p", "p_within", "p_holm", "p_within_holm"]].isna().all(axis=None)
    assert set(made["freedom"]) == {0}
    assert made["difference"].iloc[1] == pytest.approx(0.02, abs=0.02)


def test_lines_without_a_width_in_common_are_not_compared() -> None:
    rng = np.random.default_rng(8)
    rows = networks(rng, {1: 0.0}, widths=(64,)) + networks(rng, {2: 0.0}, widths=(128,))
    assert contrasts(table(rows)).empty
