"""Owns the three convex losses of a linear probe: value, slope, curvature, and a dual-feasible point near a fit.

Logits are [P, K, n]: P problems that share nothing but the features, K coupled outputs of each, n samples. The
softmax couples its classes, so a problem is one penalty (K = classes). One-versus-rest losses do not, so there a
problem is one penalty and one class (K = 1), and each stops on its own. Sums over samples are float64.
"""

from __future__ import annotations

from typing import Protocol, Self

import torch
from torch import Tensor


class Loss(Protocol):
    """What a Newton step and a certificate need of a loss, on logits [P, K, n] as `anchored` returns them."""

    forcing: float  # CG stops at this fraction of the gradient, or sooner where the last steps were nearly quadratic
    easiest: float  # smaller penalties are approached from this one, by decades; 0 where that gains nothing

    def take(self, problems: Tensor) -> Loss:
        """Return this loss for some of the problems only."""

    def anchored(self, logits: Tensor) -> Tensor:
        """Return the logits counted from where this loss needs the most precision; it may change its argument."""

    def values(self, logits: Tensor) -> Tensor:
        """Return the mean loss over the samples, [P] float64."""

    def slopes(self, logits: Tensor) -> Tensor:
        """Return the derivative of each sample's loss in its logits, [P, K, n]."""

    def curvature(self, logits: Tensor) -> Tensor:
        """Return what `bend` needs to know of the logits, [P, K, n]."""

    def bend(self, curvature: Tensor, change: Tensor) -> Tensor:
        """Return each sample's Hessian times a change of its logits, [P, K, n]."""

    def mean_curvature(self, curvature: Tensor) -> Tensor:
        """Return the mean Hessian over the samples, [P, K, K] float64."""

    def dual_point(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return residuals R [P, K, n] with mean zero over samples, and the mean of -conjugate(R), [P] float64."""


def _mean(values: Tensor) -> Tensor:
    return values.sum(-1, dtype=torch.float64) / values.shape[-1]


class Softmax:
    """Multinomial cross-entropy: log sum exp(z) - z_y, in nats.

    Its conjugate at R = Q - Y is minus the entropy of Q, for Q a distribution over classes, infinite elsewhere.
    """

    forcing = 0.3
    easiest = 0.0

    def __init__(self, labels: Tensor, n_classes: int) -> None:
        self._labels = labels
        self._share = torch.bincount(labels, minlength=n_classes).double() / len(labels)

    def take(self, problems: Tensor) -> Softmax:
        return self

    def anchored(self, logits: Tensor) -> Tensor:
        return logits

    def _index(self, logits: Tensor) -> Tensor:
        return self._labels.expand(len(logits), 1, -1)

    def values(self, logits: Tensor) -> Tensor:
        return _mean(logits.logsumexp(1) - logits.gather(1, self._index(logits))[:, 0])

    def _minus_labels(self, probabilities: Tensor) -> Tensor:
        ones = probabilities.new_ones(()).expand(len(probabilities), 1, probabilities.shape[2])
        return probabilities.scatter_add_(1, self._index(probabilities), -ones)

    def slopes(self, logits: Tensor) -> Tensor:
        return self._minus_labels(logits.softmax(1))

    def curvature(self, logits: Tensor) -> Tensor:
        return logits.softmax(1)

    def bend(self, curvature: Tensor, change: Tensor) -> Tensor:
        bent = curvature * change
        return bent.sub_(curvature * bent.sum(1, keepdim=True))

    def mean_curvature(self, curvature: Tensor) -> Tensor:
        products = (curvature @ curvature.mT).double() / curvature.shape[2]
        return torch.diag_embed(_mean(curvature)) - products

    def dual_point(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Mix softmax P with a constant row r: Q = (1 - t) P + t r has the labels' shares as its means.

        With m the means of P and s the shares, r must be m + (s - m) / t, which sums to one; it is nowhere
        negative for every t >= max over classes of 1 - s / m, so t is that.
        """
        mixed = logits.softmax(1)
        means = _mean(mixed)
        t = (1 - self._share / means).amax(1, keepdim=True).clamp(min=0)
        row = torch.where(t > 0, means + (self._share - means) / t, means).clamp(min=0)
        mixed = mixed.mul_((1 - t)[..., None]).add_((t * row)[..., None])
        entropy = sum(_mean(torch.special.entr(mixed[:, k])) for k in range(mixed.shape[1]))
        return self._minus_labels(mixed), torch.as_tensor(entropy)


class _OneVersusRest:
    """Losses of signed logits: the sign of a sample is +1 in the problem of its own class, -1 elsewhere."""

    def __init__(self, signs: Tensor) -> None:
        self._signs = signs  # [P, 1, n] int8

    def take(self, problems: Tensor) -> Self:
        return type(self)(self._signs[problems])

    def bend(self, curvature: Tensor, change: Tensor) -> Tensor:
        return curvature * change

    def mean_curvature(self, curvature: Tensor) -> Tensor:
        return _mean(curvature)[..., None]


class Logistic(_OneVersusRest):
    """Binary log loss: log(1 + exp(-s z)), in nats.

    Its conjugate at R = q - [s = 1] is minus the binary entropy of q, for q in [0, 1].
    """

    forcing = 0.3
    easiest = 0.0

    def anchored(self, logits: Tensor) -> Tensor:
        return logits

    def values(self, logits: Tensor) -> Tensor:
        return _mean(torch.nn.functional.softplus(-self._signs * logits))[:, 0]

    def slopes(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(-self._signs * logits).mul_(-self._signs)

    def curvature(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits).mul_(torch.sigmoid(-logits))

    def dual_point(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Mix as the softmax of two classes does: q = (1 - t) sigmoid(z) + t r, with r in [0, 1]."""
        positive = self._signs > 0
        share = _mean(positive)
        means, rests = _mean(torch.sigmoid(logits)), _mean(torch.sigmoid(-logits))
        t = torch.maximum((means - share) / means, (share - means) / rests).clamp(min=0)
        row = torch.where(t > 0, means + (share - means) / t, means).clamp(0, 1)
        inside = torch.sigmoid(logits).mul_((1 - t)[..., None]).add_((t * row)[..., None])
        outside = torch.sigmoid(-logits).mul_((1 - t)[..., None]).add_((t * (1 - row))[..., None])
        entropy = _mean(torch.special.entr(inside)) + _mean(torch.special.entr(outside))
        return torch.where(positive, -outside, inside), entropy[:, 0]


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
        return logits.sub_(self._signs)

    def _violations(self, logits: Tensor) -> Tensor:
        return (-self._signs * logits).clamp_(min=0)

    def values(self, logits: Tensor) -> Tensor:
        return _mean(self._violations(logits).square_())[:, 0]

    def slopes(self, logits: Tensor) -> Tensor:
        return self._violations(logits).mul_(-2 * self._signs)

    def curvature(self, logits: Tensor) -> Tensor:
        return (self._violations(logits) > 0).to(logits.dtype).mul_(2)

    def dual_point(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Shrink the heavier side's multipliers a = 2 max(0, 1 - s z), so that both sides have the same sum."""
        multipliers = self._violations(logits).mul_(2)
        positive = self._signs > 0
        above, below = _mean(multipliers * positive), _mean(multipliers * ~positive)
        lighter = torch.minimum(above, below)
        up = torch.where(above > 0, lighter / above, lighter)[..., None]
        down = torch.where(below > 0, lighter / below, lighter)[..., None]
        multipliers = multipliers * torch.where(positive, up, down)
        value = _mean(multipliers - multipliers.square() / 4)[:, 0]
        return multipliers.mul_(-self._signs), value
