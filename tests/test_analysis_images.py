"""Measures of single images on arrays: against slow forms by their definitions, and truths of each."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from analysis.images.depth import changes, prediction_depth
from analysis.images.disagreement import disagreement
from analysis.images.shares import share
from analysis.images.votes import agreement, entropy, people, rank_correlation
from probes.results.paired_tests import holm, mcnemar
from tests import images_reference as slow


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("classes", [2, 4])
def test_prediction_depth_is_its_definition(rng: np.random.Generator, classes: int) -> None:
    predicted = rng.integers(0, classes, (500, 6))
    assert prediction_depth(predicted).tolist() == slow.prediction_depth(predicted.tolist())
    assert prediction_depth(np.array([[1, 1, 1], [1, 2, 1], [2, 1, 1], [1, 1, 2]])).tolist() == [0, 2, 1, 2]


def test_prediction_depth_knows_no_names_of_classes_and_no_order_of_images(rng: np.random.Generator) -> None:
    predicted, renamed, order = rng.integers(0, 3, (200, 4)), np.array([7, 1, 5]), rng.permutation(200)
    assert (prediction_depth(renamed[predicted]) == prediction_depth(predicted)).all()
    assert (prediction_depth(predicted[order]) == prediction_depth(predicted)[order]).all()


def test_changes_are_counted_and_tested_as_the_table_does(rng: np.random.Generator) -> None:
    right = rng.random((300, 4)) < [0.4, 0.5, 0.5, 0.9]
    found = changes(right)
    p_values = [mcnemar(right[:, j], right[:, j + 1]) for j in range(3)]
    assert [one.p for one in found] == p_values and [one.p_holm for one in found] == holm(p_values)
    for j, one in enumerate(found):
        assert one.learnt.tolist() == [bool(b and not a) for a, b in right[:, j : j + 2]]
        assert one.lost.tolist() == [bool(a and not b) for a, b in right[:, j : j + 2]]
        assert one.low < one.learnt.mean() - one.lost.mean() < one.high
    assert found[2].p_holm < 1e-9 < found[1].p_holm


def test_disagreement_is_its_definition_and_kappa_that_of_others(rng: np.random.Generator) -> None:
    label, first, second = rng.integers(0, 4, (3, 400))
    second = np.where(rng.random(400) < 0.4, first, second)
    found = disagreement(first, second, label)
    same, expected, kappa = slow.error_consistency(first.tolist(), second.tolist(), label.tolist())
    assert found["one_right"].value == pytest.approx(1 - same)
    assert found["independent"].value == pytest.approx(1 - expected)
    assert found["excess"].value == pytest.approx(expected - same)
    assert found["kappa"].value == pytest.approx(kappa)
    assert found["kappa"].value == pytest.approx(cohen_kappa_score(first == label, second == label))
    both = [(a, b) for a, b, y in zip(first, second, label, strict=True) if y not in (a, b)]
    assert found["same_error"].value == pytest.approx(sum(a == b for a, b in both) / len(both))
    assert found["same_error"].n == len(both)
    assert found["least"].value <= found["one_right"].value <= found["differ"].value
    assert all(one.low <= one.value <= one.high for one in found.values())


def test_disagreement_is_symmetric_and_0_of_one_probe_with_itself(rng: np.random.Generator) -> None:
    label, first, second = rng.integers(0, 3, (3, 200))
    one, other = disagreement(first, second, label), disagreement(second, first, label)
    assert {name: found.value for name, found in one.items()} == {name: found.value for name, found in other.items()}
    same = disagreement(first, first, label)
    assert [same[name].value for name in ("one_right", "least", "differ", "kappa", "same_error")] == [0, 0, 0, 1, 1]
    assert same["one_right"].high > 0  # 200 images do not show that none differs
    perfect = disagreement(label, label, label)
    assert math.isnan(perfect["kappa"].value) and math.isnan(perfect["same_error"].value)
    assert perfect["same_error"].n == 0


def test_intervals_of_kappa_hold_its_value_as_often_as_they_say(rng: np.random.Generator) -> None:
    cells = np.array([0.6, 0.1, 0.05, 0.25])  # right by both, by one, by the other, by none
    independent = 0.7 * 0.35 + 0.3 * 0.65
    truth = {"kappa": 1 - 0.15 / independent, "excess": 0.15 - independent}
    held = dict.fromkeys(truth, 0)
    for _ in range(150):
        drawn = rng.choice(4, 150, p=cells)
        found = disagreement((drawn > 1).astype(int), (drawn % 2).astype(int), np.zeros(150, int))
        for name, value in truth.items():
            held[name] += found[name].low <= value <= found[name].high
    assert all(0.90 <= number / 150 <= 0.985 for number in held.values()), held


def test_votes_are_counted_a_voter_at_a_time(rng: np.random.Generator) -> None:
    counts = rng.multinomial(7, [0.6, 0.3, 0.1, 0.0], size=60).astype(float)
    counts[0] = [1, 0, 0, 0]  # one voter, of whom no two agree or disagree
    predicted, label = rng.integers(0, 4, (2, 60))
    found = agreement(counts, predicted, label)
    assert {name: one.value for name, one in found.items()} == pytest.approx(slow.agreement(counts, predicted, label))
    assert people(counts).value == pytest.approx(slow.people(counts)) and people(counts).n == 59
    assert entropy(counts) == pytest.approx([slow.entropy(row) for row in counts])
    assert entropy(np.ones((1, 4))) == pytest.approx([2.0])


def test_rank_correlation_is_scipys_and_missing_where_nothing_differs(rng: np.random.Generator) -> None:
    first = rng.integers(0, 4, 400)
    second = first + rng.normal(0, 2, 400).round(1)
    found = rank_correlation(first, second)
    assert found.value == pytest.approx(spearmanr(first, second).statistic)
    draws = [spearmanr(first[rows], second[rows]).statistic for rows in rng.integers(0, 400, (400, 400))]
    assert (found.low, found.high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.02)
    assert math.isnan(rank_correlation(np.zeros(9), second[:9]).value)


def test_a_share_of_no_image_is_missing() -> None:
    assert math.isnan(share(np.array([])).value) and share(np.array([])).n == 0
