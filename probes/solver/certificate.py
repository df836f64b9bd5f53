"""The certificate: a proved upper bound on objective - optimum of a fit, in float64.

The objective of one problem, with weights W [K, d], a free intercept b [K], features x_i [d] counted from any fixed
point, and weights w_i >= 0 of the samples with sum 1 (1/n unless said otherwise), is

    f(W, b) = sum_i w_i loss_i(z_i) + lambda/2 |W|^2,    z_i = W x_i + b.

**Bound.** Let R [K, n] be any residuals with sum_i w_i R_i = 0, and loss* the convex conjugate. By
Fenchel's inequality, loss_i(z) >= R_i.z - loss_i*(R_i) for every z, hence for every (W, b)

    f(W, b) >= <G, W> + b.sum_i w_i R_i + lambda/2 |W|^2 - sum_i w_i loss_i*(R_i)        G = sum_i w_i R_i x_i'
            >= -|G|^2 / (2 lambda) - sum_i w_i loss_i*(R_i) = D(R),

since the sum of w_i R_i removes b and the middle is smallest at W = -G / lambda. So no (W, b) lies below D(R), and
f(W, b) - optimum <= f(W, b) - D(R). The three losses, their conjugates and an R near the fit are in losses.py:

    multinomial     R = Q - Y, Q rows are distributions with the labels' shares as means; -loss* is the entropy of Q
    ovr             R = q - y for each class, q in [0, 1] with mean y's share; -loss* is the binary entropy of q
    squared hinge   R = -s a, a >= 0 with the same sum on both sides;           -loss* is a - a^2 / 4

R is made from the fit's own slopes after the intercept is solved for fixed W, so hardly any repair is left; the
gap is then |gradient|^2 / (2 lambda), which is also what strong convexity gives, and it vanishes at the optimum.

**Rounding.** The features are taken as exact. With u = 2^-53 and g(m) = (m + 32) u, first-order bounds hold for
any order of summation (Higham 2002, chapter 3; the 32 covers exp, log, weights, the steps of the intercept and the few
operations around them). Logits are off by g(d) (|x_i| max|W_k| + |b|), which moves the loss by |R_i|_1 times
that. A mean over n samples of terms of one sign is off by g(n) of its value; G, summed by blocks of rows and then by
ranks, by g(rows + blocks + ranks) mean |x_i| |R_i|. The means of R are off by g(n) of their terms as well: meeting the
constraints exactly mixes R by t <= 3 g(n) with a feasible point, which moves G by 2 t mean|x_i| and lowers the rest of
D by t of its value at most. Means of products are at most products of root mean squares. `_rounding` adds all this up
and is part of every bound; at n = 50,000, d = 1,024 it is about 1e-9.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from probes.solver.design_matrix import DesignMatrix
from probes.solver.losses import Loss
from probes.solver.objective import Logits, Part, balance, intercept_slope
from probes.solver.workers import Sums

_UNIT_ROUNDOFF = 2.0**-53


@dataclass(frozen=True)
class Certificate:
    """P problems at fixed weights, evaluated in float64.

    Attributes:
        logits: of the weights, with the intercept solved for them.
        gradient: [P, K, d + 1], of the objective; that of the intercept is 0 but for rounding.
        curvature: [P, K, K], the mean Hessian of the loss.
        centre: [P, d + 1], as in `objective.Slope`.
        objective: [P], mean loss + lambda/2 |W|^2.
        bound: [P], at least objective - optimum.
        rounding: [P], the part of the bound that no better weights would lower.
    """

    logits: Logits
    gradient: Tensor
    curvature: Tensor
    centre: Tensor
    objective: Tensor
    bound: Tensor
    rounding: Tensor


def certify(design: DesignMatrix, loss: Loss, theta: Tensor, lam: Tensor) -> Certificate:
    """Return objective, gradient and proved bound at theta [P, K, d + 1] float64, of which the intercept may move."""
    design.samples.require_same(theta)
    logits, curvature = solve_intercept(Logits.of(design, loss, theta, torch.float64))
    repair = loss.repair(balance(logits))
    theta = logits.theta

    def work(parts: Iterator[Part]) -> Sums:
        values, dual_loss, spread = theta.new_zeros(3, len(lam))
        backward, centre = design.backward(theta, torch.float64), design.backward(theta[:, :1], torch.float64)
        for on_block, z, block in parts:
            residuals, dual = on_block.dual_point(z, repair)
            backward.add(residuals, block)
            centre.add(on_block.trace(on_block.curvature(z)), block)
            values += on_block.values(z)
            dual_loss += dual
            spread += on_block.targets.mean_square(residuals.abs_().sum(1))
        return values, dual_loss, spread, backward.total(), centre.total()[:, 0]

    values, dual_loss, spread, pull, centre = logits.sum(work)
    weights = theta[..., :-1]
    ridge = lam / 2 * _square(weights)
    gap = values + ridge - dual_loss + _square(pull[..., :-1]) / (2 * lam)
    rounding = _rounding(design, loss, theta, spread.sqrt(), pull[..., :-1], values + ridge, lam)
    pull[..., :-1] += lam[:, None, None] * weights
    return Certificate(logits, pull, curvature, centre, values + ridge, gap.clamp(min=0) + rounding, rounding)


def _square(values: Tensor) -> Tensor:
    return values.square().sum((1, 2))


def _rounding(
    design: DesignMatrix, loss: Loss, theta: Tensor, slope: Tensor, pull: Tensor, objective: Tensor, lam: Tensor
) -> Tensor:
    """Return the part of the bound that covers float64 rounding, [P]; see the module's docstring."""
    (squares,) = design.samples.add_up(loss.targets.mean_of_samples(design.row_squares))
    row_norm = squares.sqrt()
    reach = row_norm * theta[..., :-1].norm(dim=2).amax(1) + theta[..., -1].abs().amax(1)
    depth = design.additions(theta.shape[0] * theta.shape[1])
    mixing = 3 * _gamma(design.n)
    pull_error = row_norm * (_gamma(depth) * slope + 2 * mixing)
    pull_norm = _square(pull).sqrt()
    terms = objective + pull_norm.square() / (2 * lam)
    return (
        _gamma(design.d) * reach * slope
        + 3 * (mixing + _gamma(theta[0].numel())) * terms
        + (pull_norm * pull_error + pull_error.square() / 2) / lam
    )


def _gamma(operations: int) -> float:
    return (operations + 32) * _UNIT_ROUNDOFF


def solve_intercept(logits: Logits, max_steps: int = 30) -> tuple[Logits, Tensor]:
    """Return the logits with intercepts that make the mean slopes 0, and the mean curvature [P, K, K] there.

    Newton's method on the mean slope, halving a step until the mean slope shrinks. It stops where that is 1e-13
    of the mean size of a slope; `Loss.dual_point` repairs what is left.
    """
    slope, small, curvature = intercept_slope(logits)
    small = small * 1e-13
    total, offset = torch.zeros_like(slope), torch.zeros_like(slope)
    better = torch.ones_like(small, dtype=torch.bool)
    for _ in range(max_steps):
        size = slope.abs().amax(1)
        if (size <= small).all():
            break
        newton = -(invert_curvature(curvature) @ slope[..., None])[..., 0]
        newton = torch.where((size > small)[:, None], newton, 0).clamp(-10, 10)  # a larger step costs the logits digits
        move = torch.where(better[:, None], newton, -offset / 2)
        offset = torch.where(better[:, None], newton, offset / 2)
        if not move.any():  # as near as the precision allows
            break
        logits = logits.shifted(move)
        total += move
        trial, _, trial_curvature = intercept_slope(logits)
        better = trial.abs().amax(1) < size
        offset = torch.where(offset.abs() > 1e-16 * (1 + total.abs()), offset, 0)
        slope = torch.where(better[:, None], trial, slope)
        curvature = torch.where(better[:, None, None], trial_curvature, curvature)
    return logits, curvature


def invert_curvature(curvature: Tensor) -> Tensor:
    """Return the pseudo-inverse of mean Hessians [P, K, K]; the softmax's null direction (equal shifts) maps to 0."""
    n_outputs = curvature.shape[-1]
    if n_outputs == 1:
        return torch.where(curvature > 0, 1 / curvature, 0)
    scale = curvature.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp(min=1e-300)
    ones = torch.full_like(curvature[0], 1 / n_outputs)
    jitter = 1e-13 * torch.eye(n_outputs, dtype=curvature.dtype, device=curvature.device)
    inverse = torch.linalg.inv_ex(curvature / scale + ones + jitter).inverse
    return (inverse - ones) / scale
