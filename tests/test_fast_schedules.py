"""The benchmark of fast schedules: equal operations, rates chosen alike on the fold, differences paired by seed."""

from __future__ import annotations

import pandas as pd
import pytest

from layerwise.training.operations import count_operations
from tests.benchmarks.fast_schedules import CIFAR10, SIDES, TRIED, _next, differences, side, wanted


@pytest.mark.parametrize("k", [1, 2, 3])
def test_both_sides_cost_alike(k: int) -> None:
    fast, paper = side(k, "fast"), side(k, "paper")
    costs = [sum(count_operations(one, CIFAR10).training) for one in (fast, paper)]
    epoch = costs[1] / paper.training.epochs
    assert 0 <= costs[0] - costs[1] < epoch  # one epoch more would cost more than the other side
    share = paper.training.lr_every / paper.training.epochs
    assert share == pytest.approx(15 / 50, abs=0.5 / paper.training.epochs)


def row(name: str, rate: float, seed: int, images: int, score: float) -> dict[str, object]:
    about = {"k": 2, "side": name, "rate": rate, "seed": seed, "images": images, "last": 1}
    return {**about, "validation": score, "test": score - 0.01}


def test_a_rate_is_chosen_on_the_fold_before_any_seed_is_trained() -> None:
    rows = [row("fast", rate, 0, TRIED, score) for rate, score in ((0.5, 0.4), (1.0, 0.5), (2.0, 0.6))]
    pairs = [(2, name) for name in SIDES]
    assert wanted(pd.DataFrame(rows), 2, "fast", 2)[3:] == [(2.0, 0, 50_000), (2.0, 1, 50_000)]
    assert _next(pd.DataFrame(rows), pairs, 2) == (2, "paper", 0.5, 0, TRIED)
    rows += [row("paper", rate, 0, TRIED, score) for rate, score in ((0.5, 0.7), (1.0, 0.5), (2.0, 0.6))]
    order = []
    while todo := _next(pd.DataFrame(rows), pairs, 2):
        order.append(todo[1:4])
        rows.append(row(*todo[1:], 0.5))
    assert order == [("fast", 2.0, 0), ("paper", 0.5, 0), ("fast", 2.0, 1), ("paper", 0.5, 1)]


def test_differences_are_paired_by_seed() -> None:
    scores = {("fast", 0): 0.60, ("fast", 1): 0.64, ("fast", 2): 0.70, ("paper", 0): 0.59, ("paper", 1): 0.61}
    rows = [row(name, 1.0, seed, 50_000, score) for (name, seed), score in scores.items()]
    found = differences(pd.DataFrame([*rows, row("fast", 1.0, 0, TRIED, 0.1)]))
    assert found["split"].tolist() == ["validation", "test"]
    for score, one in zip((62.0, 61.0), found.to_dict("records"), strict=True):
        assert (one["seeds"], one["fast"], one["points"]) == (2, pytest.approx(score), pytest.approx(2.0))
        assert one["high"] - one["points"] == pytest.approx(12.706, abs=1e-3)  # t of 1 degree of freedom, sem 1
