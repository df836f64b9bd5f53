"""Owns the proof that a fit is near its optimum: an upper bound on objective - optimum, in float64.

The objective of one problem, with weights W [K, d], a free intercept b [K] and centred features x_i [d], is

    f(W, b) = mean_i loss_i(z_i) + lambda/2 |W|^2,    z_i = W x_i + b.

**Bound.** Let R [K, n] be any residuals whose mean over samples is zero, and loss* the convex conjugate. By
Fenchel's inequality, loss_i(z) >= R_i.z - loss_i*(R_i) for every z, hence for every (W, b)

    f(W, b) >= <G, W> + b.mean(R) + lambda/2 |W|^2 - mean_i loss_i*(R_i)        G = mean_i R_i x_i'
            >= -|G|^2 / (2 lambda) - mean_i loss_i*(R_i) = D(R),

since mean(R) = 0 removes b and the middle is smallest at W = -G / lambda. So no (W, b) lies below D(R), and
f(W, b) - optimum <= f(W, b) - D(R). The three losses, their conjugates and an R near the fit are in losses.py:

    multinomial     R = Q - Y, Q rows are distributions with the labels' shares as means; -loss* is the entropy of Q
    ovr             R = q - y for each class, q in [0, 1] with mean y's share; -loss* is the binary entropy of q
    squared hinge   R = -s a, a >= 0 with the same sum on both sides;           -loss* is a - a^2 / 4

R is made from the fit's own slopes after the intercept is solved for fixed W, so hardly any repair is left; the
gap is then |gradient|^2 / (2 lambda), which is also what strong convexity gives, and it vanishes at the optimum.

**Rounding.** The features are taken as exact. With u = 2^-53 and g(m) = (m + 32) u, first-order bounds hold for
any order of summation (Higham 2002, chapter 3; the 32 covers exp, log, the steps of the intercept and the few
operations around them). Logits are off by g(d) (|x_i| max|W_k| + |b|), which moves the loss by |R_i|_1 times
that. A mean over n samples of terms of one sign is off by g(n) of its value; G, summed by chunks of rows, by
g(rows + chunks) mean |x_i| |R_i|. The means of R are off by g(n) of their terms as well: meeting the constraints
exactly mixes R by t <= 3 g(n) with a feasible point, which moves G by 2 t mean|x_i| and lowers the rest of D by t
of its value at most. Means of products are at most products of root mean squares. `_rounding` adds all this up and
is part of every bound; at n = 50,000, d = 1,024 it is about 1e-9.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from probes.design_matrix import DesignMatrix
from probes.losses import Loss

_UNIT_ROUNDOFF = 2.0**-53


@dataclass(frozen=True)
class Certificate:
    """P problems at fixed weights, evaluated in float64.

    Attributes:
        intercept: [P, K], solved for the weights.
        logits: [P, K, n], as the loss counts them.
        gradient: [P, K, d], of the objective in the weights with the intercept eliminated.
        objective: [P], mean loss + lambda/2 |W|^2.
        bound: [P], at least objective - optimum.
        rounding: [P], the part of the bound that no better weights would lower.
    """

    intercept: Tensor
    logits: Tensor
    gradient: Tensor
    objective: Tensor
    bound: Tensor
    rounding: Tensor


def certify(design: DesignMatrix, loss: Loss, weights: Tensor, intercept: Tensor, lam: Tensor) -> Certificate:
    """Return objective, gradient and proved bound of weights [P, K, d] and intercept [P, K], all float64."""
    logits = loss.anchored(design.logits(weights) + intercept[..., None])
    shift = solve_intercept(loss, logits)
    intercept = intercept + shift
    residuals, dual_loss = loss.dual_point(logits)
    pull = design.correlate(residuals)
    values = loss.values(logits)
    objective = values + lam / 2 * _square(weights)
    gap = objective - dual_loss + _square(pull) / (2 * lam)
    rounding = _rounding(design, weights, intercept, residuals, pull, values, lam)
    gradient = pull + lam[:, None, None] * weights
    return Certificate(intercept, logits, gradient, objective, gap.clamp(min=0) + rounding, rounding)


def _square(values: Tensor) -> Tensor:
    return values.square().sum((1, 2))


def _rounding(
    design: DesignMatrix,
    weights: Tensor,
    intercept: Tensor,
    residuals: Tensor,
    pull: Tensor,
    values: Tensor,
    lam: Tensor,
) -> Tensor:
    """Return the part of the bound that covers float64 rounding, [P]; see the module's docstring."""
    slope = residuals.abs().sum(1).square().mean(1).sqrt()
    reach = design.row_norm * weights.norm(dim=2).amax(1) + intercept.abs().amax(1)
    depth = design.rows_per_chunk + -(-design.n // design.rows_per_chunk)
    mixing = 3 * _gamma(design.n)
    pull_error = design.row_norm * (_gamma(depth) * slope + 2 * mixing)
    pull_norm = _square(pull).sqrt()
    terms = values + lam / 2 * _square(weights) + pull_norm.square() / (2 * lam)
    return (
        _gamma(design.d) * reach * slope
        + 3 * (mixing + _gamma(weights[0].numel())) * terms
        + (pull_norm * pull_error + pull_error.square() / 2) / lam
    )


def _gamma(operations: int) -> float:
    return (operations + 32) * _UNIT_ROUNDOFF


def solve_intercept(loss: Loss, logits: Tensor, max_steps: int = 30) -> Tensor:
    """Shift the logits [P, K, n] in place until their slopes have mean zero; return the shift [P, K], float64.

    Newton's method on the mean slope, halving a step until the mean slope shrinks. It stops where that is nothing
    (1e-6 in float32, 1e-13 in float64) beside the mean size of a slope; `Loss.dual_point` repairs what is left.
    """
    slopes = loss.slopes(logits)
    slope = slopes.sum(2, dtype=torch.float64) / logits.shape[2]
    small = slopes.abs_().sum(2, dtype=torch.float64).amax(1) / logits.shape[2]
    small *= 1e-13 if logits.dtype == torch.float64 else 1e-6
    total, offset = torch.zeros_like(slope), torch.zeros_like(slope)
    better = torch.ones_like(small, dtype=torch.bool)
    for _ in range(max_steps):
        size = slope.abs().amax(1)
        if (size <= small).all():
            break
        move = -offset / 2
        if better.any():
            inverse = invert_curvature(loss.mean_curvature(loss.curvature(logits)))
            newton = torch.where((size > small)[:, None], -(inverse @ slope[..., None])[..., 0], 0)
            newton = newton.clamp(-10, 10)  # a larger step, taken back, would cost the logits digits
            move = torch.where(better[:, None], newton, move)
        offset = torch.where(better[:, None], move, offset / 2)
        if not move.any():  # as near as the precision allows
            break
        logits += move[..., None].to(logits.dtype)
        total += move
        trial = loss.slopes(logits).sum(2, dtype=torch.float64) / logits.shape[2]
        better = trial.abs().amax(1) < size
        offset = torch.where(offset.abs() > 1e-16 * (1 + total.abs()), offset, 0)
        slope = torch.where(better[:, None], trial, slope)
    return total


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
