"""A fitted linear classifier: its coefficients, its certificate, and what it predicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
        return _whole(self._scores(X, where, standardiser), len(self.coef))

    def _scores(self, X: Source, where: str, standardiser: Affine | None) -> Iterator[Tensor]:
        """Return the scores of all rows, a block at a time."""
        features = Features(X, standardiser, where)
        if features.d != self.coef.shape[1]:
            raise UserError(f"{at(where)}found {features.d} features, expected {self.coef.shape[1]}, as in the fit.")
        device = X.device if isinstance(X, Tensor) else torch.device("cpu")
        coef, intercept = (torch.as_tensor(a, device=device) for a in (self.coef, self.intercept))
        finite = features.finite()
        for rows in row_blocks(features.n, max(self.coef.shape)):
            yield finite.see(features.block(rows, device)).double() @ coef.T + intercept
        finite.require()


def _whole(blocks: Iterable[Tensor], n_classes: int) -> NDArray[np.float64]:
    return np.concatenate([np.empty((0, n_classes)), *(block.cpu().numpy() for block in blocks)])


def log_proba(fit: LinearFit, X: Source, where: str = "", *, standardiser: Affine | None = None) -> NDArray[np.float64]:
    """Return log-probabilities [n, n_classes] in nats; -inf for a class that had no sample.

    Multinomial: softmax. One-versus-rest: the sigmoids, normalised to sum one, as scikit-learn does.

    Raises:
        UserError: for the squared hinge loss, which defines no probabilities.
    """
    blocks = log_proba_blocks(fit, X, where, standardiser=standardiser)
    return _whole(blocks, len(fit.coef))


def log_proba_blocks(
    fit: LinearFit, X: Source, where: str = "", *, standardiser: Affine | None = None
) -> Iterator[Tensor]:
    """Yield what `log_proba` returns, a block of rows at a time: of 1.28 million rows and 1,000 classes all take 10 GB.

    Each block is of 8 MiB, or of one row.
    """
    if fit.loss == "squared_hinge":
        raise UserError("the squared_hinge loss defines no probabilities; use multinomial or ovr.")
    for scores in fit._scores(X, where, standardiser):
        yield (torch.nn.functional.logsigmoid(scores) if fit.loss == "ovr" else scores).log_softmax(1)


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
