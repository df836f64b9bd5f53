"""Training and scoring of the CNN-p probes of a depth: all of them together, from one pass over its activations.

A CNN-p probe is the auxiliary classifier with k = p + 1, trained on the frozen x_j. The paper gives no recipe for these
probes; docs/protocol.md states this one, and why.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from layerwise.commandline import progress
from layerwise.errors import UserError
from layerwise.hardware import products
from layerwise.model.architectures import Shape
from layerwise.model.batch_norm import settling
from layerwise.model.blocks import AuxiliaryClassifier
from layerwise.model.counts import convolution_operations
from layerwise.model.seeds import derive_seed, initialised
from layerwise.runfile import RunFile
from layerwise.runfile.layout import POOL_SIDE
from layerwise.training.loop import solve
from layerwise.training.problem import autocast
from probes.cnn.reading import Labelled
from probes.cnn.schedule_free import ProbeProblem
from probes.cnn.standardiser import ChannelStandardiser
from probes.probe import ProbeName
from probes.protocol import Predictions, joined, predictions

BATCH = 32
# Steps of 32 images are bound by launches on a GPU. There a batch is 8 times as large, and the rate sqrt(8) times: the
# rule for Adam, which keeps the noise of the steps (Malladi et al. 2022).
GPU_BATCH = 256
PRODUCTS = {"fp32": torch.float32, "bf16": torch.bfloat16}


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
        return first + others + 2 * POOL_SIDE**2 * self.width * n_classes

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

    standardise: what it sees the maps through. half: the probe after half of the epochs, None if there was but one.
    n_features: numbers an image, C H W. n_train: images it was trained on.
    """

    standardise: ChannelStandardiser
    module: AuxiliaryClassifier
    half: AuxiliaryClassifier | None
    n_features: int
    n_train: int
    learning_rate: float
    epochs: int
    batch_size: int
    seconds: float


def batch_size(device: torch.device) -> int:
    """Return the images of a batch in training on a device."""
    return GPU_BATCH if device.type == "cuda" else BATCH


def scaled(rate: float, batch: int) -> float:
    """Return the learning rate for batches of another size than BATCH, which the given one is for; in two digits."""
    return float(f"{rate * math.sqrt(batch / BATCH):.2g}")


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
    size = batch_size(data.device)
    start = time.perf_counter()
    problems = [
        ProbeProblem(
            new_probe(one.design, shape, n_classes, depth).to(data.device), one.learning_rate, epochs, size, precision
        )
        for one in candidates
    ]
    order = derive_seed(0, "probe order", depth)
    found: dict[int, list[AuxiliaryClassifier]] = {}
    with progress() as bar, products(precision):
        standardise = ChannelStandardiser(data, n, PRODUCTS[precision])
        steps = -(-n // size)
        task = bar.add_task(f"depth {depth}, {len(candidates)} probes", total=epochs * steps)
        training = solve(
            problems, lambda epoch: data.shuffled(size, order + epoch, n), range(epochs), steps,
            f"the CNN probe of depth {depth}", fetch=lambda x, y: (standardise(x), y), tick=lambda _: bar.advance(task),
        )  # fmt: skip
        for epoch, _ in training:
            if epoch + 1 in (epochs // 2, epochs):
                maps = (standardise(x) for x, _ in data.shuffled(data.at_once, order, n))
                found[epoch + 1] = settled(problems, maps)
    seconds = time.perf_counter() - start
    # Trained together, no probe has a time of its own: each is given its share of the operations.
    work = np.array([c.design.training_operations(shape, n_classes) for c in candidates], dtype=float)
    halves = found.get(epochs // 2, [None] * len(problems))
    return {
        candidate: Trained(
            standardise=standardise, module=module, half=half, n_features=math.prod(shape), n_train=n,
            learning_rate=candidate.learning_rate, epochs=epochs, batch_size=size, seconds=float(seconds * share),
        )
        for candidate, module, half, share in zip(candidates, found[epochs], halves, work / work.sum(), strict=True)
    }  # fmt: skip


@torch.no_grad()
def settled(problems: Sequence[ProbeProblem], maps: Iterable[Tensor]) -> list[AuxiliaryClassifier]:
    """Return the probes as they stand: averaged weights, and BatchNorm's statistics of these weights over the maps."""
    probes = [problem.averaged_probe() for problem in problems]
    with settling(nn.ModuleList(probes)):
        for x in maps:
            for probe, problem in zip(probes, problems, strict=True):
                with autocast(problem.precision, x.device):
                    probe(x)
    return probes


@torch.no_grad()
def predict(probes: Sequence[Trained], data: Labelled, precision: str) -> list[Predictions]:
    """Return what every probe says of all images of the data, each read once for all probes.

    Convolutions are computed as in training, the last layer in float32, so that no rounding makes classes tie.
    """
    stages = [[module for module in (probe.module, probe.half) if module is not None] for probe in probes]
    scorers = [[(scorer(module), module.linear) for module in modules] for modules in stages]
    found: list[list[Predictions]] = [[] for _ in probes]
    label, start = data.label.cpu().numpy(), 0
    with products(precision):
        for x in data.in_order(range(len(data))):
            own = label[start : start + len(x)]
            start += len(x)
            seen = {standardise: standardise(x) for standardise in {probe.standardise for probe in probes}}
            for probe, pairs, parts in zip(probes, scorers, found, strict=True):
                z = seen[probe.standardise]
                logits = [linear(features(up_to_linear, z, precision).float()) for up_to_linear, linear in pairs]
                last, *half = (F.log_softmax(values.double(), 1).cpu().numpy() for values in logits)
                part = predictions(last, own)
                parts.append(replace(part, predicted_half=half[0].argmax(1)) if half else part)
    return [joined(parts) for parts in found]


def scorer(probe: AuxiliaryClassifier) -> nn.Module:
    """Return a probe in eval mode up to its linear layer, BatchNorm folded into convolutions: no pass of its own."""
    assert probe.norms is not None and probe.pooled_norm is not None
    pairs = zip(probe.convs, probe.norms, strict=True)
    convs = [fuse_conv_bn_eval(conv, norm) for conv, norm in pairs]  # type: ignore[type-var,arg-type]
    layers = [layer for conv in convs for layer in (conv, nn.ReLU(inplace=True))]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(POOL_SIDE), probe.pooled_norm, nn.Flatten())


@torch.no_grad()
def features(scorer: nn.Module, x: Tensor, precision: str) -> Tensor:
    """Return what the linear layer reads, [n, width * POOL_SIDE * POOL_SIDE], products computed as in training."""
    with autocast(precision, x.device):
        found: Tensor = scorer(x)
    return found


def require_probeable(run: RunFile, depth: int) -> None:
    """Raise UserError if the maps of a depth are smaller than the grid to which a CNN probe averages them."""
    _, height, width = run.depth_shape(depth)
    if min(height, width) < POOL_SIDE:
        raise UserError(
            f"depth {depth} has maps of {height}x{width}, too small for a CNN probe, which "
            f"averages to {POOL_SIDE}x{POOL_SIDE}. Leave this depth out by --depths, or use --probe linear."
        )
