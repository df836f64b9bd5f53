"""Training and scoring of the CNN-p probes of a depth: all of them together, from one pass over its activations.

A CNN-p probe is the auxiliary classifier with k = p + 1, trained on the frozen x_j. The paper gives no recipe for these
probes; docs/protocol.md states this one, and why.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from layerwise.commandline import progress
from layerwise.config import TrainingConfig
from layerwise.errors import UserError
from layerwise.hardware import products
from layerwise.model.architectures import Shape
from layerwise.model.blocks import AuxiliaryClassifier
from layerwise.model.counts import convolution_operations
from layerwise.model.network import freeze
from layerwise.model.seeds import derive_seed, initialised
from layerwise.runfile import RunFile
from layerwise.training.batches import Batches
from layerwise.training.loop import solve
from layerwise.training.problem import AuxiliaryProblem, autocast
from probes.cnn.reading import Labelled
from probes.probe import ProbeName
from probes.protocol import Predictions, joined, predictions

BATCH = 32  # with two epochs the steps must be many: docs/protocol.md compares recipes
SIDE = 2  # of the grid to which A averages in front of the linear layer


@dataclass(frozen=True)
class Design:
    """One probe to report: p hidden convolutions, width M, seed of the initial weights."""

    p: int
    width: int
    seed: int

    @classmethod
    def named(cls, name: ProbeName) -> Design:
        """Return the design of the probe of a name, "cnn-p"."""
        return cls(int(name.probe.removeprefix("cnn-")), name.probe_width, name.probe_seed)

    def operations(self, shape: Shape, n_classes: int) -> int:
        """Return the floating-point operations of one image of shape (C, H, W), forward."""
        first, others = self.layers(shape)
        return first + others + 2 * SIDE**2 * self.width * n_classes

    def training_operations(self, shape: Shape, n_classes: int) -> int:
        """Return those of one image in training; the first convolution needs no gradient of its input."""
        return 3 * self.operations(shape, n_classes) - self.layers(shape)[0]

    def layers(self, shape: Shape) -> tuple[int, int]:
        """Return the operations of one image in the first hidden convolution, and in all others."""
        within = (self.width, *shape[1:])
        return convolution_operations(shape[0], within), (self.p - 1) * convolution_operations(self.width, within)


@dataclass(frozen=True)
class Candidate:
    """A design trained at one learning rate."""

    design: Design
    learning_rate: float


@dataclass(frozen=True)
class Trained:
    """A trained probe, how it was trained, and its share of the seconds that all took together.

    n_features: numbers an image, C H W. n_train: images it was trained on.
    """

    module: AuxiliaryClassifier
    n_features: int
    n_train: int
    learning_rate: float
    epochs: int
    seconds: float


def recipe(learning_rate: float, epochs: int) -> TrainingConfig:
    """Return how a CNN-p probe is trained: AdamW, one cycle of the learning rate, no augmentation."""
    return TrainingConfig(
        epochs=epochs, batch_size=BATCH, optimizer="adamw", learning_rate=learning_rate, schedule="one-cycle",
        weight_decay=0.01,
    )  # fmt: skip


def new_probe(design: Design, shape: Shape, n_classes: int, depth: int) -> AuxiliaryClassifier:
    """Return the untrained probe of a depth whose maps have the given shape (C, H, W)."""
    return initialised(
        derive_seed(design.seed, f"probe {design.p} {design.width}", depth),
        lambda: AuxiliaryClassifier(shape[0], n_classes, k=design.p + 1, width=design.width, batch_norm=True),
    ).to(memory_format=torch.channels_last)


def train_together(
    data: Labelled,
    n: int,
    candidates: Sequence[Candidate],
    *,
    depth: int,
    shape: Shape,
    n_classes: int,
    epochs: int,
    precision: str,
) -> dict[Candidate, Trained]:
    """Train every candidate on the first n rows of the data, all on the same batches, each with its own optimizer."""
    problems = [
        AuxiliaryProblem(
            nn.Identity(),
            new_probe(candidate.design, shape, n_classes, depth).to(data.device),
            recipe(candidate.learning_rate, epochs),
            precision,
        )
        for candidate in candidates
    ]
    order = derive_seed(0, "probe order", depth)

    def epoch_batches(epoch: int) -> Batches:
        return data.shuffled(BATCH, order + epoch, n)

    start = time.perf_counter()
    with progress() as bar, products(precision):
        task = bar.add_task(f"depth {depth}, {len(candidates)} probes", total=epochs * steps(n))
        where = f"the CNN probe of depth {depth}"
        for _ in solve(problems, epoch_batches, range(epochs), steps(n), where, tick=lambda _: bar.advance(task)):
            pass
    seconds = time.perf_counter() - start
    # Trained together, no probe has a time of its own: each is given its share of the operations.
    work = np.array([c.design.training_operations(shape, n_classes) for c in candidates], dtype=float)
    trained = {}
    for candidate, problem, share in zip(candidates, problems, work / work.sum(), strict=True):
        assert isinstance(problem.classifier, AuxiliaryClassifier)
        freeze(problem.classifier)
        trained[candidate] = Trained(
            module=problem.classifier, n_features=math.prod(shape), n_train=n, learning_rate=candidate.learning_rate,
            epochs=epochs, seconds=float(seconds * share),
        )  # fmt: skip
    return trained


def steps(n: int) -> int:
    """Return the steps of an epoch over n images."""
    return -(-n // BATCH)


@torch.no_grad()
def predict(probes: Sequence[AuxiliaryClassifier], data: Labelled, rows: range, precision: str) -> list[Predictions]:
    """Return what every probe says of some images of the data, each read once for all probes.

    Convolutions are computed as in training, the last layer in float32, so that no rounding makes classes tie.
    """
    scorers = [scorer(probe) for probe in probes]
    found: list[list[Predictions]] = [[] for _ in probes]
    label, start = data.label.cpu().numpy(), rows.start
    with products(precision):
        for x in data.in_order(rows):
            own = label[start : start + len(x)]
            start += len(x)
            for probe, up_to_linear, parts in zip(probes, scorers, found, strict=True):
                logits = probe.linear(features(up_to_linear, x, precision).float())
                parts.append(predictions(F.log_softmax(logits.double(), 1).cpu().numpy(), own))
    return [joined(parts) for parts in found]


def scorer(probe: AuxiliaryClassifier) -> nn.Module:
    """Return a probe in eval mode up to its linear layer, BatchNorm folded into convolutions: no pass of its own."""
    assert probe.norms is not None and probe.pooled_norm is not None
    pairs = zip(probe.convs, probe.norms, strict=True)
    convs = [fuse_conv_bn_eval(conv, norm) for conv, norm in pairs]  # type: ignore[type-var,arg-type]
    layers = [layer for conv in convs for layer in (conv, nn.ReLU(inplace=True))]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(SIDE), probe.pooled_norm, nn.Flatten())


@torch.no_grad()
def features(scorer: nn.Module, x: Tensor, precision: str) -> Tensor:
    """Return what the linear layer reads, [n, width * SIDE * SIDE], products computed as in training."""
    with autocast(precision, x.device):
        found: Tensor = scorer(x)
    return found


def require_probeable(run: RunFile, depth: int) -> None:
    """Raise UserError if the maps of a depth are smaller than the grid to which a CNN probe averages them."""
    _, height, width = run.depth_shape(depth)
    if min(height, width) < SIDE:
        raise UserError(
            f"depth {depth} has maps of {height}x{width}, too small for a CNN probe, which "
            f"averages to {SIDE}x{SIDE}. Leave this depth out by --depths, or use --probe linear."
        )
