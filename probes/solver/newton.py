"""The solver: truncated Newton steps on many problems at once, until each certificate meets its tolerance.

Every step solves the Newton equations by conjugate gradients and searches along the direction on logits, which costs
no product with the features where they are kept. Directions are float32. The gradient is float32 far from the
optimum; near it, gradient and certificate are float64. The float32 products then only set the direction, and each
step corrects what rounding left of the one before (iterative refinement), so they do not limit the accuracy. One case
fails: with a tiny penalty on nearly separable classes the curvature spans more than float32 holds, and the direction is
useless. So small problems use float64 from the start, and large ones once they no longer improve. Problems that are
done leave the work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from probes.solver.certificate import certify, invert_curvature
from probes.solver.conjugate_gradients import Equations, dot, expected_gain, solve
from probes.solver.design_matrix import DesignMatrix
from probes.solver.losses import Loss
from probes.solver.objective import Logits, slope, slope_along

log = logging.getLogger("layerwise.probes")

# Other values moved little. On digits (paths of 10 penalties; raw pixels, and a whole depth of 512 features; float32)
# _NEAR = 1, _STALLED = 0.5 or 0.99, _SETTLED = 0 or 8 each kept all certificates, and changed
# the Newton steps by at most 3%, the CG iterations by at most 6%.
_NEAR = 3  # float64 begins where the float32 estimate of the gap is within this factor of the tolerance
# float64 also begins where a step shrinks the gap by less than a tenth: float32 gradients are then too coarse to see
# progress. The first three steps are exempt, since far from the optimum a short step may leave the gap as it was.
_STALLED, _SETTLED = 0.9, 3
# A small penalty is reached by way of larger ones, each solved until its gap is at most 3% of the objective, then
# divided by _LOWERED. A smaller _EASED or _LOWERED spends steps on penalties that nobody asked for; a larger one starts
# the next penalty farther from its optimum. Not measured.
_EASED, _LOWERED = 0.03, 10
# Steps without a halved gap after which float32 gives way to float64: fewer would make slow fits pay for float64, which
# moves twice the bytes, more would repeat steps that gain nothing. Not measured.
_PATIENCE = 6
# A gradient g leaves a gap of |g|^2 / (2 lambda): a residual that leaves a tenth of the gap allowed is small enough.
_INSIDE = 0.1
# Where that is not reached, CG leaves at least this part of the gradient, however quadratic the last steps were.
_LEAST_FORCING = 0.01
# The line search ends where a fifth of the slope is left: nearer costs passes over the logits, and the next step has
# another direction. A new length keeps a tenth of the bracket from its ends, along which false position may creep: so
# each of the twelve trials shrinks it to 9/10 at most. Without a bracket they double the length, to 4096 at most.
# On these digits one trial leaves a squared-hinge fit without its certificate after 100 steps, three cost 43% more CG
# iterations there; at _FLAT = 0.7 one-versus-rest takes 16% and 22% more Newton steps.
_FLAT, _TRIALS, _MARGIN = 0.2, 12, 0.1
# Values in the features up to which a problem is float64 from the start, 8 MiB. A larger limit makes more problems
# move twice the bytes, a smaller one leaves more of them to the change from float32. Not measured.
_SMALL = 1 << 20


@dataclass(frozen=True)
class Solution:
    """The certified fits of P problems.

    Attributes:
        theta: [P, K, d + 1] float64, weights and intercept, for centred features.
        objective, bound: [P] float64, as in `certificate.Certificate`.
        iterations: [P], Newton steps taken.
    """

    theta: Tensor
    objective: Tensor
    bound: Tensor
    iterations: Tensor


@dataclass
class _Active:
    """The state of the problems still at work, every part with the problem first."""

    index: Tensor  # where the problem stands in the solution
    target: Tensor  # the penalty asked for
    lam: Tensor  # the penalty at work, on its way to the target
    logits: Logits  # of the weights reached, whose precision is that of the work
    gradient: Tensor  # [P, K, d + 1], of the objective
    curvature: Tensor  # [P, K, K], mean Hessian of the loss
    centre: Tensor  # [P, d + 1], where intercept and weights are nearly separate
    objective: Tensor  # at the penalty at work
    goal: Tensor  # the tolerance
    exact: Tensor  # bool: gradients are float64 from now on
    gap: Tensor  # the last estimate of objective - optimum
    best: Tensor  # the last gap that was half of the one before
    waited: Tensor  # steps since then
    forcing: Tensor  # CG stops where the residual is this fraction of the gradient
    nonlinearity: Tensor  # of the last step

    def equations(self) -> Equations:
        return Equations(self.logits, self.gradient, self.curvature, self.centre, self.lam)

    def take(self, problems: Tensor) -> _Active:
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "logits"}
        return _Active(logits=self.logits.take(problems), **{name: part[problems] for name, part in parts.items()})


class Solver:
    """P problems on one design matrix.

    Args:
        design: the features [n, d].
        loss: of the P problems.
        lam: [P] float64, positive.
        tolerance: from objectives [P] to the bounds at which their problems are done.
        rough: a part of the objective: problems that seem to be so near their optimum are left there, without a proof
            (their bound is infinite, if none was found on the way); 0 for none.
    """

    def __init__(
        self, design: DesignMatrix, loss: Loss, lam: Tensor, tolerance: Callable[[Tensor], Tensor], rough: float = 0.0
    ):
        self._design, self._loss, self._lam, self._tolerance, self._rough = design, loss, lam, tolerance, rough

    def minimise(self, theta: Tensor, max_iter: int) -> Solution:
        """Solve from theta [P, K, d + 1] and return the best certified iterate of each problem.

        Args:
            max_iter: the most Newton steps; the iterate reached is certified whatever it is worth.
        """
        active = self._start(theta)
        unknown = torch.full_like(self._lam, torch.inf)
        solution = Solution(theta.clone(), unknown, unknown.clone(), torch.zeros_like(active.index))
        for step in range(max_iter + 1):
            if step == max_iter:
                active.exact[:], active.lam = True, active.target
            self._evaluate(active, solution, step)
            left = torch.nonzero(solution.bound[active.index] > active.goal)[:, 0]
            if not len(left) or step == max_iter:
                break
            if len(left) < len(active.index):
                active = active.take(left)
            if self._rough:
                active = self._leave(active, solution)
                if not len(active.index):
                    break
            change, products = solve(
                active.equations(), self._design.spectrum(), active.forcing, _INSIDE * active.goal * 2 * active.lam
            )
            _say(step, active, products, _move(active, change.double()))
        return solution

    def _leave(self, active: _Active, solution: Solution) -> _Active:
        """Keep in the solution the problems that seem to be near enough; return the others."""
        near = expected_gain(active.equations(), self._design.spectrum()) <= self._rough * active.objective
        near &= active.lam == active.target
        index = active.index[near]
        theta, objective = active.logits.theta[near], active.objective[near]
        unproved = solution.bound[index].isinf()
        solution.theta[index[unproved]], solution.objective[index[unproved]] = theta[unproved], objective[unproved]
        return active.take(torch.nonzero(~near)[:, 0]) if near.any() else active

    def _start(self, theta: Tensor) -> _Active:
        lam = self._lam
        ones = torch.ones_like(lam)
        precision = torch.float64 if self._design.n * self._design.d <= _SMALL else torch.float32
        return _Active(
            index=torch.arange(len(lam), device=lam.device),
            target=lam,
            lam=lam.clamp(min=self._loss.easiest),
            logits=Logits.of(self._design, self._loss, theta.clone(), precision),
            gradient=torch.zeros_like(theta),
            curvature=theta.new_zeros(*theta.shape[:2], theta.shape[1]),
            centre=torch.zeros_like(theta[:, 0]),
            objective=ones * torch.inf,
            goal=ones * torch.inf,
            exact=torch.zeros_like(lam, dtype=torch.bool),
            gap=ones * torch.inf,
            best=ones * torch.inf,
            waited=torch.zeros_like(lam),
            forcing=ones * self._loss.forcing,
            nonlinearity=ones,
        )

    def _evaluate(self, active: _Active, solution: Solution, step: int) -> None:
        """Find gradients, gaps and tolerances, keeping in the solution what is certified."""
        rough = torch.nonzero(~active.exact)[:, 0]
        if len(rough):
            before = active.gap[rough]
            self._estimate(active, rough)
            gap, goal = active.gap[rough], active.goal[rough]
            final = active.lam[rough] == active.target[rough]
            active.exact[rough] = final & ((gap <= _NEAR * goal) | ((gap > _STALLED * before) & (step > _SETTLED)))
        sure = torch.nonzero(active.exact)[:, 0]
        if len(sure):
            self._certify(active, sure, solution)
        solution.iterations[active.index] = step
        improved = active.gap < active.best / 2
        active.best = torch.where(improved, active.gap, active.best)
        active.waited = torch.where(improved, 0, active.waited + 1)
        if active.logits.dtype != torch.float64 and active.waited.max() >= _PATIENCE:
            active.logits = active.logits.double()

    def _estimate(self, active: _Active, rough: Tensor) -> None:
        """Find gradients, gaps and tolerances of some problems from float32 products; these prove nothing."""
        logits, lam = active.logits.take(rough), active.lam[rough]
        found = slope(logits)
        weights, pull = logits.theta[..., :-1], found.gradient[..., :-1]
        objective = found.values + lam / 2 * dot(weights, weights)
        beside = _intercept_gap(found.gradient[..., -1], found.curvature)

        def gap(lam: Tensor) -> Tensor:
            gradient = pull + lam[:, None, None] * weights
            return dot(gradient, gradient) / (2 * lam) + beside

        easy = gap(lam) <= _EASED * objective
        lam = torch.where(easy, torch.maximum(lam / _LOWERED, active.target[rough]), lam)
        active.lam[rough], active.gap[rough] = lam, gap(lam)
        active.objective[rough] = objective
        active.best[rough] = torch.where(easy, torch.inf, active.best[rough])
        pull += lam[:, None, None] * weights
        active.gradient[rough], active.curvature[rough] = found.gradient, found.curvature
        active.centre[rough] = found.centre
        active.goal[rough] = self._tolerance(objective)

    def _certify(self, active: _Active, sure: Tensor, solution: Solution) -> None:
        """Find gradients, gaps and tolerances of some problems in float64, and keep the best of each."""
        found = certify(self._design, self._loss.take(active.index[sure]), active.logits.theta[sure], active.lam[sure])
        active.logits.put(sure, found.logits)
        active.gradient[sure], active.curvature[sure] = found.gradient, found.curvature
        active.centre[sure] = found.centre
        active.gap[sure], active.objective[sure] = found.bound, found.objective
        # below its rounding a gap cannot be seen to shrink
        active.goal[sure] = torch.maximum(self._tolerance(found.objective), 2 * found.rounding)
        index = active.index[sure]
        better = found.bound < solution.bound[index]
        index = index[better]
        solution.theta[index] = found.logits.theta[better]
        solution.objective[index], solution.bound[index] = found.objective[better], found.bound[better]


def _intercept_gap(slope: Tensor, curvature: Tensor) -> Tensor:
    """Return what the intercept alone would gain by the quadratic model, [P]."""
    return (slope * (invert_curvature(curvature) @ slope[..., None])[..., 0]).sum(1).clamp(min=0) / 2


def _say(step: int, active: _Active, products: int, length: Tensor) -> None:
    """Say what a Newton step did: where it began, how exactly it was solved, how far it went."""
    if not log.isEnabledFor(logging.DEBUG):
        return  # on a GPU each number waits for the device
    size = dot(active.gradient, active.gradient).sqrt()
    log.debug(
        "Newton step %d: %d problems open (%d in float64), objective %.6g to %.6g, |gradient| up to %.1e, "
        "gap up to %.1e, %d CG iterations, step length %.2g to %.2g",
        step + 1, len(length), int(active.exact.sum()), active.objective.min(), active.objective.max(), size.max(),
        active.gap.max(), products, length.min(), length.max(),
    )  # fmt: skip


def _move(active: _Active, change: Tensor) -> Tensor:
    """Search along the change [P, K, d + 1] of every active problem, take the step and return its length [P]."""
    logits = active.logits
    direction = Logits.of(logits.design, logits.loss, change, logits.dtype, anchored=False)
    length, slope_left = _line_search(active, direction)
    active.logits = logits.moved(direction, length)
    # How far the last two steps were from the quadratic model says how exactly the next is worth solving.
    active.forcing = torch.maximum(slope_left, active.nonlinearity).clamp(_LEAST_FORCING, logits.loss.forcing)
    active.nonlinearity = slope_left
    return length


def _line_search(active: _Active, direction: Logits) -> tuple[Tensor, Tensor]:
    """Return step lengths [P] where the slope has shrunk to a fifth, and the part of the slope left at length 1, [P].

    The slope along a direction increases (the objective is convex), so a sign change brackets the minimum; the
    bracket is narrowed by false position, kept off its ends. Without one the length doubles.
    """
    weights, change = active.logits.theta[..., :-1], direction.theta[..., :-1]
    linear, square = active.lam * dot(weights, change), active.lam * dot(change, change)

    def along(length: Tensor) -> Tensor:
        return slope_along(active.logits, direction, length) + linear + length * square

    length = torch.ones_like(linear)
    start = dot(active.gradient, direction.theta)
    low, low_slope = torch.zeros_like(length), start
    high, high_slope = length * torch.inf, length * torch.inf
    here = along(length)
    slope_left = here.abs() / start.abs().clamp_min(torch.finfo(start.dtype).tiny)  # a slope of 0 leaves nothing
    for _ in range(_TRIALS):
        done = here.abs() <= _FLAT * start.abs()
        if done.all():
            return length, slope_left
        low, low_slope = torch.where(here <= 0, length, low), torch.where(here <= 0, here, low_slope)
        high, high_slope = torch.where(here > 0, length, high), torch.where(here > 0, here, high_slope)
        share = (low_slope / (low_slope - high_slope)).clamp(_MARGIN, 1 - _MARGIN)
        inner = torch.where(torch.isinf(high), 2 * length, low + share * (high - low))
        length = torch.where(done, length, inner)
        here = along(length)
    best = torch.where(here <= 0, length, low)
    return torch.where((here.abs() <= _FLAT * start.abs()) | (best == 0), length, best), slope_left
