"""Owns the certified linear classifier: a path of penalties solved together, each fit with a proved bound.

The objective, per sample and in nats for the two log losses, is mean loss + lam/2 |W|^2 with a free intercept, so
that lam keeps its meaning when samples are added; scikit-learn's C is 1 / (n lam). Features are taken as they are:
the caller standardises. How it is solved is in newton.py, what is proved in certificate.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from layerwise.errors import UserError, unknown
from probes.design_matrix import DesignMatrix
from probes.losses import Logistic, Loss, Softmax, SquaredHinge
from probes.newton import Solution, minimise

LOSSES = ("multinomial", "ovr", "squared_hinge")

_CHUNK_VALUES = 1 << 21
_SMALLEST_BUDGET = 1 << 22  # logits of a path that are held at once, however few the features


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A linear classifier and the proof of how near it is to the best one of its penalty.

    Attributes:
        coef: [n_classes, n_features] float64, zero for a class that had no sample.
        intercept: [n_classes] float64, -inf for a class that had no sample, which is therefore never predicted.
        lam: the penalty, per sample; C = 1 / (n lam).
        loss: one of `LOSSES`.
        objective: mean loss + lam/2 |coef|^2, in nats per sample (squared hinge: in units of its loss).
        certificate: proved upper bound on objective - optimum, same unit.
        iterations: Newton steps taken.
        converged: whether the certificate meets the tolerance.
    """

    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    lam: float
    loss: str
    objective: float
    certificate: float
    iterations: int
    converged: bool

    def __repr__(self) -> str:
        classes, features = self.coef.shape
        return (
            f"LinearFit({self.loss}, {features} features, {classes} classes, lambda {self.lam:.2g}: objective "
            f"{self.objective:.6g}, at most {self.certificate:.1e} above the optimum, "
            f"{'converged' if self.converged else 'NOT CONVERGED'} in {self.iterations} steps)"
        )

    def decision_function(self, X: ArrayLike | Tensor, where: str = "") -> NDArray[np.float64]:
        """Return the scores [n, n_classes] of features [n, n_features]; the largest names the class.

        Raises:
            UserError: where features are not finite or of another width than those of the fit.
        """
        features = _features(X, where)
        if features.shape[1] != self.coef.shape[1]:
            raise UserError(
                f"{_at(where)}found {features.shape[1]} features, expected {self.coef.shape[1]}, as in the fit."
            )
        coef, intercept = (torch.as_tensor(a, device=features.device) for a in (self.coef, self.intercept))
        return torch.cat([(c.double() @ coef.T + intercept).cpu() for c in _chunks(features)]).numpy()


def fit_path(
    X: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    lams: Sequence[float],
    *,
    n_classes: int,
    loss: str = "multinomial",
    tol: float | None = None,
    max_iter: int = 100,
    device: str | torch.device = "cpu",
    where: str = "",
) -> list[LinearFit]:
    """Fit one linear classifier for each penalty, all together, and certify each.

    Args:
        X: [n, n_features], already standardised; float32 is used in place, float64 and float16 are copied once.
        y: [n] integers in [0, n_classes), at least two of them different.
        lams: positive penalties per sample, in any order; the fits come in the same order.
        n_classes: the number of classes, of which some may have no sample in y.
        loss: "multinomial" (softmax cross-entropy), "ovr" (sum over classes of the binary log loss) or "squared_hinge"
            (sum over classes of max(0, 1 - s z)^2).
        tol: the certificate to reach, in nats per sample; None for max(1e-4 objective, 1e-6).
        max_iter: the most Newton steps. A fit that misses the tolerance says so in `converged`.
        device: where to compute, such as "cuda".
        where: put in front of error messages, such as "depth 3, train split".

    Raises:
        UserError: for input that cannot be fitted; the message says what was found and where.
    """
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    penalties = _penalties(lams, where)
    features = _features(X, where).to(device)
    labels = _labels(y, len(features), n_classes, where).to(device)
    present, labels = labels.unique(return_inverse=True)
    if len(present) < 2:
        raise UserError(f"{_at(where)}found labels of 1 class, expected at least 2 different ones.")
    design = DesignMatrix(features)
    reach = _Reach(tol, 1 if loss == "multinomial" else len(present))
    fits: list[LinearFit] = []
    for group in _groups(penalties, design, len(present)):
        problem, lam, intercept = _problems(loss, labels, len(present), group.to(device))
        solution = minimise(design, problem, lam, intercept, reach.of_problem, max_iter)
        fits += _fits(solution, design, group, loss, reach, present, n_classes)
    return fits


def log_proba(fit: LinearFit, X: ArrayLike | Tensor, where: str = "") -> NDArray[np.float64]:
    """Return log-probabilities [n, n_classes] in nats; -inf for a class that had no sample.

    Multinomial: softmax. One-versus-rest: the sigmoids, normalised to sum one, as scikit-learn does.

    Raises:
        UserError: for the squared hinge loss, which defines no probabilities.
    """
    if fit.loss == "squared_hinge":
        raise UserError("the squared_hinge loss defines no probabilities; use multinomial or ovr.")
    scores = torch.from_numpy(fit.decision_function(X, where))
    if fit.loss == "ovr":
        scores = torch.nn.functional.logsigmoid(scores)
    return scores.log_softmax(1).numpy()


@dataclass(frozen=True)
class _Reach:
    """The tolerance of a fit, and of each of the problems it is the sum of.

    A half of max(1e-4 objective, 1e-6) for every class sums to no more than the fit's own maximum.
    """

    tol: float | None
    parts: int

    def of_problem(self, objective: Tensor) -> Tensor:
        if self.tol is not None:
            return torch.full_like(objective, self.tol / self.parts)
        return (1e-4 * objective).clamp(min=1e-6 / self.parts) * (1.0 if self.parts == 1 else 0.5)

    def of_fit(self, objective: float) -> float:
        return max(1e-4 * objective, 1e-6) if self.tol is None else self.tol


def _groups(penalties: Tensor, design: DesignMatrix, n_classes: int) -> Iterator[Tensor]:
    """Split the path where its logits would outgrow an eighth of the features; most paths stay whole."""
    budget = max(design.n * design.d // 8, _SMALLEST_BUDGET)
    yield from penalties.split(max(1, budget // (design.n * n_classes)))


def _problems(loss: str, labels: Tensor, n_classes: int, lams: Tensor) -> tuple[Loss, Tensor, Tensor]:
    """Return the loss, the penalties [P] and the best intercepts of zero weights [P, K] of the separate problems."""
    share = torch.bincount(labels, minlength=n_classes).double() / len(labels)
    if loss == "multinomial":
        return Softmax(labels, n_classes), lams, share.log().repeat(len(lams), 1)
    classes = torch.arange(n_classes, device=labels.device)
    signs = ((labels == classes[:, None]).to(torch.int8) * 2 - 1)[:, None].repeat(len(lams), 1, 1)
    penalties = lams.repeat_interleave(n_classes)
    if loss == "ovr":
        return Logistic(signs), penalties, torch.logit(share).repeat(len(lams))[:, None]
    return SquaredHinge(signs), penalties, (2 * share - 1).repeat(len(lams))[:, None]


def _fits(
    solution: Solution,
    design: DesignMatrix,
    lams: Tensor,
    loss: str,
    reach: _Reach,
    present: Tensor,
    n_classes: int,
) -> Iterator[LinearFit]:
    """Put the problems of each penalty together, [L, classes, ...], and the absent classes back in."""
    shape = (len(lams), len(present))
    weights = solution.weights.reshape(*shape, design.d)
    intercepts = solution.intercept.reshape(shape) - weights @ design.mean
    objectives, bounds, steps = (
        values.reshape(len(lams), -1).cpu() for values in (solution.objective, solution.bound, solution.iterations)
    )
    classes = present.cpu().numpy()
    for k, lam in enumerate(lams.tolist()):
        coef, intercept = np.zeros((n_classes, design.d)), np.full(n_classes, -np.inf)
        coef[classes], intercept[classes] = weights[k].cpu().numpy(), intercepts[k].cpu().numpy()
        objective, bound = float(objectives[k].sum()), float(bounds[k].sum())
        converged = bound <= reach.of_fit(objective)
        yield LinearFit(coef, intercept, lam, loss, objective, bound, int(steps[k].max()), converged)


def _at(where: str) -> str:
    return f"{where}: " if where else ""


def _chunks(features: Tensor) -> tuple[Tensor, ...]:
    return features.split(max(1, _CHUNK_VALUES // max(1, features.shape[1])))


def _penalties(lams: Sequence[float], where: str) -> Tensor:
    penalties = torch.as_tensor(np.asarray(lams, dtype=np.float64)).reshape(-1)
    wrong = [lam for lam in penalties.tolist() if not 0 < lam < np.inf]
    if wrong or not len(penalties):
        found = ", ".join(f"{lam:g}" for lam in wrong) or "none"
        raise UserError(f"{_at(where)}found penalties lambda {found}, expected positive finite numbers.")
    return penalties


def _features(X: ArrayLike | Tensor, where: str) -> Tensor:
    """Return the features as a floating tensor that shares memory where it can, after counting what is not finite."""
    if isinstance(X, Tensor):
        features = X.detach()
    else:
        array = np.asarray(X)
        # torch takes no read-only or negatively strided array without complaint
        array = array if array.flags.writeable and min(array.strides, default=0) >= 0 else array.copy()
        features = torch.from_numpy(array)
    if features.ndim != 2 or 0 in features.shape:
        raise UserError(
            f"{_at(where)}found features of shape {tuple(features.shape)}, expected [samples, features], neither empty."
        )
    if not features.is_floating_point():
        features = features.double()
    nan = sum(int(chunk.isnan().sum()) for chunk in _chunks(features))
    infinite = sum(int(chunk.isinf().sum()) for chunk in _chunks(features))
    if nan or infinite:
        raise UserError(
            f"{_at(where)}found {nan} NaN and {infinite} infinite values in the features, expected finite ones: "
            "the network that made them diverged, or float16 overflowed; train or store it again."
        )
    return features


def _labels(y: ArrayLike | Tensor, n_samples: int, n_classes: int, where: str) -> Tensor:
    labels = torch.as_tensor(y if isinstance(y, Tensor) else np.array(y))
    if labels.shape != (n_samples,):
        raise UserError(
            f"{_at(where)}found labels of shape {tuple(labels.shape)}, expected [{n_samples}], one for each sample."
        )
    outside = int(((labels < 0) | (labels >= n_classes) | (labels != labels.long())).sum())
    if outside:
        raise UserError(
            f"{_at(where)}found {outside} labels outside the integers 0 to {n_classes - 1}, expected none: "
            f"there are {n_classes} classes."
        )
    return labels.long()


class CertifiedLogisticRegression(ClassifierMixin, BaseEstimator):
    """Fit an L2-penalised linear classifier and certify how near its optimum it is.

    It does not standardise: put a `StandardScaler` in front, or lam means something else for every feature.

    Args:
        lam: penalty per sample, > 0; scikit-learn's C is 1 / (n lam).
        loss: "multinomial", "ovr" or "squared_hinge".
        tol: the certificate to reach; None for max(1e-4 objective, 1e-6).
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
        self.coef_, self.intercept_ = self._fit.coef, self._fit.intercept
        self.objective_, self.certificate_ = self._fit.objective, self._fit.certificate
        self.converged_, self.n_iter_ = self._fit.converged, self._fit.iterations
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
