"""A fitted linear classifier: its coefficients, its certificate, and what it predicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerwise.errors import UserError
from probes.solver.rows import Affine, Features, Source, at, row_blocks


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

    def decision_function(
        self, X: Source, where: str = "", *, standardiser: Affine | None = None
    ) -> NDArray[np.float64]:
        """Return the scores [n, n_classes] of features [n, n_features]; the largest names the class.

        Args:
            X, standardiser: as in `fit_path`; features are read block by block, where X lies.

        Raises:
            UserError: where features are not finite or of another width than those of the fit.
        """
        features = Features(X, standardiser, where)
        if features.d != self.coef.shape[1]:
            raise UserError(f"{at(where)}found {features.d} features, expected {self.coef.shape[1]}, as in the fit.")
        device = X.device if isinstance(X, Tensor) else torch.device("cpu")
        coef, intercept = (torch.as_tensor(a, device=device) for a in (self.coef, self.intercept))
        finite = features.finite()
        blocks = (finite.see(features.block(rows, device)) for rows in row_blocks(features.n, features.d))
        scores = torch.cat([block.double() @ coef.T + intercept for block in blocks])
        finite.require()
        return scores.cpu().numpy()


def log_proba(fit: LinearFit, X: Source, where: str = "", *, standardiser: Affine | None = None) -> NDArray[np.float64]:
    """Return log-probabilities [n, n_classes] in nats; -inf for a class that had no sample.

    Multinomial: softmax. One-versus-rest: the sigmoids, normalised to sum one, as scikit-learn does.

    Raises:
        UserError: for the squared hinge loss, which defines no probabilities.
    """
    if fit.loss == "squared_hinge":
        raise UserError("the squared_hinge loss defines no probabilities; use multinomial or ovr.")
    scores = torch.from_numpy(fit.decision_function(X, where, standardiser=standardiser))
    if fit.loss == "ovr":
        scores = torch.nn.functional.logsigmoid(scores)
    return scores.log_softmax(1).numpy()


def is_right(
    fit: LinearFit, X: Source, y: NDArray[np.int64], device: torch.device, *, standardiser: Affine | None = None
) -> bool:
    """Return whether a fit predicts every label y [n]; features are read up to the first block with an error."""
    features = Features(X, standardiser)
    coef, intercept = (torch.as_tensor(a, device=device) for a in (fit.coef, fit.intercept))
    for rows in row_blocks(features.n, features.d):
        scores = features.block(rows, device).double() @ coef.T + intercept
        if (scores.argmax(1).cpu().numpy() != y[rows]).any():
            return False
    return True
