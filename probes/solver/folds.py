"""The labels, weights and penalties that a path is fitted to, checked and put in the form of the solver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from layerwise.errors import UserError
from probes.solver.rows import at
from probes.solver.samples import Samples


@dataclass(frozen=True)
class Targets:
    """What P problems are fitted to.

    Attributes:
        labels: [B, held] int, B label vectors.
        weights: [B, held] float64, which over all samples sum to 1, or None where every sample counts 1/n.
        row: [P], the label vector of each problem.
        n: the number of all samples, also where this is one block of them, or the part that one rank holds.
    """

    labels: Tensor
    weights: Tensor | None
    row: Tensor
    n: int

    def take(self, problems: Tensor) -> Targets:
        return replace(self, row=self.row[problems])

    def at(self, rows: slice) -> Targets:
        weights = None if self.weights is None else self.weights[:, rows]
        return replace(self, labels=self.labels[:, rows], weights=weights)

    def of_problems(self) -> Tensor:
        """Return the labels [P, m]."""
        return self.labels.expand(len(self.row), -1) if len(self.labels) == 1 else self.labels[self.row]

    def weigh(self, values: Tensor) -> Tensor:
        """Multiply values [P, K, m] by the weights of the samples, in place."""
        if self.weights is None:
            return values.div_(self.n)
        return values.mul_(self.weights[self.row][:, None].to(values.dtype))

    def mean(self, values: Tensor) -> Tensor:
        """Return the weighted sum over the block of values [P, K, m], [P, K] float64."""
        if self.weights is None:
            return values.sum(2, dtype=torch.float64) / self.n
        return (values * self.weights[self.row][:, None].to(values.dtype)).sum(2, dtype=torch.float64)

    def mean_square(self, weighted: Tensor) -> Tensor:
        """Return the mean square of what was weighed already, [P, m], as [P] float64."""
        if self.weights is None:
            return weighted.square().sum(1, dtype=torch.float64) * self.n
        weights = self.weights[self.row]
        return torch.where(weights > 0, weighted.square() / weights, 0).sum(1, dtype=torch.float64)

    def mean_of_samples(self, values: Tensor) -> Tensor:
        """Return the weighted sum over the samples held here of values [held], [P] float64."""
        if self.weights is None:
            return (values.sum() / self.n).expand(len(self.row))
        return (self.weights @ values)[self.row]


class Folds:
    """B label vectors of the same K classes with weights, ready for a loss.

    Attributes:
        classes: [K], the labels that have samples.
        share: [B, K] float64, the weight of each of them.
    """

    def __init__(
        self, labels: Tensor, weights: Tensor | None, classes: Tensor, device: torch.device,
        samples: Samples | None = None,
    ):  # fmt: skip
        self._samples = samples or Samples(labels.shape[1])
        self.classes, self.n_classes = classes.to(device), len(classes)
        # Samples of weight 0 may have another label: any will do.
        self._labels = torch.searchsorted(classes, labels).clamp(max=len(classes) - 1).to(device)
        self._weights = None if weights is None else self._shares(weights.to(device))
        self.share = torch.stack([self._share(row) for row in range(len(labels))])

    def _share(self, row: int) -> Tensor:
        weights = None if self._weights is None else self._weights[row]
        own = torch.bincount(self._labels[row], weights, minlength=self.n_classes).double()
        (count,) = self._samples.add_up(own)
        return count / count.sum()

    def _shares(self, weights: Tensor) -> Tensor:
        (total,) = self._samples.add_up(weights.sum(1, keepdim=True))
        return weights / total

    def targets(self, row: Tensor) -> Targets:
        """Return the targets of P problems, row [P] naming the label vector of each."""
        return Targets(self._labels, self._weights, row, self._samples.n)


def checked_penalties(lams: Sequence[float], where: str) -> Tensor:
    """Return penalties [L] float64 that are positive and finite, and at least one."""
    penalties = torch.as_tensor(np.asarray(lams, dtype=np.float64)).reshape(-1)
    wrong = [lam for lam in penalties.tolist() if not 0 < lam < np.inf]
    if wrong or not len(penalties):
        found = ", ".join(f"{lam:g}" for lam in wrong) or "none"
        raise UserError(f"{at(where)}found penalties lambda {found}, expected positive finite numbers.")
    return penalties


def checked_labels(y: ArrayLike | Tensor, n_samples: int, n_classes: int, where: str) -> Tensor:
    """Return labels [B, n] int64 in [0, n_classes)."""
    labels = torch.as_tensor(y if isinstance(y, Tensor) else np.array(y)).cpu()
    labels = labels[None] if labels.ndim == 1 else labels
    if labels.ndim != 2 or labels.shape[1] != n_samples or not len(labels):
        found = tuple(labels.shape[1:] if len(labels) == 1 else labels.shape)
        raise UserError(f"{at(where)}found labels of shape {found}, expected [{n_samples}], one for each sample.")
    outside = int(((labels < 0) | (labels >= n_classes) | (labels != labels.long())).sum())
    if outside:
        raise UserError(
            f"{at(where)}found {outside} labels outside the integers 0 to {n_classes - 1}, expected none: "
            f"there are {n_classes} classes."
        )
    return labels.long()


def checked_weights(sample_weight: ArrayLike | Tensor | None, n_samples: int, where: str) -> Tensor:
    """Return weights [B, n] float64 that are finite and not negative; ones where none are given."""
    if sample_weight is None:
        return torch.ones(1, 1, dtype=torch.float64).expand(1, n_samples)
    weights = torch.as_tensor(sample_weight if isinstance(sample_weight, Tensor) else np.array(sample_weight))
    weights = weights.cpu().double()
    weights = weights[None] if weights.ndim == 1 else weights
    if weights.ndim != 2 or weights.shape[1] != n_samples or not len(weights):
        raise UserError(
            f"{at(where)}found sample weights of shape {tuple(weights.shape)}, expected [{n_samples}] "
            f"or [paths, {n_samples}]."
        )
    wrong = int((~(weights >= 0) | weights.isinf()).sum())
    if wrong:
        raise UserError(f"{at(where)}found {wrong} sample weights that are negative or not finite, expected none.")
    return weights


def checked_count(labels: Tensor, weights: Tensor, start: Sequence[object] | None, where: str) -> int:
    """Return the number of paths: label vectors and weights are one for all, or one for each; starts one for each."""
    n_paths = max(len(labels), len(weights))
    if {len(labels), len(weights)} - {1, n_paths} or (start is not None and len(start) != n_paths):
        raise UserError(
            f"{at(where)}found {len(labels)} label vectors, {len(weights)} rows of weights and "
            f"{0 if start is None else len(start)} fits to start from, expected the same number of each."
        )
    return n_paths


def checked_presence(labels: Tensor, weights: Tensor, n_classes: int, where: str, samples: Samples) -> Tensor:
    """Return which classes have weight in each row, [B, n_classes] bool, at least two of them, on any rank."""
    present = torch.zeros(len(labels), n_classes, dtype=torch.bool)
    for row, label, weight in zip(present, labels, weights, strict=True):
        row[label[weight > 0].unique()] = True
    present = torch.stack(samples.all_of(lambda: present)).any(0)
    if len(labels) and int(present.sum(1).min()) < 2:
        found = int(present.sum(1).min())
        raise UserError(
            f"{at(where)}found labels of {found} class{'' if found == 1 else 'es'}, expected at least 2 different ones."
        )
    return present
