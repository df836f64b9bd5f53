"""The interval over images: bounds, and that it covers as often as it says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from probes.statistics import wilson_interval


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


@pytest.mark.parametrize("p", [0.1, 0.6, 0.97])
def test_it_covers_the_true_accuracy_about_95_times_of_100(p: float) -> None:
    n = 360
    bounds = {c: wilson_interval(c / n, n) for c in range(n + 1)}
    draws = np.random.default_rng(0).binomial(n, p, 4000)
    covered = np.mean([bounds[c][0] <= p <= bounds[c][1] for c in draws])
    assert 0.93 < covered < 0.97
