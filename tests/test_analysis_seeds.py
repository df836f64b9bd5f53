"""Statistics over seeds: the images' share, equivalence, and by simulation size, coverage and power on small test sets.

Accuracies are counts. Of the images some are always right, some always wrong, and the others right by chance in each
network, so that they are a share `disagreement` of p (1 - p) / n in variance, as seeds of one network have 0.4 to 0.65.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.seeds import Cells, Estimate, difference, images_variance, pooled

STUDIES = 10_000
# The share of studies in which something of chance 5% happens is at most this but once in 30,000 times.
AT_MOST = 0.05 + 4 * math.sqrt(0.05 * 0.95 / STUDIES)
SEEDS, TEST_SETS, WIDTHS = (2, 3, 5), ((100, 0.97), (100, 0.7), (359, 0.95), (10_000, 0.85)), (1, 2)


class Many(NamedTuple):
    """The same statistics of many studies: arrays of Student's and of the images' standard errors, and of means."""

    mean: np.ndarray
    error: np.ndarray
    images: np.ndarray
    freedom: int

    def p(self, distance: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            by_seeds = np.where(self.error > 0, stats.t.sf(distance / self.error, self.freedom), distance <= 0)
        return np.maximum(by_seeds, stats.norm.sf(distance / self.images))

    def rejected(self, truth: float = 0.0) -> float:
        return float(np.mean(2 * self.p(np.abs(self.mean - truth)) < 0.05))


def accuracies(
    rng: np.random.Generator, n: int, p: float, shift: np.ndarray, disagreement: float = 0.5
) -> tuple[np.ndarray, float]:
    """Return accuracies over n images of networks of the given shifts, and their mean without one."""
    chance, uncertain = 0.5, round(4 * disagreement * p * (1 - p) * n)
    if uncertain > 2 * (1 - p) * n:  # so few are wrong that all of them are uncertain
        chance = disagreement * p
        uncertain = round((1 - p) * n / (1 - chance))
    certain = round(p * n - uncertain * chance)
    draws = rng.binomial(uncertain, np.clip(chance + shift * n / uncertain, 0, 1))
    return (certain + draws) / n, (certain + uncertain * chance) / n


def simulated(
    seeds: int, n: int, p: float, widths: int, paired: bool, rise: float = 0.0, deviation: float = 0.003
) -> tuple[np.ndarray, np.ndarray]:
    """Return accuracies [studies, widths, seeds] of two kinds of networks whose means differ by `rise`."""
    rng = np.random.default_rng([seeds, n, widths, paired])
    shape = (STUDIES, widths, seeds)
    shift = rng.normal(0, deviation, shape)
    first, _ = accuracies(rng, n, p, shift)
    second, _ = accuracies(rng, n, p, (shift if paired else rng.normal(0, deviation, shape)) + rise)
    return first, second


def many(first: np.ndarray, second: np.ndarray, n: int, paired: bool) -> Many:
    """Return what `difference` says of each study, all at once."""
    widths, seeds = first.shape[1:]
    groups = [second - first] if paired else [first, second]
    freedom = len(groups) * widths * (seeds - 1)
    squares = sum((group - group.mean(2, keepdims=True)) ** 2 for group in groups)
    variance = np.asarray(squares).sum((1, 2)) / freedom
    images = (images_variance(first, n) + images_variance(second, n)).sum((1, 2)) / (widths * seeds) ** 2
    error = np.sqrt(variance * len(groups) / (widths * seeds))
    return Many((second - first).mean((1, 2)), error, np.sqrt(images / 2), freedom)


def cells(values: np.ndarray, n: int, start: int = 0) -> Cells:
    seeds = range(start, start + values.shape[1])
    return {
        width: pd.DataFrame({"value": own, "images": images_variance(own, n)}, index=seeds)
        for width, own in enumerate(values)
    }


@pytest.mark.parametrize(("paired", "widths"), list(itertools.product((True, False), WIDTHS)))
def test_the_many_studies_of_the_simulations_are_what_difference_says_of_each(paired: bool, widths: int) -> None:
    first, second = simulated(3, 359, 0.95, widths, paired)
    every = many(first, second, 359, paired)
    for study in range(20):
        own = difference(cells(first[study], 359), cells(second[study], 359, start=0 if paired else 10))
        assert (own.freedom, own.paired) == (every.freedom, paired)
        assert (own.mean, own.error, own.images) == pytest.approx(
            (every.mean[study], every.error[study], every.images[study])
        )
        assert own.p_zero() == pytest.approx(min(1, 2 * every.p(np.abs(every.mean))[study]), abs=1e-12)
        assert own.p_within(0.02) == pytest.approx(every.p(0.02 - np.abs(every.mean))[study], abs=1e-12)


@pytest.mark.parametrize(("paired", "widths", "seeds"), list(itertools.product((True, False), WIDTHS, SEEDS)))
def test_a_difference_that_is_none_is_found_at_most_5_times_of_100(paired: bool, widths: int, seeds: int) -> None:
    """Where nothing differs the interval misses 0 as often as p < 0.05, so that this is its coverage too."""
    for n, p in TEST_SETS:
        assert many(*simulated(seeds, n, p, widths, paired), n, paired).rejected() < AT_MOST, (n, p)


def test_students_t_alone_would_find_one_13_times_of_100() -> None:
    first, second = simulated(2, 100, 0.97, 1, True, deviation=0.0)
    found = many(first, second, 100, True)
    assert found._replace(images=np.full(STUDIES, 1e-9)).rejected() > 0.1
    assert found.rejected() < AT_MOST


@pytest.mark.parametrize("seeds", SEEDS)
def test_intervals_hold_a_true_difference_at_least_95_times_of_100(seeds: int) -> None:
    for (n, p), widths in itertools.product(((100, 0.7), (359, 0.9), (10_000, 0.85)), WIDTHS):
        found = many(*simulated(seeds, n, p, widths, True, rise=0.02), n, True)
        assert found.rejected(truth=0.02) < AT_MOST, (n, widths)


@pytest.mark.parametrize(("seeds", "widths"), list(itertools.product(SEEDS, WIDTHS)))
def test_intervals_of_a_line_hold_its_mean_at_least_95_times_of_100(seeds: int, widths: int) -> None:
    rng = np.random.default_rng([seeds, widths])
    for n, p in TEST_SETS:
        values, truth = accuracies(rng, n, p, rng.normal(0, 0.003, (STUDIES, widths, seeds)))
        # A line is what a difference from an accuracy of 0 that has no variance is.
        found = many(np.zeros_like(values), values, n, True)
        found = found._replace(images=np.sqrt(images_variance(values, n).sum((1, 2)) / 2) / (widths * seeds))
        one = pooled(list(values[0]), [list(images_variance(group, n)) for group in values[0]])
        assert (one.mean, one.error, one.images) == pytest.approx((found.mean[0], found.error[0], found.images[0]))
        assert found.rejected(truth) < AT_MOST, (n, p)


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_difference_of_the_bound_is_called_smaller_at_most_5_times_of_100(seeds: int) -> None:
    for (n, p), widths in itertools.product(((100, 0.7), (359, 0.9), (10_000, 0.85)), WIDTHS):
        found = many(*simulated(seeds, n, p, widths, True, rise=0.02), n, True)
        assert np.mean(found.p(0.02 - np.abs(found.mean)) < 0.05) < AT_MOST, (n, widths)


@pytest.mark.parametrize(("seeds", "widths", "cost"), [(2, 1, 0.05), (2, 2, 0.04), (3, 1, 0.05), (5, 1, 0.04)])
def test_what_the_images_share_costs_in_power(seeds: int, widths: int, cost: float) -> None:
    for n, p, rise in ((359, 0.95, 0.02), (2000, 0.85, 0.01), (10_000, 0.85, 0.005)):
        found = many(*simulated(seeds, n, p, widths, True, rise=rise), n, True)
        without = found._replace(images=np.full(STUDIES, 1e-9))
        assert 0 <= without.rejected() - found.rejected() < cost, n


def test_seeds_that_agree_in_their_difference_leave_no_interval_of_width_0() -> None:
    first, second = (cells(np.array([values]), 359) for values in ([0.90, 0.91], [0.92, 0.93]))
    found = difference(first, second)
    assert found.error == pytest.approx(0, abs=1e-12) and found.mean == pytest.approx(0.02)
    variance = sum(p * (1 - p) / 359 for p in (0.90, 0.91, 0.92, 0.93)) / 4 / 2
    assert found.half_width() == pytest.approx(1.96 * math.sqrt(variance), rel=0.03)
    assert found.p_zero() == pytest.approx(2 * stats.norm.sf(0.02 / math.sqrt(variance)), rel=0.1)


def test_the_variance_by_the_images_is_that_of_a_proportion_and_never_0() -> None:
    assert images_variance(np.array([0.8]), 10_000) == pytest.approx(0.8 * 0.2 / 10_000, rel=0.001)
    assert images_variance(np.array([1.0, 0.0]), 100) == pytest.approx([0.000174] * 2, rel=0.01)


def test_p_values_belong_to_their_intervals() -> None:
    for error, images in ((0.01, 0.001), (0.001, 0.01), (0.004, 0.005)):
        made = Estimate(mean=0.0, error=error, freedom=2, images=images)
        half = made.half_width()
        at_the_end = Estimate(mean=half, error=error, freedom=2, images=images)
        assert at_the_end.p_zero() == pytest.approx(0.05, rel=1e-6)
        assert Estimate(mean=0.01, error=error, freedom=2, images=images).p_within(0.01 + half) == pytest.approx(0.025)
        assert made.p_within(0.01) == Estimate(mean=-0.0, error=error, freedom=2, images=images).p_within(0.01)
    assert Estimate(mean=0.1, error=0.01, freedom=2, images=0.01).p_within(0.05) > 0.5


def test_without_two_seeds_nothing_is_known() -> None:
    found = pooled([[0.5], [0.7]], [[0.001], [0.001]])
    assert found.mean == pytest.approx(0.6)
    assert all(math.isnan(value) for value in (found.error, found.half_width(), found.p_zero(), found.p_within(0.1)))


def test_a_seed_that_one_side_lacks_counts_for_neither() -> None:
    rng = np.random.default_rng(0)
    first, second = cells(rng.uniform(0.7, 0.8, (1, 4)), 359), cells(rng.uniform(0.7, 0.8, (1, 4)), 359)
    cut = {cell: table.drop(index=2) for cell, table in second.items()}
    whole = {cell: table.drop(index=2) for cell, table in first.items()}
    found = difference(first, cut)
    assert found.paired and found == difference(whole, cut)
