"""The protocol: how a candidate is chosen, what is kept of log-probabilities, what a run allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import make_run

from layerwise.runfile import RunFile
from probes.protocol import Predictions, choose, predictions, selection


def test_predictions_keep_class_and_probability_of_the_truth() -> None:
    probability = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.5, 0.25, 0.25]])
    found = predictions(np.log(probability), np.array([0, 1, 2]))
    assert found.predicted.tolist() == [0, 2, 0]
    assert found.correct == 1
    assert found.accuracy == pytest.approx(1 / 3)
    np.testing.assert_allclose(np.exp(found.top_log_probability), [0.7, 0.6, 0.5])
    assert found.log_loss_bits == pytest.approx(-np.log2([0.7, 0.3, 0.25]).mean())


def scored(correct: int, probability: float) -> Predictions:
    predicted = np.array([0] * correct + [1] * (4 - correct))
    log_probability = np.full(4, np.log(probability))
    return Predictions(np.zeros(4, dtype=int), predicted, log_probability, log_probability)


def test_the_best_validation_accuracy_is_chosen_and_ties_go_to_the_lower_loss() -> None:
    candidates = [scored(2, 0.9), scored(3, 0.2), scored(3, 0.5), scored(1, 0.99)]
    assert choose(candidates, lambda c: c) == 2


def test_a_run_without_a_fold_allows_no_choice(run_path: Path, tmp_path: Path) -> None:
    with RunFile(run_path) as run:
        assert selection(run) == "validation"
    with RunFile(make_run(tmp_path / "run.h5", **{"data.holdout": 0.0, "training.epochs": 1})) as run:
        assert selection(run) == "seen"
