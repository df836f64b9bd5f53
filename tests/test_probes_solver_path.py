"""A path of penalties: against slow oracles and scikit-learn, and where nothing may change."""

from __future__ import annotations

import linear_problems
import numpy as np
import pytest
import torch
from linear_problems import PATH, blobs, objective_of
from reference import linear_optimum
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from probes.solver.fit import log_proba
from probes.solver.path import LOSSES, fit_path


@pytest.fixture
def float32_work(monkeypatch):
    """Make small problems start in float32, as large ones do."""
    monkeypatch.setattr("probes.solver.newton._SMALL", 0)


@pytest.fixture(scope="module")
def digits():
    return linear_problems.digits()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_path_reaches_the_optimum_of_a_slow_oracle(loss):
    X, y = blobs()
    for fit in fit_path(X, y, PATH, n_classes=3, loss=loss, tol=1e-9):
        coef, intercept, optimum = linear_optimum(torch.from_numpy(X), torch.from_numpy(y), fit.lam, loss, 3)
        assert fit.converged
        assert fit.objective == pytest.approx(optimum, abs=2e-9)
        # a gap g bounds the distance: lam/2 |W - W*|^2 <= g
        assert np.linalg.norm(fit.coef - coef) <= np.sqrt(2 * fit.certificate / fit.lam) + 1e-6
        differences = np.diff(intercept) if loss == "multinomial" else intercept
        found = np.diff(fit.intercept) if loss == "multinomial" else fit.intercept
        np.testing.assert_allclose(found, differences, atol=np.linalg.norm(fit.coef - coef) + 1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_objective_returned_is_that_of_the_coefficients_returned(loss):
    X, y = blobs(seed=1)
    X = X + 3.0  # not centred: the intercept returned must be that of the features as given
    for max_iter in (0, 2, 100):
        for fit in fit_path(X, y, PATH, n_classes=3, loss=loss, max_iter=max_iter):
            assert fit.objective == pytest.approx(objective_of(fit, X, y), rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_order_of_the_path_is_kept_and_each_fit_is_as_if_alone(loss):
    X, y = blobs(seed=2)
    together = fit_path(X, y, [1e-3, 1e-1, 1e-4], n_classes=3, loss=loss, tol=1e-9)
    assert [fit.lam for fit in together] == [1e-3, 1e-1, 1e-4]
    for fit in together:
        (alone,) = fit_path(X, y, [fit.lam], n_classes=3, loss=loss, tol=1e-9)
        assert alone.objective == pytest.approx(fit.objective, abs=1e-9)
        np.testing.assert_allclose(alone.coef, fit.coef, atol=2 * np.sqrt(2e-9 / fit.lam))


def test_a_path_that_is_split_for_memory_is_the_same_path(monkeypatch):
    X, y = blobs(seed=3)
    whole = fit_path(X, y, PATH, n_classes=3)
    monkeypatch.setattr("probes.solver.design_matrix._FEW_LOGITS", 1)
    split = fit_path(X, y, PATH, n_classes=3)
    for one, other in zip(whole, split, strict=True):
        assert one.objective == pytest.approx(other.objective, abs=one.certificate + other.certificate)


def test_multinomial_agrees_with_scikit_learn(digits):
    X, y = digits
    lam = 1e-3
    theirs = LogisticRegression(C=1 / (len(X) * lam), tol=1e-8, max_iter=10_000).fit(X, y)
    (ours,) = fit_path(X, y, [lam], n_classes=10, tol=1e-9)
    np.testing.assert_allclose(ours.coef, theirs.coef_, atol=1e-3)
    np.testing.assert_allclose(np.exp(log_proba(ours, X)), theirs.predict_proba(X), atol=1e-4)


def test_one_versus_rest_agrees_with_scikit_learn(digits):
    X, y = digits
    lam = 1e-3
    theirs = OneVsRestClassifier(LogisticRegression(C=1 / (len(X) * lam), tol=1e-8, max_iter=10_000)).fit(X, y)
    (ours,) = fit_path(X, y, [lam], n_classes=10, loss="ovr", tol=1e-9)
    coef = np.concatenate([each.coef_ for each in theirs.estimators_])
    np.testing.assert_allclose(ours.coef, coef, atol=1e-4)
    np.testing.assert_allclose(np.exp(log_proba(ours, X)), theirs.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_rotating_the_features_rotates_the_weights(loss):
    X, y = blobs(seed=6)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    (fit,) = fit_path(X, y, [1e-3], n_classes=3, loss=loss, tol=1e-9)
    (turned,) = fit_path(X @ rotation, y, [1e-3], n_classes=3, loss=loss, tol=1e-9)
    np.testing.assert_allclose(turned.coef, fit.coef @ rotation, atol=1e-3)
    assert turned.objective == pytest.approx(fit.objective, abs=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
def test_renaming_the_classes_permutes_the_fit(loss):
    X, y = blobs(seed=7)
    names = np.array([2, 0, 1])
    (fit,) = fit_path(X, y, [1e-3], n_classes=3, loss=loss, tol=1e-9)
    (renamed,) = fit_path(X, names[y], [1e-3], n_classes=3, loss=loss, tol=1e-9)
    np.testing.assert_allclose(renamed.coef[names], fit.coef, atol=1e-3)


@pytest.mark.parametrize("loss", LOSSES)
def test_repeating_the_samples_changes_nothing_at_the_same_lambda(loss):
    X, y = blobs(seed=8)
    (fit,) = fit_path(X, y, [1e-3], n_classes=3, loss=loss, tol=1e-9)
    (twice,) = fit_path(np.tile(X, (2, 1)), np.tile(y, 2), [1e-3], n_classes=3, loss=loss, tol=1e-9)
    np.testing.assert_allclose(twice.coef, fit.coef, atol=1e-3)
    assert twice.objective == pytest.approx(fit.objective, abs=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
def test_shifting_the_features_changes_the_intercept_only(loss):
    X, y = blobs(seed=9)
    (fit,) = fit_path(X, y, [1e-3], n_classes=3, loss=loss, tol=1e-9)
    (moved,) = fit_path(X + 2, y, [1e-3], n_classes=3, loss=loss, tol=1e-9)
    np.testing.assert_allclose(moved.coef, fit.coef, atol=1e-3)
    np.testing.assert_allclose(moved.decision_function(X + 2), fit.decision_function(X), atol=1e-2)


def test_multinomial_weights_sum_to_zero_over_classes():
    X, y = blobs(seed=10)
    (fit,) = fit_path(X, y, [1e-3], n_classes=3, tol=1e-9)
    np.testing.assert_allclose(fit.coef.sum(0), 0, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("loss", LOSSES)
def test_a_gpu_gives_the_same_fit(loss):
    X, y = blobs(seed=17)
    for here, there in zip(
        fit_path(X, y, PATH, n_classes=3, loss=loss),
        fit_path(X, y, PATH, n_classes=3, loss=loss, device="cuda"),
        strict=True,
    ):
        assert there.converged
        assert here.objective == pytest.approx(there.objective, abs=here.certificate + there.certificate)


# a start


@pytest.mark.parametrize("loss", LOSSES)
def test_a_fit_started_from_its_own_result_takes_no_step(loss):
    X, y = blobs(seed=18)
    (first,) = fit_path(X + 1, y, [1e-3], n_classes=3, loss=loss)
    (again,) = fit_path(X + 1, y, [1e-3], n_classes=3, loss=loss, start=first)
    assert again.iterations == 0
    assert again.objective == pytest.approx(first.objective, abs=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_wherever_a_fit_starts_it_ends_at_the_same_optimum(loss):
    X, y = blobs(seed=19)
    others = fit_path(X[:60], np.minimum(y[:60], 1), [1e-4], n_classes=3, loss=loss)  # without class 2, and elsewhere
    for lam in (1e-1, 1e-3):
        (cold,) = fit_path(X, y, [lam], n_classes=3, loss=loss, tol=1e-8)
        for start in (*others, fit_path(X, y, [lam / 3], n_classes=3, loss=loss)[0]):
            (warm,) = fit_path(X, y, [lam], n_classes=3, loss=loss, tol=1e-8, start=start)
            assert warm.converged
            assert warm.objective == pytest.approx(cold.objective, abs=2e-8)
