"""The sums over samples that a Newton step and a certificate need, each one pass over blocks of rows.

Points and directions are theta [P, K, d + 1]: the weights of P problems with K outputs, and the intercept as the
last column. Their logits [P, K, held] are kept where features are held and memory is left
(`DesignMatrix.columns_kept`); else they are made anew from each block, and where features are streamed memory does not
grow with the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from probes.solver.design_matrix import DesignMatrix
from probes.solver.losses import Loss
from probes.solver.workers import Sums


class Part(NamedTuple):
    """One block of rows: the loss on its samples, its logits [P, K, m] and its features [m, d]."""

    loss: Loss
    logits: Tensor
    features: Tensor


class Slope(NamedTuple):
    """First and second derivatives of the mean loss.

    Attributes:
        values: [P], the mean loss.
        gradient: [P, K, d + 1].
        curvature: [P, K, K], the mean Hessian over samples.
        centre: [P, d + 1], the sum of features (and of 1) times the traces of the samples' Hessians.
    """

    values: Tensor
    gradient: Tensor
    curvature: Tensor
    centre: Tensor


@dataclass(frozen=True)
class Logits:
    """The logits of theta, anchored where the loss wants it, or those of a direction, not anchored.

    Attributes:
        theta: [P, K, d + 1] float64.
        dtype: the precision of the logits and of the products made with them.
        kept: [P, K, held], or None where they are made anew from theta.
    """

    design: DesignMatrix
    loss: Loss
    theta: Tensor
    dtype: torch.dtype
    anchored: bool
    kept: Tensor | None

    @classmethod
    def of(
        cls, design: DesignMatrix, loss: Loss, theta: Tensor, dtype: torch.dtype, *, anchored: bool = True
    ) -> Logits:
        """Return the logits of theta, computing them now where they are kept."""
        made = cls(design, loss, theta, dtype, anchored, None)
        if theta.shape[0] * theta.shape[1] > design.columns_kept:
            return made  # more logits than memory is given to: made anew in each pass, one product more
        kept = torch.empty(*theta.shape[:2], design.samples.held, dtype=dtype, device=theta.device)

        def work(blocks: list[slice]) -> Sums:
            for rows, part in made._made(blocks):
                kept[..., rows] = part.logits
            return ()

        design.workers.sum(made._rows(), work)  # nothing is summed: each worker writes the rows of its blocks
        return cls(design, loss, theta, dtype, anchored, kept)

    def take(self, problems: Tensor) -> Logits:
        """Return the logits of some of the problems, given in ascending order."""
        if len(problems) == len(self.theta):
            return self
        kept = None if self.kept is None else self.kept[problems]
        loss, theta = self.loss.take(problems), self.theta[problems]
        return Logits(self.design, loss, theta, self.dtype, self.anchored, kept)

    def put(self, problems: Tensor, other: Logits) -> None:
        """Overwrite some of the problems, in place."""
        self.theta[problems] = other.theta
        if self.kept is not None and other.kept is not None:
            self.kept[problems] = other.kept.to(self.dtype)

    def double(self) -> Logits:
        """Return the logits for work in float64."""
        kept = None if self.kept is None else self.kept.double()
        return Logits(self.design, self.loss, self.theta, torch.float64, self.anchored, kept)

    def sum(self, work: Callable[[Iterator[Part]], Sums], *, features: bool = True) -> Sums:
        """Return the sums over all blocks of what the work sums over some of them.

        features: whether it reads them; kept logits alone are read faster.
        """
        return self.design.workers.sum(self._rows(), lambda rows: work(self._parts(rows, features)))

    def _parts(self, blocks: list[slice], features: bool) -> Iterator[Part]:
        if self.kept is None:
            yield from (part for _, part in self._made(blocks))
        else:
            for rows in blocks:
                block = self.design.block(rows, self.dtype) if features else self.kept.new_empty(0)
                yield Part(self.loss.at(rows), self.kept[..., rows], block)

    def moved(self, direction: Logits, length: Tensor) -> Logits:
        """Return the logits of theta + length [P] x the direction's; kept ones are changed in place."""
        theta = self.theta + length[:, None, None] * direction.theta
        if self.kept is not None and direction.kept is not None:
            self.kept.addcmul_(direction.kept, length[:, None, None].to(self.dtype))
        return Logits(self.design, self.loss, theta, self.dtype, self.anchored, self.kept)

    def shifted(self, shift: Tensor) -> Logits:
        """Return the logits with the intercepts moved by [P, K]; kept ones are changed in place."""
        theta = self.theta.clone()
        theta[..., -1] += shift
        if self.kept is not None:
            self.kept.add_(shift[..., None].to(self.dtype))
        return Logits(self.design, self.loss, theta, self.dtype, self.anchored, self.kept)

    def _rows(self) -> list[slice]:
        return self.design.rows(self.theta.shape[0] * self.theta.shape[1])

    def _made(self, blocks: list[slice]) -> Iterator[tuple[slice, Part]]:
        forward = self.design.forward(self.theta.to(self.dtype))
        for rows in blocks:
            block, loss = self.design.block(rows, self.dtype), self.loss.at(rows)
            logits = forward(block)
            yield rows, Part(loss, loss.anchored(logits) if self.anchored else logits, block)


def slope(logits: Logits) -> Slope:
    """Return value, gradient and mean curvature of the mean loss."""

    def work(parts: Iterator[Part]) -> Sums:
        values, curvature = _zeros(logits)
        backward, centre = (
            logits.design.backward(theta, logits.dtype) for theta in (logits.theta, logits.theta[:, :1])
        )
        for loss, z, block in parts:
            values += loss.values(z)
            bent = loss.curvature(z)
            curvature += loss.mean_curvature(bent)
            backward.add(loss.slopes(z), block)
            centre.add(loss.trace(bent), block)
        return values, backward.total().double(), curvature, centre.total().double()[:, 0]

    return Slope(*logits.sum(work))


def intercept_slope(logits: Logits) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean slopes [P, K], the largest mean size of a slope [P] and the mean curvature [P, K, K]."""

    def work(parts: Iterator[Part]) -> Sums:
        mean, size = logits.theta.new_zeros(2, *logits.theta.shape[:2])
        _, curvature = _zeros(logits)
        for loss, z, _ in parts:
            slopes = loss.slopes(z)
            mean += slopes.sum(2, dtype=torch.float64)
            size += slopes.abs_().sum(2, dtype=torch.float64)
            curvature += loss.mean_curvature(loss.curvature(z))
        return mean, size, curvature

    mean, size, curvature = logits.sum(work, features=False)
    return mean, size.amax(1), curvature


def bend(logits: Logits, direction: Tensor) -> Tensor:
    """Return the Hessian of the mean loss times directions [P, K, d + 1], in the precision of the direction."""
    forward = logits.design.forward(direction)

    def work(parts: Iterator[Part]) -> Sums:
        backward = logits.design.backward(direction, direction.dtype)
        for loss, z, block in parts:
            backward.add(loss.bend(loss.curvature(z), forward(block)), block)
        return (backward.total(),)

    return logits.sum(work)[0]


def slope_along(logits: Logits, direction: Logits, length: Tensor) -> Tensor:
    """Return the derivative of the mean loss along the direction, at theta + length x direction, [P] float64."""
    factor = length.to(logits.dtype)[:, None, None]

    def work(blocks: list[slice]) -> Sums:
        total = torch.zeros_like(length)
        pairs = zip(logits._parts(blocks, False), direction._parts(blocks, False), strict=True)
        for (loss, z, _), (_, change, _) in pairs:
            total += loss.slopes(torch.addcmul(z, change, factor)).mul_(change).sum((1, 2), dtype=torch.float64)
        return (total,)

    return logits.design.workers.sum(logits._rows(), work)[0]


def balance(logits: Logits) -> Tensor:
    """Return what the repair of the dual point needs, [P, S] float64."""

    def work(parts: Iterator[Part]) -> Sums:
        return (sum((loss.balance(z) for loss, z, _ in parts), torch.zeros((), device=logits.theta.device)),)

    return logits.sum(work, features=False)[0]


def _zeros(logits: Logits) -> tuple[Tensor, Tensor]:
    n_problems, n_outputs = logits.theta.shape[:2]
    zeros = logits.theta.new_zeros
    return zeros(n_problems), zeros(n_problems, n_outputs, n_outputs)
