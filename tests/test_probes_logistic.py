"""The linear probe's solver: against slow oracles, against scikit-learn, and where data are awkward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import linear_objective, linear_optimum
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.utils.estimator_checks import check_estimator

from layerwise.errors import UserError
from probes.certificate import certify
from probes.design_matrix import DesignMatrix
from probes.logistic import LOSSES, CertifiedLogisticRegression, fit_path, log_proba
from probes.losses import Logistic, Softmax, SquaredHinge

PATH = [1e-1, 1e-2, 1e-3, 1e-5]


def blobs(n=120, d=5, n_classes=3, seed=0):
    """Overlapping classes with correlated features of unit variance; no penalty separates them."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    X = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=(n_classes, d))[y]
    return (X - X.mean(0)) / X.std(0), y


@pytest.fixture
def float32_work(monkeypatch):
    """Make small problems start in float32, as large ones do."""
    monkeypatch.setattr("probes.newton._SMALL", 0)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    deviation = X.std(0)
    return (X - X.mean(0)) / np.where(deviation > 0, deviation, 1), y


def objective_of(fit, X, y):
    coef, intercept = torch.from_numpy(fit.coef), torch.from_numpy(fit.intercept)
    return float(linear_objective(coef, intercept, torch.as_tensor(X).double(), torch.as_tensor(y), fit.lam, fit.loss))


# the optimum


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
    monkeypatch.setattr("probes.logistic._SMALLEST_BUDGET", 1)
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


# the certificate


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


def problem(loss, labels, n_classes):
    if loss == "multinomial":
        return Softmax(labels, n_classes)
    signs = torch.stack([torch.where(labels == k, 1, -1) for k in range(n_classes)]).to(torch.int8)[:, None]
    return Logistic(signs) if loss == "ovr" else SquaredHinge(signs)


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
        start = torch.zeros(shape[:2], dtype=torch.float64)
        lams = torch.full(shape[:1], lam, dtype=torch.float64)
        found = certify(DesignMatrix(features), problem(loss, labels, 3), weights, start, lams)
        assert (found.rounding < 1e-10 * (1 + found.bound)).all()
        objective = linear_objective(
            weights.reshape(3, 5),
            found.intercept.reshape(3) - weights.reshape(3, 5) @ features.mean(0),
            features,
            labels,
            lam,
            loss,
        )
        assert float(found.objective.sum()) == pytest.approx(float(objective), rel=1e-12)
        assert float(objective) - optimum <= float(found.bound.sum())


@pytest.mark.parametrize("loss", LOSSES)
def test_the_repaired_dual_point_is_feasible_wherever_the_intercept_stands(loss):
    labels = torch.tensor([0] * 20 + [1] * 7 + [2] * 3)
    logits = torch.randn((1, 3, 30) if loss == "multinomial" else (3, 1, 30), dtype=torch.float64) * 4 + 2
    residuals, _ = problem(loss, labels, 3).dual_point(logits)
    torch.testing.assert_close(residuals.mean(2), torch.zeros_like(residuals[..., 0]), atol=1e-15, rtol=0)
    one_hot = torch.nn.functional.one_hot(labels, 3).T.double().reshape(residuals.shape)
    if loss == "squared_hinge":
        assert ((residuals * (2 * one_hot - 1)) <= 0).all()
    else:
        assert ((residuals + one_hot >= -1e-15) & (residuals + one_hot <= 1 + 1e-15)).all()
    if loss == "multinomial":
        torch.testing.assert_close(residuals.sum(1), torch.zeros(1, 30, dtype=torch.float64), atol=1e-14, rtol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_certificate_meets_the_default_tolerance(loss, digits):
    X, y = digits
    for fit in fit_path(X.astype(np.float32), y, [1e-1, 1e-3, 1e-5, 1e-7], n_classes=10, loss=loss):
        assert fit.converged
        assert 0 < fit.certificate <= max(1e-4 * fit.objective, 1e-6)


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


# the losses


@pytest.mark.parametrize("loss", LOSSES)
def test_slopes_and_curvature_are_the_derivatives_of_the_loss(loss):
    labels = torch.tensor([0, 1, 2, 0, 1, 0])
    generator = torch.Generator().manual_seed(0)
    shape = (1, 3, 6) if loss == "multinomial" else (3, 1, 6)
    logits, change = torch.randn((2, *shape), generator=generator, dtype=torch.float64)
    form = problem(loss, labels, 3)

    def total(values):
        return form.values(values).sum() * 6

    torch.testing.assert_close(form.slopes(logits), torch.autograd.functional.jacobian(total, logits))
    bent = torch.autograd.functional.hvp(total, logits, change)[1]
    torch.testing.assert_close(form.bend(form.curvature(logits), change), bent)
    hessian = torch.autograd.functional.hessian(total, logits)
    for p in range(len(logits)):
        mean = hessian[p, :, :, p].sum((1, 3)) / 6
        torch.testing.assert_close(form.mean_curvature(form.curvature(logits))[p], mean)


# invariance


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


# awkward data


@pytest.mark.parametrize("loss", LOSSES)
def test_a_class_without_samples_is_never_predicted_and_disturbs_nothing(loss):
    X, y = blobs(seed=11)
    names = np.array([0, 2, 4])
    (fit,) = fit_path(X, y, [1e-3], n_classes=3, loss=loss)
    (wider,) = fit_path(X, names[y], [1e-3], n_classes=6, loss=loss)
    np.testing.assert_array_equal(wider.coef[names], fit.coef)
    np.testing.assert_array_equal(wider.intercept[[1, 3, 5]], -np.inf)
    np.testing.assert_array_equal(wider.decision_function(X).argmax(1), names[fit.decision_function(X).argmax(1)])
    assert wider.objective == fit.objective
    if loss != "squared_hinge":
        assert (log_proba(wider, X)[:, [1, 3, 5]] == -np.inf).all()
        np.testing.assert_allclose(log_proba(wider, X)[:, names], log_proba(fit, X), atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_constant_and_duplicated_features(loss):
    X, y = blobs(seed=12)
    (fit,) = fit_path(X, y, [1e-3], n_classes=3, loss=loss, tol=1e-9)
    awkward = np.column_stack([X, np.zeros(len(X)), X[:, 0], np.full(len(X), 5.0)])
    (found,) = fit_path(awkward, y, [1e-3], n_classes=3, loss=loss, tol=1e-9)
    assert found.converged
    np.testing.assert_allclose(found.coef[:, [5, 7]], 0, atol=1e-4)
    np.testing.assert_allclose(found.coef[:, 6], found.coef[:, 0], atol=1e-4)
    assert found.objective < fit.objective  # a feature twice is a feature penalised half as much


@pytest.mark.parametrize("loss", LOSSES)
def test_more_features_than_samples(loss):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12, 20)), np.arange(12) % 3
    for fit in fit_path(X, y, [1e-1, 1e-2], n_classes=3, loss=loss, tol=1e-9):
        optimum = linear_optimum(torch.from_numpy(X), torch.from_numpy(y), fit.lam, loss, 3)[2]
        assert fit.converged
        assert fit.objective == pytest.approx(optimum, abs=2e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_separable_data_and_a_tiny_penalty(loss):
    X, y = blobs(n=60, d=40, seed=13)
    (fit,) = fit_path(X, y, [1e-8], n_classes=3, loss=loss)
    assert fit.converged
    assert fit.certificate <= 1e-6
    assert (fit.decision_function(X).argmax(1) == y).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_two_classes(loss):
    X, y = blobs(n_classes=2, seed=14)
    (fit,) = fit_path(X, y, [1e-3], n_classes=2, loss=loss, tol=1e-9)
    optimum = linear_optimum(torch.from_numpy(X), torch.from_numpy(y), 1e-3, loss, 2)[2]
    assert fit.objective == pytest.approx(optimum, abs=1e-9)
    np.testing.assert_allclose(fit.coef[0], -fit.coef[1], atol=1e-3)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_thousand_classes(loss):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(1000, 16))
    y = np.tile(np.arange(1000), 2)
    X = (centres[y] + 0.3 * rng.normal(size=(2000, 16))).astype(np.float32)
    (fit,) = fit_path(X, y, [1e-3], n_classes=1000, loss=loss)
    assert fit.converged
    assert fit.objective == pytest.approx(objective_of(fit, X, y), rel=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_input_is_taken_as_exact(loss, dtype):
    X, y = blobs(seed=15)
    narrow = torch.from_numpy(X).to(dtype)
    (fit,) = fit_path(narrow, torch.from_numpy(y), [1e-3], n_classes=3, loss=loss, tol=1e-9)
    (wide,) = fit_path(narrow.double(), y, [1e-3], n_classes=3, loss=loss, tol=1e-9)
    assert fit.objective == pytest.approx(wide.objective, abs=2e-9)
    np.testing.assert_allclose(fit.decision_function(narrow), fit.decision_function(narrow.double()))


def test_read_only_reversed_and_integer_arrays_are_taken():
    X, y = blobs(seed=16)
    X = np.round(X * 4)
    (plain,) = fit_path(X, y, [1e-2], n_classes=3)
    reversed_ = X[::-1]
    reversed_.flags.writeable = False
    (other,) = fit_path(reversed_, y[::-1], [1e-2], n_classes=3)
    (integer,) = fit_path(X.astype(np.int32), y, [1e-2], n_classes=3)
    assert plain.objective == pytest.approx(other.objective, abs=plain.certificate + other.certificate)
    assert plain.objective == integer.objective


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


# scikit-learn's grammar


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learn_accepts_the_estimator(loss):
    check_estimator(CertifiedLogisticRegression(loss=loss))


def test_the_estimator_is_the_path_of_one(digits):
    X, y = digits
    names = np.array([f"digit {k}" for k in range(10)])
    estimator = CertifiedLogisticRegression(lam=1e-3, loss="ovr").fit(X, names[y])
    (fit,) = fit_path(X, y, [1e-3], n_classes=10, loss="ovr")
    np.testing.assert_array_equal(estimator.coef_, fit.coef)
    assert (estimator.objective_, estimator.certificate_) == (fit.objective, fit.certificate)
    assert estimator.converged_
    assert estimator.score(X, names[y]) == (fit.decision_function(X).argmax(1) == y).mean()
    np.testing.assert_allclose(estimator.predict_proba(X).sum(1), 1)


def test_squared_hinge_has_no_probabilities():
    assert not hasattr(CertifiedLogisticRegression(loss="squared_hinge"), "predict_proba")
    X, y = blobs()
    (fit,) = fit_path(X, y, [1e-2], n_classes=3, loss="squared_hinge")
    with pytest.raises(UserError, match="squared_hinge loss defines no probabilities; use multinomial or ovr"):
        log_proba(fit, X)


# messages


def test_values_that_are_not_finite_are_counted_and_placed():
    X, y = blobs()
    X[3, 1] = X[4, 0] = np.nan
    X[7, 2] = -np.inf
    with pytest.raises(UserError, match=r"^depth 3, train split: found 2 NaN and 1 infinite values in the features"):
        fit_path(X, y, [1e-2], n_classes=3, where="depth 3, train split")
    good, _ = blobs()
    (fit,) = fit_path(good, y, [1e-2], n_classes=3)
    with pytest.raises(UserError, match=r"^depth 3, test split: found 2 NaN and 1 infinite values"):
        fit.decision_function(X, where="depth 3, test split")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lams": [1e-2, -1.0]}, "found penalties lambda -1, expected positive finite numbers"),
        ({"lams": []}, "found penalties lambda none"),
        ({"loss": "hinge"}, "unknown loss 'hinge'. Did you mean 'squared_hinge'"),
        ({"n_classes": 2}, "found 40 labels outside the integers 0 to 1"),
        ({"y": np.zeros(120, int)}, "found labels of 1 class, expected at least 2"),
        ({"y": np.zeros(7, int)}, r"found labels of shape \(7,\), expected \[120\]"),
        ({"y": np.full(120, 0.5)}, "found 120 labels outside the integers"),
        ({"X": np.zeros(120)}, r"found features of shape \(120,\), expected \[samples, features\]"),
        ({"X": np.zeros((0, 4))}, r"found features of shape \(0, 4\)"),
    ],
)
def test_what_cannot_be_fitted_is_said(change, message):
    X, y = blobs()
    given = {"X": X, "y": y, "lams": [1e-2], "n_classes": 3} | change
    with pytest.raises(UserError, match=message):
        fit_path(**given)


def test_features_of_another_width_are_refused():
    X, y = blobs()
    (fit,) = fit_path(X, y, [1e-2], n_classes=3)
    with pytest.raises(UserError, match="found 4 features, expected 5, as in the fit"):
        fit.decision_function(X[:, :4])
