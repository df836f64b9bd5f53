"""Tests of analysis/failures.py: which networks did not train, by an exact test on their own images."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import make_run
from scipy import stats

from analysis.failures import LEVEL, failures, is_above


@pytest.mark.parametrize("n", [50, 400, 5000])
def test_the_first_accuracy_that_counts_is_that_of_the_binomial_distribution(n: int) -> None:
    least = int(stats.binom.isf(LEVEL, n, 0.1)) + 1  # P(X >= least) <= LEVEL
    assert is_above(least / n, 0.1, n) and not is_above((least - 1) / n, 0.1, n)


def test_a_rate_at_which_nothing_is_learned_is_found_and_others_are_not(tmp_path: Path) -> None:
    good = make_run(tmp_path / "good.h5", **{"training.epochs": 2})
    bad = make_run(tmp_path / "bad.h5", **{"training.epochs": 1, "training.learning_rate": 1e-9})
    untrained = make_run(tmp_path / "untrained.h5", mode="untrained")
    found = failures([good, bad, untrained])
    assert list(found) == [bad]
    assert "% on its train fold, chance 10." in found[bad]
