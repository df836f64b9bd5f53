"""Owns training: the loop that solves auxiliary problems, one frozen block after another.

`solve` is the one training loop of the house. It takes batches of x, already computed by whatever is frozen,
and auxiliary problems that all read them: the pair of a block and its auxiliary classifier here, several
CNN-p probes of one depth in `probes`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerwise.augment import augment, draw
from layerwise.commandline import progress
from layerwise.config import RunConfig, TrainingConfig
from layerwise.datasets import Dataset, Split
from layerwise.errors import UserError
from layerwise.network import LayerwiseNetwork, derive_seed, freeze

log = logging.getLogger("layerwise.training")

EVALUATION_BATCH = 512
Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy in nats and accuracy in [0, 1] over n images."""

    loss: float
    accuracy: float
    n: int


@dataclass(frozen=True)
class Epoch:
    """One row of the history: block j, epoch from 0, the learning rate, scores while training and after it."""

    block: int
    epoch: int
    learning_rate: float
    train: Score
    validation: Score | None
    seconds: float


class AuxiliaryProblem:
    """A module to be trained on x [n, C, H, W] -> logits [n, n_classes], with its optimizer and schedule.

    The optimizer is built anew, and its momentum lost, whenever the learning rate drops, as in the authors' code.
    """

    def __init__(self, module: nn.Module, config: TrainingConfig):
        self.module = module
        self.config = config
        self.learning_rate = config.learning_rate
        self._sums = torch.zeros(3)

    def start_epoch(self, epoch: int) -> None:
        """Set the learning rate of this epoch and forget the sums of the last."""
        cfg = self.config
        if epoch % cfg.lr_every == 0:
            self.learning_rate = cfg.learning_rate * cfg.lr_factor ** (epoch // cfg.lr_every)
            self.optimizer = torch.optim.SGD(
                self.module.parameters(),
                lr=self.learning_rate,
                momentum=cfg.momentum,
                weight_decay=cfg.weight_decay,
            )
        self.module.train()
        self._sums = torch.zeros(3, device=next(self.module.parameters()).device)

    def step(self, x: Tensor, y: Tensor) -> None:
        """Take one step of gradient descent on the mean cross-entropy of one batch."""
        logits = self.module(x)
        loss = F.cross_entropy(logits, y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():  # sums stay on the device: no step waits for the host
            correct = (logits.argmax(1) == y).sum()
            self._sums += torch.stack([loss * len(y), correct.to(loss.dtype), loss.new_tensor(len(y))])

    def finish_epoch(self, where: str) -> Score:
        """Return the epoch's mean training score; raise UserError if its loss is not finite."""
        loss, correct, n = self._sums.tolist()
        if not np.isfinite(loss):
            raise UserError(
                f"the loss of {where} is {loss / n}: training diverged at learning rate {self.learning_rate:g}. "
                "Try a smaller one by --set training.learning_rate=..."
            )
        return Score(loss / n, correct / n, int(n))


def solve(
    problems: list[AuxiliaryProblem],
    epoch_batches: Callable[[int], Batches],
    epochs: int,
    where: str,
) -> Iterator[tuple[int, list[Score]]]:
    """Train every problem on the same batches; yield (epoch, training scores) after each epoch.

    Args:
        problems: trained side by side; each batch is computed once for all of them.
        epoch_batches: gives the batches (x, y) of an epoch, x without a graph behind it.
        where: what is being trained, for messages ("block 2").
    """
    for epoch in range(epochs):
        for problem in problems:
            problem.start_epoch(epoch)
        for x, y in epoch_batches(epoch):
            for problem in problems:
                problem.step(x, y)
        yield epoch, [problem.finish_epoch(f"{where}, epoch {epoch}") for problem in problems]


@torch.no_grad()
def evaluate(module: nn.Module, batches: Batches) -> Score:
    """Return loss and accuracy of a module over batches (x, y), in eval mode, in which it is left."""
    module.eval()
    loss, correct, n = 0.0, 0, 0
    for x, y in batches:
        logits = module(x)
        loss += float(F.cross_entropy(logits, y, reduction="sum"))
        correct += int((logits.argmax(1) == y).sum())
        n += len(y)
    return Score(loss / n, correct / n, n)


class DeviceSplit:
    """A split's uint8 images and labels on the device that trains."""

    def __init__(self, split: Split, device: torch.device):
        self.images = torch.from_numpy(split.images).to(device)
        self.label = torch.from_numpy(split.label).to(device)

    def in_order(
        self, to_x: Callable[[Tensor], Tensor], size: int = EVALUATION_BATCH
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y) over all images in their order, x computed from uint8 images by `to_x`."""
        for images, y in zip(self.images.split(size), self.label.split(size), strict=True):
            yield to_x(images), y

    def shuffled(
        self, to_x: Callable[[Tensor], Tensor], config: TrainingConfig, seed: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y) over all images in random order, augmented; order and draws follow from `seed`."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.label), generator=generator).to(self.label.device)
        for rows in order.split(config.batch_size):
            images = self.images[rows]
            if config.crop_padding or config.flip:
                draws = draw(len(rows), config.crop_padding, config.flip, generator)
                images = augment(images, draws, config.crop_padding)
            yield to_x(images), self.label[rows]


def train_greedy(network: LayerwiseNetwork, dataset: Dataset, config: RunConfig) -> Iterator[Epoch]:
    """Solve the J auxiliary problems in sequence, freezing each block before the next; yield each epoch.

    When it is exhausted every block and every auxiliary is trained, frozen and in eval mode.
    """
    device = network.mean.device
    data = {name: DeviceSplit(split, device) for name, split in dataset.splits.items() if name != "test"}
    with progress() as bar:
        task = bar.add_task("training", total=config.network.depth * config.training.epochs)
        for j in range(1, config.network.depth + 1):
            for epoch in train_block(network, data, config, j):
                bar.update(task, advance=1, description=f"block {j}/{config.network.depth}")
                yield epoch


def train_block(network: LayerwiseNetwork, data: dict[str, DeviceSplit], config: RunConfig, j: int) -> Iterator[Epoch]:
    """Solve auxiliary problem j: train block j with its auxiliary classifier on frozen x_{j-1}, then freeze both."""
    pair = nn.Sequential(network.blocks[j - 1], network.auxiliaries[j - 1])
    problem = AuxiliaryProblem(pair, config.training)

    @torch.no_grad()
    def frozen_prefix(images: Tensor) -> Tensor:
        return network.advance(network.normalise(images), 0, j - 1)

    def epoch_batches(epoch: int) -> Batches:
        seed = derive_seed(config.seed, f"order {epoch}", j)
        return data["train"].shuffled(frozen_prefix, config.training, seed)

    start = time.perf_counter()
    for epoch, (train,) in solve([problem], epoch_batches, config.training.epochs, f"block {j}"):
        validation = evaluate(pair, data["validation"].in_order(frozen_prefix)) if "validation" in data else None
        seconds = time.perf_counter() - start
        yield Epoch(j, epoch, problem.learning_rate, train, validation, seconds)
        start = time.perf_counter()
    freeze(pair)


@torch.no_grad()
def settle_batch_norm(network: LayerwiseNetwork, train: DeviceSplit) -> None:
    """Give an untrained network the running statistics of one label-free pass over the training images.

    Every BatchNorm averages the statistics of all batches equally (momentum None). The network ends frozen.
    """
    norms = [module for module in network.blocks.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    if norms:
        network.blocks.train()
        for x, _ in train.in_order(network.normalise):
            network.advance(x, 0, len(network.blocks))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    freeze(network)
