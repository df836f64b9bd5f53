"""Statistics over images: against slow forms; intervals cover, and p-values are fair under the null."""

from __future__ import annotations

import numpy as np
import pytest
from reference import mcnemar_exact, paired_bootstrap
from scipy.stats import binomtest

from probes.results.intervals import mean_interval, wilson_interval
from probes.results.paired_tests import holm, mcnemar, paired_interval


def test_it_agrees_with_its_formula() -> None:
    n, p, z = 360, 350 / 360, 1.959963984540054
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert wilson_interval(350 / 360, 360) == pytest.approx((centre - half, centre + half), rel=1e-12)


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (7, 10), (350, 360), (10_000, 10_000)])
def test_it_agrees_with_scipys(correct: int, n: int) -> None:
    theirs = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct / n, n) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-12)


def test_it_stays_in_0_to_1_and_never_collapses() -> None:
    assert wilson_interval(0.0, 10)[0] == 0
    assert wilson_interval(1.0, 10)[1] == 1
    assert wilson_interval(0.0, 10)[1] > 0.2


@pytest.mark.parametrize("n", [100, 360])
@pytest.mark.parametrize("p", [0.1, 0.6, 0.97])
def test_it_covers_the_true_accuracy_about_95_times_of_100(p: float, n: int) -> None:
    bounds = {c: wilson_interval(c / n, n) for c in range(n + 1)}
    draws = np.random.default_rng(0).binomial(n, p, 4000)
    covered = np.mean([bounds[c][0] <= p <= bounds[c][1] for c in draws])
    assert 0.93 < covered < 0.97


def outcomes(n: int, before: float, after: float, together: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return whether n images are told right before and after; a share `together` has one outcome for both."""
    rng = np.random.default_rng(seed)
    one, other = rng.random(n), rng.random(n)
    return one < before, np.where(rng.random(n) < together, one, other) < after


def test_the_paired_interval_is_that_of_images_drawn_one_by_one() -> None:
    before, after = outcomes(300, 0.6, 0.66, 0.7, 0)
    one_won, one_lost = [*before, False, True], [*after, True, False]
    slow = np.quantile(paired_bootstrap(np.array(one_won), np.array(one_lost), 4000, 1), [0.025, 0.975])
    np.testing.assert_allclose(paired_interval(before, after), slow, atol=0.006)


def test_the_paired_interval_covers_the_true_difference() -> None:
    truth = 0.7 - 0.6
    bounds = [paired_interval(*outcomes(400, 0.6, 0.7, 0.8, seed)) for seed in range(600)]
    covered = np.mean([low <= truth <= high for low, high in bounds])
    assert 0.92 < covered < 0.975


# Shares of images that only the second and only the first probe is right about.
CHANGED = ((0.0, 0.0), (0.02, 0.01), (0.03, 0.03), (0.05, 0.0), (0.1, 0.05), (0.2, 0.15))


@pytest.mark.parametrize("n", [50, 100, 359])
@pytest.mark.parametrize(("won", "lost"), CHANGED)
def test_the_paired_interval_covers_the_truth_on_small_test_sets_where_few_images_change(
    n: int, won: float, lost: float
) -> None:
    counts = np.random.default_rng(n).multinomial(n, [won, lost, 1 - won - lost], 600)
    different, times = np.unique(counts, axis=0, return_counts=True)
    covered = 0
    for (gained, gone, same), number in zip(different, times, strict=True):
        low, high = mean_interval(np.repeat([1.0, -1.0, 0.0], [gained, gone, same]))
        assert low < (gained - gone) / n < high
        covered += number * (low <= won - lost <= high)
    assert covered / 600 > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 600)


def test_pairing_makes_the_interval_of_agreeing_probes_narrow() -> None:
    low, high = paired_interval(*outcomes(1000, 0.6, 0.6, 1.0, 0))
    assert -0.004 < low < 0 < high < 0.004
    apart = paired_interval(*outcomes(1000, 0.6, 0.6, 0.0, 0))
    assert apart[1] - apart[0] > 0.05


@pytest.mark.parametrize("seed", range(5))
def test_mcnemars_p_value_is_the_exact_one(seed: int) -> None:
    before, after = outcomes(60, 0.5, 0.6, 0.5, seed)
    assert mcnemar(before, after) == pytest.approx(mcnemar_exact(before, after), rel=1e-9)


def test_mcnemar_without_a_changed_image_is_1() -> None:
    right = np.array([True, False, True])
    assert mcnemar(right, right) == 1.0


def test_mcnemar_is_fair_under_the_null() -> None:
    p = np.array([mcnemar(*outcomes(400, 0.6, 0.6, 0.5, seed)) for seed in range(1500)])
    for level in (0.05, 0.2, 0.5):  # exact tests of counts are never too often, and not much too seldom
        assert 0.6 * level < np.mean(p <= level) < level + 2.5 * np.sqrt(level / 1500)


@pytest.mark.parametrize("n", [50, 100, 359])
@pytest.mark.parametrize("changed", [0.02, 0.06, 0.3])
def test_mcnemar_is_never_too_sure_on_small_test_sets(n: int, changed: float) -> None:
    rng = np.random.default_rng(n)
    p = []
    for number in rng.binomial(n, changed, 1000):
        before = np.arange(n) < rng.binomial(number, 0.5)  # of the changed images, which come first, those lost
        after = (np.arange(n) < number) & ~before
        p.append(mcnemar(before, after))
    for level in (0.05, 0.2):
        assert np.mean(np.array(p) <= level) < level + 3 * np.sqrt(level * (1 - level) / 1000)


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, never falling
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
    # one that is missing counts for nothing
    assert holm([0.04, float("nan"), 0.01]) == pytest.approx([0.04, float("nan"), 0.02], nan_ok=True)


def test_holm_rejects_any_true_null_at_most_5_times_of_100() -> None:
    rng = np.random.default_rng(0)
    false_alarms = np.mean([min(holm(rng.random(5))) < 0.05 for _ in range(4000)])
    assert 0.035 < false_alarms < 0.06
