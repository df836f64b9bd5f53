"""Paths for several label vectors and weights at once: as if each were solved alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from linear_problems import blobs
from reference import linear_optimum

from layerwise.errors import UserError
from probes.solver.folds import Folds
from probes.solver.path import LOSSES, fit_path, fit_paths

LAMS = [1e-2, 1e-4]


def folds(n: int, n_folds: int) -> np.ndarray:
    """Return masks bool [n_folds, n] that each leave out another part."""
    return np.arange(n) % n_folds != np.arange(n_folds)[:, None]


def assert_same(one, other, tol=1e-9):
    assert one.lam == other.lam
    assert one.converged
    assert one.objective == pytest.approx(other.objective, abs=2 * tol)
    np.testing.assert_allclose(one.coef, other.coef, atol=2 * np.sqrt(2 * tol / one.lam))


@pytest.mark.parametrize("loss", LOSSES)
def test_masks_are_fits_on_the_rows_they_keep(loss):
    X, y = blobs(seed=20)
    masks = folds(len(y), 3)
    paths = fit_paths(X, y, LAMS, n_classes=3, loss=loss, sample_weight=masks, tol=1e-9)
    for mask, path in zip(masks, paths, strict=True):
        alone = fit_path(X[mask], y[mask], LAMS, n_classes=3, loss=loss, tol=1e-9)
        for one, other in zip(path, alone, strict=True):
            assert_same(one, other)


@pytest.mark.parametrize("loss", LOSSES)
def test_label_vectors_are_solved_as_if_alone(loss):
    X, y = blobs(seed=21)
    rng = np.random.default_rng(0)
    labels = np.stack([y, rng.permutation(y), np.minimum(y, 1)])  # the last has a class less
    paths = fit_paths(X, labels, LAMS, n_classes=3, loss=loss, tol=1e-9)
    for label, path in zip(labels, paths, strict=True):
        for one, other in zip(path, fit_path(X, label, LAMS, n_classes=3, loss=loss, tol=1e-9), strict=True):
            assert_same(one, other)
    assert (paths[2][0].intercept == -np.inf).tolist() == [False, False, True]


@pytest.mark.parametrize("loss", LOSSES)
def test_whole_weights_are_repeated_rows(loss):
    X, y = blobs(n=60, seed=22)
    weight = np.arange(60) % 4  # some are 0
    (fit,) = fit_path(X, y, [1e-3], n_classes=3, loss=loss, sample_weight=weight, tol=1e-9)
    rows = np.repeat(np.arange(60), weight)
    optimum = linear_optimum(torch.from_numpy(X[rows]), torch.from_numpy(y[rows]), 1e-3, loss, 3)[2]
    assert fit.converged
    assert fit.objective == pytest.approx(optimum, abs=2e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_scale_of_weights_means_nothing(loss):
    X, y = blobs(seed=23)
    weight = np.random.default_rng(1).random(len(y))
    (fit,) = fit_path(X, y, [1e-3], n_classes=3, loss=loss, sample_weight=weight, tol=1e-9)
    (scaled,) = fit_path(X, y, [1e-3], n_classes=3, loss=loss, sample_weight=1e3 * weight, tol=1e-9)
    assert_same(fit, scaled)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_certificate_bounds_weighted_fits_that_are_not_converged(loss):
    X, y = blobs(n=60, seed=24)
    weight = np.arange(60) % 3
    rows = np.repeat(np.arange(60), weight)
    optimum = linear_optimum(torch.from_numpy(X[rows]), torch.from_numpy(y[rows]), 1e-3, loss, 3)[2]
    for max_iter in range(4):
        (fit,) = fit_path(X, y, [1e-3], n_classes=3, loss=loss, sample_weight=weight, max_iter=max_iter, tol=1e-12)
        assert 0 <= fit.objective - optimum <= fit.certificate


def test_a_class_without_weight_is_absent():
    X, y = blobs(seed=25)
    (fit,) = fit_path(X, y, [1e-2], n_classes=3, sample_weight=y != 1)
    assert fit.intercept[1] == -np.inf
    (alone,) = fit_path(X[y != 1], y[y != 1], [1e-2], n_classes=3)
    assert fit.objective == pytest.approx(alone.objective, abs=fit.certificate + alone.certificate)


def test_shares_are_weights_of_classes():
    labels = torch.tensor([[3, 5, 5, 3], [5, 3, 3, 3]])
    weights = torch.tensor([[1.0, 1, 2, 0], [1, 1, 1, 1]], dtype=torch.float64)
    made = Folds(labels, weights, torch.tensor([3, 5]), torch.device("cpu"))
    torch.testing.assert_close(made.share, torch.tensor([[0.25, 0.75], [0.75, 0.25]], dtype=torch.float64))
    targets = made.targets(torch.tensor([1, 0, 1]))
    assert targets.of_problems()[0].tolist() == [1, 0, 0, 0]
    assert targets.weights.sum(1).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(7), r"found sample weights of shape \(1, 7\), expected \[120\] or \[paths, 120\]"),
        (np.r_[-1.0, np.ones(119)], "found 1 sample weights that are negative or not finite"),
        (np.r_[np.nan, np.inf, np.ones(118)], "found 2 sample weights that are negative or not finite"),
        (np.zeros(120), "found labels of 0 classes, expected at least 2"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(weight, message):
    X, y = blobs()
    with pytest.raises(UserError, match=f"^depth 2: {message}"):
        fit_path(X, y, [1e-2], n_classes=3, sample_weight=weight, where="depth 2")


def test_numbers_of_paths_that_differ_are_refused():
    X, y = blobs()
    with pytest.raises(UserError, match="found 2 label vectors, 3 rows of weights and 0 fits to start from, expected"):
        fit_paths(X, np.stack([y, y]), [1e-2], n_classes=3, sample_weight=folds(120, 3))
