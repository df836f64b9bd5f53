"""Paths of penalties: linear classifiers solved one after another or together, each with a certificate.

The objective, per sample and in nats for the two log losses, is mean loss + lam/2 |W|^2 with a free intercept, so
that lam keeps its meaning when samples are added; scikit-learn's C is 1 / (n lam). How it is solved is in newton.py,
what is proved in certificate.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from layerwise.errors import unknown
from probes.solver.design_matrix import DesignMatrix
from probes.solver.fit import LinearFit
from probes.solver.folds import (
    Folds,
    checked_count,
    checked_labels,
    checked_penalties,
    checked_presence,
    checked_weights,
)
from probes.solver.losses import Logistic, Loss, Softmax, SquaredHinge
from probes.solver.newton import Solution, Solver
from probes.solver.rows import Affine, Features, Source
from probes.solver.samples import Samples

LOSSES = ("multinomial", "ovr", "squared_hinge")

# The certificate that is asked for where none is named: a part of the objective alone, so that a fit of objective 5e-4
# is held to 5e-8. What is added matters for objectives below 1e-10 only: the losses there are differences of numbers
# near 1, each rounded by 2^-53, and nearer than a few of these float64 cannot tell an objective from its optimum.
RELATIVE, ROUNDING = 1e-4, 64 * 2.0**-53

# Numbers that a step holds for each weight, counted in the code and taken as float64: of solution, point, gradient and
# direction (4), of conjugate gradients (6), in their preconditioner (3), of the sum over a block (1).
_STATE = 14


def fit_path(
    X: Source,
    y: ArrayLike | Tensor,
    lams: Sequence[float],
    *,
    n_classes: int,
    loss: str = "multinomial",
    sample_weight: ArrayLike | Tensor | None = None,
    standardiser: Affine | None = None,
    start: LinearFit | None = None,
    tol: float | None = None,
    max_iter: int = 100,
    max_memory: int | None = None,
    device: str | torch.device = "cpu",
    where: str = "",
) -> list[LinearFit]:
    """Fit one linear classifier for each penalty, all together, and certify each.

    Args:
        X: features [n, n_features]: a tensor, an array, a memory map, or rows that are read on demand (their axes
            behind the first are flattened). float32 and float64 are used in place, narrower types are widened.
        y: [n] integers in [0, n_classes), at least two of them different.
        lams: positive penalties per sample, in any order; the fits come in the same order.
        n_classes: the number of classes, of which some may have no sample in y.
        loss: "multinomial" (softmax cross-entropy), "ovr" (sum over classes of the binary log loss) or "squared_hinge"
            (sum over classes of max(0, 1 - s z)^2).
        sample_weight: [n] numbers >= 0 or booleans: the mean loss is the weighted mean.
        standardiser: applied to X in float32; None takes X as it is.
        start: a fit to begin from, such as that of a neighbouring penalty; the result is the same within certificates.
        tol: the certificate to reach, in nats per sample; None for 1e-4 of the objective.
        max_iter: the most Newton steps. A fit that misses the tolerance says so in `converged`.
        max_memory: bytes. Where twice the features would exceed it, they are read block by block in every pass and
            nothing is kept for each sample but its label and weight; slower, with the same result. What it leaves is
            spent on logits, which saves a third of the work; None keeps those that are few beside the features.
        device: where to compute, such as "cuda".
        where: put in front of error messages, such as "depth 3, train split".

    Raises:
        UserError: for input that cannot be fitted; the message says what was found and where.
    """
    labels = torch.as_tensor(y if isinstance(y, Tensor) else np.array(y))
    (fits,) = fit_paths(
        X, labels[None], lams, n_classes=n_classes, loss=loss, sample_weight=sample_weight, standardiser=standardiser,
        start=None if start is None else [start], tol=tol, max_iter=max_iter, max_memory=max_memory, device=device,
        where=where,
    )  # fmt: skip
    return fits


def fit_paths(
    X: Source,
    y: ArrayLike | Tensor,
    lams: Sequence[float],
    *,
    n_classes: int,
    loss: str = "multinomial",
    sample_weight: ArrayLike | Tensor | None = None,
    standardiser: Affine | None = None,
    start: Sequence[LinearFit] | None = None,
    tol: float | None = None,
    max_iter: int = 100,
    max_memory: int | None = None,
    device: str | torch.device = "cpu",
    where: str = "",
) -> list[list[LinearFit]]:
    """Fit a path of penalties for each of B label vectors or foldings of the same features, all together.

    Args:
        y: [B, n] integers, or [n] for all B.
        sample_weight: [B, n], or [n] for all B; a fold is a row of booleans.
        start: B fits.
        X and the others: as in `fit_path`.

    Returns:
        B lists of fits in the order of `lams`, each as `fit_path` returns it for its labels and weights.
    """
    fitter = Fitter(
        X, y, n_classes=n_classes, loss=loss, sample_weight=sample_weight, standardiser=standardiser, tol=tol,
        max_iter=max_iter, max_memory=max_memory, device=device, where=where,
    )  # fmt: skip
    return fitter.fit(lams, start)


class Fitter:
    """Features with B label vectors or foldings, read and measured once, to be fitted at one penalty after another.

    A path whose next penalty depends on the last fit asks `fit` for one at a time. Arguments are those of `fit_paths`.

    is_shared: whether X, y and sample_weight are the rows that this rank holds of one fit. All ranks then make the same
    calls, and have the same fits, certified over the rows of all.
    """

    def __init__(
        self, X: Source, y: ArrayLike | Tensor, *, n_classes: int, loss: str = "multinomial",
        sample_weight: ArrayLike | Tensor | None = None, standardiser: Affine | None = None, tol: float | None = None,
        max_iter: int = 100, max_memory: int | None = None, device: str | torch.device = "cpu", where: str = "",
        is_shared: bool = False,
    ):  # fmt: skip
        if loss not in LOSSES:
            raise unknown("loss", loss, LOSSES)
        self._where, self._max_iter, self._max_memory = where, max_iter, max_memory
        features = Features(X, standardiser, where)
        samples = Samples(features.n, is_shared=is_shared)
        self._labels = checked_labels(y, features.n, n_classes, where)
        self._weights = checked_weights(sample_weight, features.n, where)
        self._n_paths = checked_count(self._labels, self._weights, None, where)
        labels, weights = self._labels.expand(self._n_paths, -1), self._weights.expand(self._n_paths, -1)
        present = checked_presence(labels, weights, n_classes, where, samples)
        held = 2 * samples.most * features.d * features.dtype.itemsize
        room = 0 if max_memory is None else max_memory - held
        design = DesignMatrix(features, torch.device(device), resident=room >= 0, room=room, samples=samples)
        self._joint: list[tuple[Tensor, _JointFit]] = []
        for classes in present.unique(dim=0):
            rows = torch.nonzero((present == classes).all(1))[:, 0]
            of_rows = weights[rows] if sample_weight is not None else None
            folds = Folds(labels[rows], of_rows, torch.nonzero(classes)[:, 0], design.device, samples)
            tolerance = _Tolerance(tol, 1 if loss == "multinomial" else folds.n_classes)
            self._joint.append((rows, _JointFit(design, folds, loss, n_classes, tolerance)))

    def fit(
        self,
        lams: Sequence[float],
        start: Sequence[LinearFit | None] | None = None,
        *,
        rough: float = 0.0,
        only: Sequence[int] | None = None,
    ) -> list[list[LinearFit]]:
        """Return B lists of fits in the order of the penalties, begun from B fits where these are given.

        only: which of the B are fitted, and need a start where any is given; the lists of the others are empty.
        rough: a part of the objective. Fits that seem to be so near their optimum are left there, with whatever bound
            was proved on the way: an infinite one as a rule.
        """
        penalties = checked_penalties(lams, self._where)
        checked_count(self._labels, self._weights, start, self._where)
        paths: list[list[LinearFit]] = [[] for _ in range(self._n_paths)]
        for rows, joint in self._joint:
            begin = None if start is None else [start[i] for i in rows.tolist()]
            own = torch.tensor(
                [i for i, row in enumerate(rows.tolist()) if only is None or row in only], dtype=torch.long
            )
            for row, fit in joint.fit(penalties, begin, self._max_iter, self._max_memory, rough, own):
                paths[int(rows[row])].append(fit)
        return paths


def _intercepts(loss: str, share: Tensor) -> Tensor:
    """Return the intercepts that are best with zero weights, for classes of the given shares of the samples."""
    if loss == "multinomial":
        return share.log()
    return torch.logit(share) if loss == "ovr" else 2 * share - 1


@dataclass(frozen=True)
class _Tolerance:
    """The tolerance of a fit, and of each of the problems it is the sum of: theirs sum to that of the fit."""

    tol: float | None
    parts: int

    def of_problem(self, objective: Tensor) -> Tensor:
        if self.tol is not None:
            return torch.full_like(objective, self.tol / self.parts)
        return RELATIVE * objective + ROUNDING / self.parts

    def of_fit(self, objective: float) -> float:
        return RELATIVE * objective + ROUNDING if self.tol is None else self.tol


@dataclass(frozen=True)
class _JointFit:
    """Paths over the same features whose labels are of the same classes."""

    design: DesignMatrix
    folds: Folds
    loss: str
    n_classes: int
    tolerance: _Tolerance

    def fit(
        self,
        lams: Tensor,
        start: list[LinearFit | None] | None,
        max_iter: int,
        max_memory: int | None,
        rough: float,
        own: Tensor,
    ) -> Iterator[tuple[int, LinearFit]]:
        """Yield the row of the labels and the fit for each penalty of each of some rows, in that order."""
        rows = own.repeat_interleave(len(lams))
        lams = lams.repeat(len(own))
        size = self._at_once(max_memory)
        for row, lam in zip(rows.split(size), lams.split(size), strict=True):
            theta = self._begin(row, start)
            solver = Solver(self.design, *self._problems(row, lam), self.tolerance.of_problem, rough)
            solution = solver.minimise(theta, max_iter)
            yield from zip(row.tolist(), self._fits(solution, lam), strict=True)

    def _at_once(self, max_memory: int | None) -> int:
        """Return how many fits are solved together.

        As many as have their logits kept; most paths stay whole. Where features are streamed there are no logits,
        and what is kept for each weight stays within half the memory allowed.
        """
        if self.design.resident or max_memory is None:
            return max(1, self.design.columns_kept // self.folds.n_classes)
        return max(1, max_memory // (2 * 8 * _STATE * self.folds.n_classes * (self.design.d + 1)))

    def _problems(self, row: Tensor, lam: Tensor) -> tuple[Loss, Tensor]:
        """Return the loss and the penalties [P] of the separate problems of fits [U]."""
        device, k = self.design.device, self.folds.n_classes
        row, lam = row.to(device), lam.to(device)
        if self.loss == "multinomial":
            return Softmax(self.folds.targets(row), self.folds.share), lam
        classes = torch.arange(k, device=device).repeat(len(row))
        form = Logistic if self.loss == "ovr" else SquaredHinge
        return form(self.folds.targets(row.repeat_interleave(k)), classes), lam.repeat_interleave(k)

    def _begin(self, row: Tensor, start: list[LinearFit | None] | None) -> Tensor:
        """Return theta [P, K, d + 1] of the given fits, or zero weights with the best intercepts for these."""
        share = self.folds.share[row.to(self.design.device)]
        theta = share.new_zeros(*share.shape, self.design.d + 1)
        first = _intercepts(self.loss, share)
        theta[..., -1] = first
        if start is not None:
            classes = self.folds.classes.cpu().numpy()
            for i, b in enumerate(row.tolist()):
                known = start[b]
                assert known is not None
                theta[i, :, :-1] = torch.from_numpy(known.coef[classes])
                intercept = torch.from_numpy(known.intercept[classes]).to(theta.device)
                theta[i, :, -1] = torch.where(intercept.isfinite(), intercept, first[i])
            theta[..., -1] += theta[..., :-1] @ self.design.mean
        return theta if self.loss == "multinomial" else theta.reshape(-1, 1, self.design.d + 1)

    def _fits(self, solution: Solution, lams: Tensor) -> Iterator[LinearFit]:
        """Put the problems of each fit together, [U, classes, ...], and the absent classes back in."""
        classes = self.folds.classes.cpu().numpy()
        theta = solution.theta.reshape(len(lams), len(classes), -1)
        weights, intercepts = theta[..., :-1], theta[..., -1] - theta[..., :-1] @ self.design.mean
        objectives, bounds, steps = (
            values.reshape(len(lams), -1).cpu() for values in (solution.objective, solution.bound, solution.iterations)
        )
        for i, lam in enumerate(lams.tolist()):
            coef, intercept = np.zeros((self.n_classes, self.design.d)), np.full(self.n_classes, -np.inf)
            coef[classes], intercept[classes] = weights[i].cpu().numpy(), intercepts[i].cpu().numpy()
            objective, bound = float(objectives[i].sum()), float(bounds[i].sum())
            converged = bound <= self.tolerance.of_fit(objective)
            yield LinearFit(coef, intercept, lam, self.loss, objective, bound, int(steps[i].max()), converged)
