"""A fitted linear classifier: scores and probabilities from any source of features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from linear_problems import blobs

from layerwise.errors import UserError
from probes.solver.fit import LinearFit, log_proba, log_proba_blocks
from probes.solver.path import LOSSES, fit_path
from probes.solver.standardiser import Standardiser


@pytest.mark.parametrize("loss", LOSSES)
def test_scores_are_those_of_coefficients_on_standardised_features(loss):
    X, y = blobs()
    X = (4 * X + 2).astype(np.float16)
    standardiser = Standardiser(X)
    (fit,) = fit_path(X, y, [1e-2], n_classes=3, loss=loss, standardiser=standardiser)
    expected = standardiser(X).astype(np.float64) @ fit.coef.T + fit.intercept
    np.testing.assert_allclose(fit.decision_function(X, standardiser=standardiser), expected, rtol=1e-12)
    np.testing.assert_allclose(fit.decision_function(torch.from_numpy(standardiser(X))), expected, rtol=1e-12)


def test_probabilities_are_softmax_and_normalised_sigmoids():
    X, y = blobs()
    for loss in ("multinomial", "ovr"):
        (fit,) = fit_path(X, y, [1e-2], n_classes=3, loss=loss)
        scores = fit.decision_function(X)
        odds = np.exp(scores) if loss == "multinomial" else 1 / (1 + np.exp(-scores))
        np.testing.assert_allclose(np.exp(log_proba(fit, X)), odds / odds.sum(1, keepdims=True), rtol=1e-10)


def test_squared_hinge_has_no_probabilities():
    X, y = blobs()
    (fit,) = fit_path(X, y, [1e-2], n_classes=3, loss="squared_hinge")
    with pytest.raises(UserError, match="squared_hinge loss defines no probabilities; use multinomial or ovr"):
        log_proba(fit, X)


def test_features_of_another_width_are_refused():
    X, y = blobs()
    (fit,) = fit_path(X, y, [1e-2], n_classes=3)
    with pytest.raises(UserError, match="^depth 1: found 4 features, expected 5, as in the fit"):
        fit.decision_function(X[:, :4], where="depth 1")


@pytest.mark.parametrize("loss", ["multinomial", "ovr"])
def test_log_probabilities_come_in_blocks_of_bounded_size_that_join_to_all(loss):
    rng = np.random.default_rng(0)
    n, d, n_classes = 3000, 3, 1000
    fit = LinearFit(rng.normal(size=(n_classes, d)), rng.normal(size=n_classes), 1e-3, loss, 1.0, 0.0, 1, True)
    x = rng.normal(size=(n, d))
    blocks = [len(block) for block in log_proba_blocks(fit, x)]
    assert sum(blocks) == n and max(blocks) * n_classes <= 1 << 20
    scores = x @ fit.coef.T + fit.intercept
    expected = scores if loss == "multinomial" else -np.logaddexp(0, -scores)
    expected -= np.logaddexp.reduce(expected, 1)[:, None]
    np.testing.assert_allclose(log_proba(fit, x), expected, rtol=1e-9, atol=1e-12)
