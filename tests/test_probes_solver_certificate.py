"""The certificate of a linear fit: a bound that holds for every fit, and that converged ones meet."""

from __future__ import annotations

import linear_problems
import numpy as np
import pytest
import torch
from linear_problems import PATH, blobs, plain, problem
from reference import linear_objective, linear_optimum

from probes.solver.certificate import certify
from probes.solver.path import LOSSES, fit_path


@pytest.fixture
def float32_work(monkeypatch):
    """Make small problems start in float32, as large ones do."""
    monkeypatch.setattr("probes.solver.newton._SMALL", 0)


@pytest.fixture(scope="module")
def digits():
    return linear_problems.digits()


@pytest.mark.parametrize("loss", LOSSES)
def test_the_certificate_bounds_the_suboptimality_of_unconverged_fits(loss):
    X, y = blobs(n=90, seed=4)
    optima = {lam: linear_optimum(torch.from_numpy(X), torch.from_numpy(y), lam, loss, 3)[2] for lam in PATH}
    unconverged = 0
    for max_iter in range(6):
        for fit in fit_path(X, y, PATH, n_classes=3, loss=loss, max_iter=max_iter, tol=1e-12):
            assert fit.objective - optima[fit.lam] <= fit.certificate
            assert fit.iterations <= max_iter
            unconverged += not fit.converged
    assert unconverged > 8


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_the_certificate_bounds_the_suboptimality_of_any_weights(loss, scale):
    X, y = blobs(n=60, seed=5)
    y = np.where(y == 2, np.arange(60) % 20 == 2, y) * 1  # unequal classes
    y[:5] = 2
    features, labels, lam = torch.from_numpy(X), torch.from_numpy(y), 1e-3
    optimum = linear_optimum(features, labels, lam, loss, 3)[2]
    shape = (1, 3, 5) if loss == "multinomial" else (3, 1, 5)
    for seed in range(5):
        weights = scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        theta = torch.cat([weights, torch.zeros(*shape[:2], 1, dtype=torch.float64)], 2)
        lams = torch.full(shape[:1], lam, dtype=torch.float64)
        found = certify(plain(features), problem(loss, labels, 3), theta, lams)
        assert (found.rounding < 1e-10 * (1 + found.bound)).all()
        objective = linear_objective(
            weights.reshape(3, 5),
            found.logits.theta[..., -1].reshape(3) - weights.reshape(3, 5) @ features.mean(0),
            features,
            labels,
            lam,
            loss,
        )
        assert float(found.objective.sum()) == pytest.approx(float(objective), rel=1e-12)
        assert float(objective) - optimum <= float(found.bound.sum())


@pytest.mark.parametrize("loss", LOSSES)
def test_the_certificate_meets_the_default_tolerance(loss, digits):
    X, y = digits
    for fit in fit_path(X.astype(np.float32), y, [1e-1, 1e-3, 1e-5, 1e-7], n_classes=10, loss=loss):
        assert fit.converged
        assert 0 < fit.certificate <= 1e-4 * fit.objective


@pytest.mark.parametrize("loss", LOSSES)
def test_work_in_float32_reaches_the_same_certificate(loss, digits, float32_work):
    X, y = digits
    for fit in fit_path(X.astype(np.float32), y, [1e-1, 1e-3, 1e-5, 1e-7], n_classes=10, loss=loss):
        assert fit.converged


def test_rounding_is_a_small_part_of_the_certificate(digits):
    X, y = digits
    (fit,) = fit_path(X, y, [1e-3], n_classes=10, tol=1e-9)
    assert fit.converged
    assert 0 < fit.certificate <= 1e-9


def test_a_fit_that_misses_the_tolerance_says_so_and_does_not_raise(digits):
    X, y = digits
    (fit,) = fit_path(X, y, [1e-5], n_classes=10, max_iter=1)
    assert not fit.converged
    assert fit.iterations == 1
    assert fit.certificate > 1e-4 * fit.objective
