"""The three convex losses of a linear probe: value, slope, curvature, and a dual-feasible point near a fit.

Logits are [P, K, m]: P problems that share nothing but the features, K coupled outputs of each, m samples. The
softmax couples its classes, so a problem is one penalty (K = classes). One-versus-rest losses do not, so there a
problem is one penalty and one class (K = 1), and each stops on its own. All sums are over samples times their weights,
which add up to 1, in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from probes.solver.folds import Targets


class Loss(Protocol):
    """What a Newton step and a certificate need of a loss, on logits [P, K, m] as `anchored` returns them."""

    @property
    def forcing(self) -> float:
        """CG stops at this fraction of the gradient, or sooner where the last steps were nearly quadratic."""

    @property
    def easiest(self) -> float:
        """Smaller penalties are approached from this one, by decades; 0 where that gains nothing."""

    @property
    def targets(self) -> Targets:
        """What the problems are fitted to."""

    def take(self, problems: Tensor) -> Self:
        """Return this loss for some of the problems only."""

    def at(self, rows: slice) -> Self:
        """Return this loss for some of the samples only; its means are their shares of the means over all."""

    def anchored(self, logits: Tensor) -> Tensor:
        """Return the logits counted from where this loss needs the most precision; it may change its argument."""

    def values(self, logits: Tensor) -> Tensor:
        """Return the mean loss, [P] float64."""

    def slopes(self, logits: Tensor) -> Tensor:
        """Return the derivative of the mean loss in each logit, [P, K, m]."""

    def curvature(self, logits: Tensor) -> Tensor:
        """Return what `bend` and `mean_curvature` need to know of the logits, [P, K, m]."""

    def bend(self, curvature: Tensor, change: Tensor) -> Tensor:
        """Return the Hessian of the mean loss times a change of the logits, [P, K, m]."""

    def mean_curvature(self, curvature: Tensor) -> Tensor:
        """Return the mean Hessian over the samples, [P, K, K] float64."""

    def trace(self, curvature: Tensor) -> Tensor:
        """Return the trace of each sample's Hessian, [P, 1, m]."""

    def balance(self, logits: Tensor) -> Tensor:
        """Return the means that `repair` needs, [P, S] float64."""

    def repair(self, balance: Tensor) -> Tensor:
        """Return what makes a fit's slopes dual-feasible, from means over all samples, for `dual_point`."""

    def dual_point(self, logits: Tensor, repair: Tensor) -> tuple[Tensor, Tensor]:
        """Return weighted residuals R [P, K, m] whose sum over all samples is 0, and the mean of -conjugate(R), [P]."""


@dataclass(frozen=True)
class Softmax:
    """Multinomial cross-entropy: log sum exp(z) - z_y, in nats.

    Its conjugate at R = Q - Y is minus the entropy of Q, for Q a distribution over classes, infinite elsewhere.

    Attributes:
        share: [B, K] float64, the weight of each class in each label vector, positive.
    """

    targets: Targets
    share: Tensor

    forcing = 0.3
    easiest = 0.0

    def take(self, problems: Tensor) -> Self:
        return replace(self, targets=self.targets.take(problems))

    def at(self, rows: slice) -> Self:
        return replace(self, targets=self.targets.at(rows))

    def anchored(self, logits: Tensor) -> Tensor:
        return logits

    def values(self, logits: Tensor) -> Tensor:
        own = logits.gather(1, self.targets.of_problems()[:, None])
        return self.targets.mean(logits.logsumexp(1, keepdim=True) - own)[:, 0]

    def _minus_labels(self, probabilities: Tensor) -> Tensor:
        ones = probabilities.new_ones(()).expand(len(probabilities), 1, probabilities.shape[2])
        return probabilities.scatter_add_(1, self.targets.of_problems()[:, None], -ones)

    def slopes(self, logits: Tensor) -> Tensor:
        return self.targets.weigh(self._minus_labels(logits.softmax(1)))

    def curvature(self, logits: Tensor) -> Tensor:
        return logits.softmax(1)

    def bend(self, curvature: Tensor, change: Tensor) -> Tensor:
        bent = curvature * change
        bent -= curvature * bent.sum(1, keepdim=True)
        return self.targets.weigh(bent)

    def mean_curvature(self, curvature: Tensor) -> Tensor:
        weighted = self.targets.weigh(curvature.clone())
        return torch.diag_embed(weighted.sum(2, dtype=torch.float64)) - (weighted @ curvature.mT).double()

    def trace(self, curvature: Tensor) -> Tensor:
        return self.targets.weigh(1 - curvature.square().sum(1, keepdim=True))

    def balance(self, logits: Tensor) -> Tensor:
        return self.targets.mean(logits.softmax(1))

    def repair(self, balance: Tensor) -> Tensor:
        """Mix softmax P with a constant row r: Q = (1 - t) P + t r has the labels' shares as its means.

        With m the means of P and s the shares, r must be m + (s - m) / t, which sums to one; it is nowhere
        negative for every t >= max over classes of 1 - s / m, so t is that. Returns (1 - t, t r), [P, 1 + K].
        """
        share = self.share[self.targets.row]
        t = (1 - share / balance).amax(1, keepdim=True).clamp(min=0)
        row = torch.where(t > 0, balance + (share - balance) / t, balance).clamp(min=0)
        return torch.cat([1 - t, t * row], 1)

    def dual_point(self, logits: Tensor, repair: Tensor) -> tuple[Tensor, Tensor]:
        mixed = logits.softmax(1).mul_(repair[:, :1, None]).add_(repair[:, 1:, None])
        entropy = self.targets.mean(torch.special.entr(mixed)).sum(1)
        return self.targets.weigh(self._minus_labels(mixed)), entropy


@dataclass(frozen=True)
class _OneVersusRest:
    """Losses of signed logits: the sign of a sample is +1 in the problem of its own class, -1 elsewhere.

    Attributes:
        classes: [P], the class of each problem.
    """

    targets: Targets
    classes: Tensor

    def take(self, problems: Tensor) -> Self:
        return replace(self, targets=self.targets.take(problems), classes=self.classes[problems])

    def at(self, rows: slice) -> Self:
        return replace(self, targets=self.targets.at(rows))

    def _positive(self) -> Tensor:
        return (self.targets.of_problems() == self.classes[:, None])[:, None]

    def _signs(self, logits: Tensor) -> Tensor:
        return self._positive().to(logits.dtype).mul_(2).sub_(1)

    def bend(self, curvature: Tensor, change: Tensor) -> Tensor:
        return self.targets.weigh(curvature * change)

    def mean_curvature(self, curvature: Tensor) -> Tensor:
        return self.targets.mean(curvature)[..., None]

    def trace(self, curvature: Tensor) -> Tensor:
        return self.targets.weigh(curvature.clone())


class Logistic(_OneVersusRest):
    """Binary log loss: log(1 + exp(-s z)), in nats.

    Its conjugate at R = q - [s = 1] is minus the binary entropy of q, for q in [0, 1].
    """

    forcing = 0.3
    easiest = 0.0

    def anchored(self, logits: Tensor) -> Tensor:
        return logits

    def values(self, logits: Tensor) -> Tensor:
        return self.targets.mean(torch.nn.functional.softplus(-self._signs(logits) * logits))[:, 0]

    def slopes(self, logits: Tensor) -> Tensor:
        signs = self._signs(logits)
        return self.targets.weigh(torch.sigmoid(-signs * logits).mul_(-signs))

    def curvature(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits).mul_(torch.sigmoid(-logits))

    def balance(self, logits: Tensor) -> Tensor:
        parts = torch.sigmoid(logits), torch.sigmoid(-logits), self._positive().to(logits.dtype)
        return torch.cat([self.targets.mean(part) for part in parts], 1)

    def repair(self, balance: Tensor) -> Tensor:
        """Mix as the softmax of two classes does: q = (1 - t) sigmoid(z) + t r, with r in [0, 1]."""
        means, rests, share = balance.unbind(1)
        t = torch.maximum((means - share) / means, (share - means) / rests).clamp(min=0)
        row = torch.where(t > 0, means + (share - means) / t, means).clamp(0, 1)
        return torch.stack([1 - t, t * row, t * (1 - row)], 1)[..., None, None]

    def dual_point(self, logits: Tensor, repair: Tensor) -> tuple[Tensor, Tensor]:
        keep, inner, outer = repair.unbind(1)
        inside = torch.sigmoid(logits).mul_(keep).add_(inner)
        outside = torch.sigmoid(-logits).mul_(keep).add_(outer)
        entropy = torch.special.entr(inside) + torch.special.entr(outside)
        residuals = torch.where(self._positive(), -outside, inside)
        return self.targets.weigh(residuals), self.targets.mean(entropy)[:, 0]


class SquaredHinge(_OneVersusRest):
    """Squared hinge loss: max(0, 1 - s z)^2.

    Logits are counted from the margin, z - s: with a small penalty the violations of nearly separable classes are far
    smaller than the spacing of float32 numbers around 1. Its curvature jumps at the margin: far from the optimum,
    Newton steps are long and mostly cut short, and inexact ones find no active set. Solved exactly and approached by
    decades of the penalty, handwritten digits at 1e-7 took 14 to 30 Newton steps a class instead of 58 to 83.

    Its conjugate at R = -s a is a^2 / 4 - a, for a >= 0, infinite elsewhere.
    """

    forcing = 0.01
    easiest = 1e-2

    def anchored(self, logits: Tensor) -> Tensor:
        return logits.sub_(self._signs(logits))

    def _violations(self, logits: Tensor) -> Tensor:
        return (-self._signs(logits) * logits).clamp_(min=0)

    def values(self, logits: Tensor) -> Tensor:
        return self.targets.mean(self._violations(logits).square_())[:, 0]

    def slopes(self, logits: Tensor) -> Tensor:
        return self.targets.weigh(self._violations(logits).mul_(self._signs(logits).mul_(-2)))

    def curvature(self, logits: Tensor) -> Tensor:
        return (self._violations(logits) > 0).to(logits.dtype).mul_(2)

    def balance(self, logits: Tensor) -> Tensor:
        multipliers = self._violations(logits).mul_(2)
        positive = self._positive()
        return torch.cat([self.targets.mean(multipliers * positive), self.targets.mean(multipliers * ~positive)], 1)

    def repair(self, balance: Tensor) -> Tensor:
        """Shrink the heavier side's multipliers a = 2 max(0, 1 - s z), so that both sides have the same sum."""
        lighter = balance.amin(1, keepdim=True)
        return torch.where(balance > 0, lighter / balance, lighter)[..., None, None]

    def dual_point(self, logits: Tensor, repair: Tensor) -> tuple[Tensor, Tensor]:
        multipliers = self._violations(logits).mul_(2)
        multipliers *= torch.where(self._positive(), repair[:, 0], repair[:, 1])
        value = self.targets.mean(multipliers - multipliers.square() / 4)[:, 0]
        return self.targets.weigh(multipliers.mul_(-self._signs(logits))), value
