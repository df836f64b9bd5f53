"""The certified linear classifier as a scikit-learn estimator; probes/solver/path.py fits it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from probes.solver.fit import LinearFit, log_proba
from probes.solver.path import LOSSES, fit_path

__all__ = ["LOSSES", "CertifiedLogisticRegression", "LinearFit", "fit_path", "log_proba"]


class CertifiedLogisticRegression(ClassifierMixin, BaseEstimator):
    """Fit an L2-penalised linear classifier and certify how near its optimum it is.

    It does not standardise: put a `StandardScaler` in front, or lam means something else for every feature.

    Args:
        lam: penalty per sample, > 0; scikit-learn's C is 1 / (n lam).
        loss: "multinomial", "ovr" or "squared_hinge".
        tol: the certificate to reach; None for 1e-4 of the objective.
        max_iter: the most Newton steps.
        device: where to compute.

    Attributes:
        coef_: [n_classes, n_features], also for two classes.
        intercept_: [n_classes].
        classes_: the labels, sorted.
        objective_, certificate_, converged_, n_iter_: as in `LinearFit`.
        n_features_in_: the number of features.
    """

    def __init__(
        self,
        lam: float = 1e-3,
        loss: str = "multinomial",
        tol: float | None = None,
        max_iter: int = 100,
        device: str = "cpu",
    ) -> None:
        self.lam = lam
        self.loss = loss
        self.tol = tol
        self.max_iter = max_iter
        self.device = device

    def fit(self, X: Any, y: Any) -> CertifiedLogisticRegression:
        """Fit to features [n, n_features] and labels [n] of any kind."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32, np.float16])
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        (self._fit,) = fit_path(
            X,
            codes,
            [self.lam],
            n_classes=len(self.classes_),
            loss=self.loss,
            tol=self.tol,
            max_iter=self.max_iter,
            device=self.device,
        )
        return self._shows(self._fit)

    @classmethod
    def of_fit(cls, fit: LinearFit) -> CertifiedLogisticRegression:
        """Return the estimator of a fit that was made elsewhere, whose labels are 0, 1, ..."""
        found = cls(fit.lam, fit.loss)
        found.classes_, found.n_features_in_ = np.arange(len(fit.coef)), fit.coef.shape[1]
        return found._shows(fit)

    def _shows(self, fit: LinearFit) -> CertifiedLogisticRegression:
        self._fit = fit
        self.coef_, self.intercept_ = fit.coef, fit.intercept
        self.objective_, self.certificate_ = fit.objective, fit.certificate
        self.converged_, self.n_iter_ = fit.converged, fit.iterations
        return self

    def _check(self, X: Any) -> Any:
        check_is_fitted(self)
        return validate_data(self, X, reset=False, dtype=[np.float64, np.float32, np.float16])

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return scores [n, n_classes]; for two classes the second minus the first, [n]."""
        X = self._check(X)
        scores = self._fit.decision_function(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the labels [n] with the largest score."""
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]

    @available_if(lambda self: self.loss != "squared_hinge")
    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Return log-probabilities [n, n_classes], in nats."""
        X = self._check(X)
        return log_proba(self._fit, X)

    @available_if(lambda self: self.loss != "squared_hinge")
    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return probabilities [n, n_classes]."""
        return np.exp(self.predict_log_proba(X))
