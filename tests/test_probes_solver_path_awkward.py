"""A path of penalties where data are awkward, and what is said of data that cannot be fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from linear_problems import PATH, blobs, objective_of
from reference import linear_optimum

from layerwise.errors import UserError
from probes.solver.design_matrix import Backward, Forward
from probes.solver.fit import log_proba
from probes.solver.path import LOSSES, Fitter, fit_path


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
    assert fit.certificate <= 1e-4 * fit.objective < 1e-6
    assert (fit.decision_function(X).argmax(1) == y).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_small_objective_is_held_to_a_tolerance_as_small(loss):
    """An absolute 1e-6 would let fits pass whose certificate is more than 1e-4 of their objective."""
    X, y = blobs(n=60, d=40, seed=13)
    fits = []
    for steps in range(40):  # to the first that converged: more steps are not taken
        fits += fit_path(X, y, [1e-7], n_classes=3, loss=loss, max_iter=steps)
        if fits[-1].converged:
            break
    assert all(fit.converged == (fit.certificate <= 1e-4 * fit.objective + 1e-14) for fit in fits)
    assert any(1e-4 * fit.objective < fit.certificate <= 1e-6 for fit in fits if not fit.converged)
    assert fits[-1].converged


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


# few digits, and fits that are left before they are proved


def rounded_to_tf32(values):
    """Return float32 values with the 10 binary digits of TF32."""
    if values.dtype != torch.float32:
        return values
    return ((values.contiguous().view(torch.int32) + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)


@pytest.mark.parametrize("loss", LOSSES)
def test_directions_of_few_digits_are_proved_as_well(monkeypatch, loss):
    """What a GPU does where TF32 is allowed, which is in conjugate gradients alone."""
    monkeypatch.setattr("probes.solver.newton._SMALL", 0)
    X, y = blobs(seed=20)
    exact = fit_path(X, y, PATH, n_classes=3, loss=loss)
    forward, backward, allowed = Forward.__call__, Backward.add, []

    def quick(values):
        allowed.append(torch.backends.cuda.matmul.allow_tf32)
        return rounded_to_tf32(values) if allowed[-1] else values

    monkeypatch.setattr(Forward, "__call__", lambda self, block: forward(self, quick(block)))
    monkeypatch.setattr(Backward, "add", lambda self, values, block: backward(self, quick(values), quick(block)))
    for one, other in zip(exact, fit_path(X, y, PATH, n_classes=3, loss=loss), strict=True):
        assert other.converged
        assert abs(other.objective - one.objective) <= one.certificate + other.certificate
    assert set(allowed) == {True, False} and not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("loss", ["multinomial", "ovr"])
@pytest.mark.parametrize("small", [0, 1 << 20])
def test_a_rough_fit_is_near_its_optimum_and_goes_on_to_a_proved_one(monkeypatch, loss, small):
    monkeypatch.setattr("probes.solver.newton._SMALL", small)
    X, y = blobs(seed=21)
    fitter = Fitter(X, y, n_classes=3, loss=loss)
    ((whole,),) = fitter.fit([1e-3])
    ((rough,),) = fitter.fit([1e-3], rough=0.05)
    assert not rough.converged and rough.certificate == np.inf and rough.iterations < whole.iterations
    assert rough.objective == pytest.approx(objective_of(rough, X, y), rel=1e-5)
    assert whole.objective - whole.certificate <= rough.objective <= 1.1 * whole.objective
    ((finished,),) = fitter.fit([1e-3], [rough])
    assert finished.converged
    assert abs(finished.objective - whole.objective) <= finished.certificate + whole.certificate
