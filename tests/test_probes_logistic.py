"""The certified linear classifier in scikit-learn's grammar."""

from __future__ import annotations

import linear_problems
import numpy as np
import pytest
from sklearn.utils.estimator_checks import check_estimator

from probes.logistic import CertifiedLogisticRegression
from probes.solver.path import LOSSES, fit_path


@pytest.fixture(scope="module")
def digits():
    return linear_problems.digits()


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
