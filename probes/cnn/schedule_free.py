"""Schedule-free AdamW, by which CNN probes are trained: at any step the average of the weights is a finished probe.

No rate falls towards an end that must be known beforehand, so one training gives the probe after half of its epochs and
after all of them. docs/protocol.md has what was measured against one cycle and against averages of plain AdamW.
Source: Defazio et al. 2024, The Road Less Scheduled.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from layerwise.config import TrainingConfig
from layerwise.model.blocks import AuxiliaryClassifier
from layerwise.model.network import freeze
from layerwise.training.problem import AuxiliaryProblem

BETA1, BETA2, EPSILON, WEIGHT_DECAY = 0.9, 0.999, 1e-8, 0.01
WARM_UP = 0.05  # share of the steps over which the rate rises linearly


class ScheduleFreeAdamW(torch.optim.Optimizer):
    """The parameters are y, where gradients are taken, between the iterate z and x, the average of the z.

        z <- z - rate (g / (sqrt(v / (1 - beta2^t)) + epsilon) + decay y)
        x <- x + share (z - x),    share = rate_t^2 / sum of rate_s^2 to t
        y <- z + beta1 (x - z)

    `advance` is the host's half of a step, and `step` the device's alone, so that a CUDA graph can repeat it: what
    changes from step to step stands in tensors on the device.
    """

    def __init__(self, parameters: list[nn.Parameter], rate: float):
        super().__init__(parameters, {"lr": rate})
        self.y = [p.data for p in parameters]
        self.parameters, self.rate, self.sum, self.t = parameters, rate, 0.0, 0
        self.x, self.z = ([torch.clone(y) for y in self.y] for _ in range(2))
        self.v = [torch.zeros_like(y) for y in self.y]
        self._now, self._share, self._unbias = torch.zeros(3, 1, device=self.y[0].device).squeeze(1)

    def advance(self, warm_up: float) -> None:
        """Begin the next step; its rate is the full one from step `warm_up` on."""
        self.t += 1
        now = self.rate * min(1.0, self.t / max(1.0, warm_up))
        self.sum += now**2
        for tensor, value in ((self._now, now), (self._share, now**2 / self.sum), (self._unbias, 1 - BETA2**self.t)):
            tensor.fill_(value)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        torch._foreach_mul_(self.v, BETA2)
        torch._foreach_addcmul_(self.v, gradients, gradients, 1 - BETA2)
        scale = torch._foreach_div(self.v, self._unbias)
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, EPSILON)
        move = torch._foreach_div(gradients, scale)
        torch._foreach_add_(move, self.y, alpha=WEIGHT_DECAY)
        torch._foreach_mul_(move, self._now)
        torch._foreach_sub_(self.z, move)
        towards = torch._foreach_sub(self.z, self.x)
        torch._foreach_mul_(towards, self._share)
        torch._foreach_add_(self.x, towards)
        torch._foreach_copy_(self.y, self.z)
        torch._foreach_lerp_(self.y, self.x, BETA1)


class ProbeProblem(AuxiliaryProblem):
    """A CNN probe in training, by the recipe of docs/protocol.md: no augmentation, weight decay on every parameter."""

    optimizer: ScheduleFreeAdamW

    def __init__(self, probe: AuxiliaryClassifier, learning_rate: float, epochs: int, batch_size: int, precision: str):
        config = TrainingConfig(epochs=epochs, batch_size=batch_size, optimizer="adamw", learning_rate=learning_rate)
        super().__init__(nn.Identity(), probe, config, precision)
        self.optimizer = ScheduleFreeAdamW(list(probe.parameters()), learning_rate)

    def prepare(self) -> None:
        """Set the learning rate of the next step."""
        self._step += 1
        self.optimizer.advance(WARM_UP * self.config.epochs * self._steps)

    @torch.no_grad()
    def averaged_probe(self) -> AuxiliaryClassifier:
        """Return a frozen copy of the probe as it stands now, with the averaged weights.

        Its BatchNorm has the statistics of other weights; `layerwise.model.batch_norm.settling` gives it its own.
        """
        assert isinstance(self.classifier, AuxiliaryClassifier)
        probe = copy.deepcopy(self.classifier)
        for parameter, value in zip(probe.parameters(), self.optimizer.x, strict=True):
            parameter.copy_(value)
        freeze(probe)
        return probe
