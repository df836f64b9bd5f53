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
