"""One auxiliary problem: a block with its classifier, its optimizer, averaging, and their state."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerwise import ranks
from layerwise.config import TrainingConfig
from layerwise.config.training import PULL_EVERY
from layerwise.errors import DivergedError
from layerwise.training.history import Score
from layerwise.training.optimizer import new_optimizer, set_rate
from layerwise.training.schedule import learning_rate


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return a context that computes convolutions and matrix products in bfloat16 at "bf16", else in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


class AuxiliaryProblem:
    """A classifier on top of a block, trained together on x [n, C, H, W] with labels y [n].

    block: the blocks whose weights are trained with the classifier; nn.Identity() where there is none, as for a probe.
    classifier: maps the block's output to logits [n, n_classes].

    With the stepwise schedule the momentum is lost whenever the learning rate drops, as in the authors' code, which
    then builds a new optimizer.

    A step has two halves: `prepare` is the host's, and `descend` is the device's alone, so that it can be captured in a
    CUDA graph. It therefore reads no number that lies on the device, and every tensor it changes keeps its place.
    """

    def __init__(self, block: nn.Module, classifier: nn.Module, config: TrainingConfig, precision: str = "fp32"):
        self.block, self.classifier = block, classifier
        self.module = nn.Sequential(block, classifier)
        self._parameters = list(self.module.parameters())
        self.config, self.precision = config, precision
        self.device = next(classifier.parameters()).device
        self.averaged: nn.Sequential | None = None
        if config.averages:
            self.averaged = copy.deepcopy(self.module).requires_grad_(False)
        self._is_averaging = False
        self._towards_now, self._back = torch.zeros(2, 1, device=self.device).squeeze(1)  # of lookahead
        self.learning_rate = config.learning_rate
        self.optimizer = new_optimizer(config, self.module, self.device)
        self._sums = torch.zeros(3, device=self.device)  # loss, correct, images
        self._finite = torch.zeros((), dtype=torch.int64, device=self.device)  # steps before the first bad loss

    def start_epoch(self, epoch: int, steps: int, done: int = 0) -> None:
        """Prepare for the given epoch of `steps` steps, and reset the sums.

        done: steps of it that were taken before the problem's state was saved; the sums are then as they were restored.
        """
        cfg = self.config
        self.module.train()
        self._epoch, self._steps, self._step = epoch, steps, done
        if done:
            return
        if cfg.schedule == "steps" and epoch > 0 and cfg.drops(epoch) > cfg.drops(epoch - 1):
            self._reset_optimizer()
        self._sums.zero_()
        self._finite.zero_()

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """Take one step of gradient descent on the mean cross-entropy of a batch; return the detached block output."""
        self.prepare()
        return self.descend(x, y)

    def prepare(self) -> None:
        """Set the learning rate of the next step."""
        rate = learning_rate(self.config, self._epoch + self._step / self._steps)
        self._step += 1
        self.learning_rate = rate
        set_rate(self.optimizer, rate)
        if self.config.lookahead:
            self._prepare_pull()

    def _prepare_pull(self) -> None:
        """Set by how much, after the next step, the average moves to the weights, and these back to it."""
        done = self._epoch * self._steps + self._step
        past = self.config.lookahead**PULL_EVERY * (done / (self.config.epochs * self._steps)) ** 3
        is_due = done % PULL_EVERY == 0
        self._towards_now.fill_(1 - past if is_due else 0.0)
        self._back.fill_(float(is_due))

    def descend(self, x: Tensor, y: Tensor) -> Tensor:
        """Take the step on the device, after `prepare`; return the detached block output."""
        with autocast(self.precision, self.device):
            hidden = self.block(x)
            logits = self.classifier(hidden)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        loss, summed = self._losses(logits, y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        ranks.average_gradients(self._parameters, len(y))
        self.optimizer.step()
        if self.averaged is not None:
            (self._pull if self.config.lookahead else self._average)(self.averaged)
        self._account(summed.detach(), logits, y)
        return hidden.detach()

    def _losses(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss that is descended, and the sum of the batch's losses on this rank.

        Of several ranks each descends its sum, and `average_gradients` makes the gradients those of the mean of all:
        exactly so whatever shares of the batch they have.
        """
        smoothing = self.config.label_smoothing
        if ranks.world() == 1:
            loss = F.cross_entropy(logits, y, label_smoothing=smoothing)
            return loss, loss * len(y)
        summed = F.cross_entropy(logits, y, label_smoothing=smoothing, reduction="sum")
        return summed, summed

    @torch.no_grad()
    def _average(self, averaged: nn.Module) -> None:
        """Move the average towards the weights and buffers; the first step copies them.

        torch's AveragedModel does the same, but copies its count of steps to the device in each, and so waits for it.
        """
        means, nows = self._real(averaged)
        torch._foreach_lerp_(means, nows, 1 - self.config.ema_decay if self._is_averaging else 1.0)
        self._is_averaging = True

    @torch.no_grad()
    def _pull(self, averaged: nn.Module) -> None:
        """Move the average towards the weights and buffers and set these to it, in the steps in which that is due.

        Both moves are made in every step, of which most are by nothing: a CUDA graph has no branches.
        """
        means, nows = self._real(averaged)
        for moved, towards, share in ((means, nows, self._towards_now), (nows, means, self._back)):
            step = torch._foreach_sub(towards, moved)
            torch._foreach_mul_(step, share)
            torch._foreach_add_(moved, step)

    def _real(self, averaged: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        """Return the floating-point entries of the average and of the module; the others are copied over."""
        pairs = list(zip(averaged.state_dict().values(), self.module.state_dict().values(), strict=True))
        for mean, now in pairs:
            if not mean.is_floating_point():
                mean.copy_(now)
        real = [pair for pair in pairs if pair[0].is_floating_point()]
        return [mean for mean, _ in real], [now for _, now in real]

    @torch.no_grad()
    def _account(self, summed: Tensor, logits: Tensor, y: Tensor) -> None:
        """Add the sum of a batch's losses to the epoch's sums on the device, so that no step waits for the host."""
        correct = (logits.argmax(1) == y).sum()
        self._sums[:2].add_(torch.stack([summed, correct.to(summed.dtype)]))
        self._sums[2].add_(len(y))
        self._finite.add_(torch.isfinite(self._sums[0]))  # once the sum is inf or NaN it stays so

    def score(self, where: str) -> Score:
        """Return the mean score of the epoch so far; raise DivergedError if a loss was not finite, saying where.

        This waits for the device.
        """
        finite = int(ranks.least(self._finite.clone()))
        if finite < self._step:
            raise DivergedError(
                f"the loss is not finite at {where}, epoch {self._epoch}, step {finite}: training diverged at learning "
                f"rate {self.learning_rate:g}. Try --set training.learning_rate={self.config.learning_rate / 5:g}"
            )
        loss, correct, n = ranks.add_up(self._sums.clone()).tolist()
        return Score(loss / n, correct / n, int(n))

    def evaluated(self) -> tuple[nn.Module, nn.Module]:
        """Return the block and classifier to evaluate: the averaged ones where weights are averaged."""
        if self.averaged is None:
            return self.block, self.classifier
        block, classifier = self.averaged.children()
        return block, classifier

    def finish(self) -> None:
        """Replace the last weights by the averaged ones, where weights are averaged."""
        if self.averaged is not None:
            self.module.load_state_dict(self.averaged.state_dict())

    def state(self) -> dict[str, np.ndarray]:
        """Return the state of optimizer, average and the epoch's sums, as arrays by name, without the weights.

        Sums are those of all ranks, which ask at once.
        """
        found = {
            f"optimizer/{i}/{name}": value.cpu().numpy()
            for i, entries in self.optimizer.state_dict()["state"].items()
            for name, value in entries.items()
            if value is not None
        }
        found |= {
            "sums/sums": ranks.add_up(self._sums.clone()).cpu().numpy(),
            "sums/finite": self._finite.cpu().numpy(),
        }
        if self.averaged is not None:
            found |= {f"averaged/{name}": value.cpu().numpy() for name, value in self.averaged.state_dict().items()}
        return found

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what `state` returned."""
        whole = self.optimizer.state_dict()
        whole["state"] = {}
        averaged = {}
        for path, value in state.items():
            kind, _, name = path.partition("/")
            tensor = torch.from_numpy(np.array(value))
            if kind == "optimizer":
                i, _, entry = name.partition("/")
                whole["state"].setdefault(int(i), {})[entry] = tensor
            elif kind == "sums":
                sums = self._sums if name == "sums" else self._finite
                sums.copy_(tensor.reshape(sums.shape))
                if name == "sums" and ranks.rank() > 0:  # rank 0 has those of all
                    self._sums.zero_()
            else:
                averaged[name] = tensor
        self.optimizer.load_state_dict(whole)
        for parameter, entries in self.optimizer.state.items():
            for name, value in entries.items():
                if value.shape == parameter.shape:  # fused optimizers need the parameter's layout in memory
                    entries[name] = torch.empty_like(parameter).copy_(value)
        if self.averaged is not None:
            self.averaged.load_state_dict(averaged)
            self._is_averaging = True

    def _reset_optimizer(self) -> None:
        """Set the optimizer back to its first step, in place: zero momentum is that of one built anew."""
        for entries in self.optimizer.state.values():
            for value in entries.values():
                if isinstance(value, Tensor):
                    value.zero_()
