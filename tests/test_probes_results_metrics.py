"""The numbers of a split: by hand, and the calibration error against one computed bin by bin."""

from __future__ import annotations

import numpy as np
import pytest

from probes.protocol import Predictions, predictions
from probes.results.metrics import CALIBRATION_BINS, calibration_error, metrics


def test_accuracies_of_classes_and_their_names() -> None:
    probability = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0], [0.3, 0.7, 0.0]]) + 1e-12
    found = metrics(predictions(np.log(probability), np.array([0, 0, 0, 1])), ["cat", "dog", "owl"])
    assert found["accuracy"] == pytest.approx(3 / 4)
    assert found["accuracy/cat"] == pytest.approx(2 / 3)
    assert found["accuracy/dog"] == 1
    assert "accuracy/owl" not in found  # no image of it in the split
    assert found["log_loss_bits"] == pytest.approx(-np.log2([0.9, 0.2, 0.6, 0.7]).mean())


@pytest.mark.parametrize(
    ("n_classes", "has_top5", "has_classes"), [(9, False, True), (10, True, True), (101, True, False)]
)
def test_top5_from_ten_classes_on_and_single_classes_up_to_a_hundred(n_classes, has_top5, has_classes) -> None:
    rng = np.random.default_rng(0)
    scores, label = rng.normal(size=(300, n_classes)), rng.integers(0, n_classes, 300)
    found = metrics(
        predictions(scores - np.log(np.exp(scores).sum(1, keepdims=True)), label), [str(c) for c in range(n_classes)]
    )
    assert ("accuracy_top5" in found, any(name.startswith("accuracy/") for name in found)) == (has_top5, has_classes)
    if has_top5:  # against a sort
        five = np.argsort(-scores, 1)[:, :5]
        assert found["accuracy_top5"] == np.mean([own in row for own, row in zip(label, five, strict=True)])
        assert found["accuracy_top5"] > found["accuracy"]


def test_classes_that_tie_are_not_among_the_five_likeliest_unless_predicted() -> None:
    tied = np.log(np.full((2, 10), 0.1))
    assert predictions(tied, np.array([0, 1])).in_top5.tolist() == [True, False]


def binned(scored: Predictions) -> float:
    """Return the calibration error bin by bin, as its source writes it."""
    confidence, right = np.exp(scored.top_log_probability), scored.predicted == scored.label
    total = 0.0
    for m in range(CALIBRATION_BINS):
        inside = (confidence > m / CALIBRATION_BINS) & (confidence <= (m + 1) / CALIBRATION_BINS)
        if inside.any():
            total += inside.sum() / len(right) * abs(right[inside].mean() - confidence[inside].mean())
    return total


def test_the_calibration_error_is_its_sources() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, (500, 5))
    log_probability = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    scored = predictions(log_probability, rng.integers(0, 5, 500))
    assert calibration_error(scored) == pytest.approx(binned(scored), rel=1e-12)
    assert calibration_error(scored) > 0.2


def test_a_calibrated_probe_has_none_and_a_boastful_one_much() -> None:
    label, predicted = np.zeros(100, int), np.array([0] * 70 + [1] * 30)
    calibrated = Predictions(label, predicted, np.zeros(100), np.full(100, np.log(0.7)))
    boastful = Predictions(label, predicted, np.zeros(100), np.zeros(100))
    assert calibration_error(calibrated) == pytest.approx(0, abs=1e-12)
    assert calibration_error(boastful) == pytest.approx(0.3)
