"""Owns training: the one loop that solves auxiliary problems, and the stages of a run in sequence.

`solve` takes batches of x, already computed by whatever is frozen, and auxiliary problems that read them: the pair of
a block and its auxiliary classifier here, several CNN-p probes of one depth in `probes`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerwise.config import RunConfig
from layerwise.datasets import Dataset
from layerwise.model.network import LayerwiseNetwork, freeze
from layerwise.model.seeds import derive_seed, own_random_stream
from layerwise.training.batches import EVALUATION_BATCH, DeviceSplit
from layerwise.training.batches import Batches as Batches
from layerwise.training.capture import CapturedStep
from layerwise.training.checkpoint import Checkpoint
from layerwise.training.history import Epoch, Score
from layerwise.training.prefix import FrozenPrefix
from layerwise.training.problem import AuxiliaryProblem, autocast
from layerwise.training.pruning import prune
from layerwise.training.report import Report
from layerwise.training.stage_batches import Kept, Recomputed
from layerwise.training.stages import Stage, stages

log = logging.getLogger("layerwise.training")

CHECK_EVERY = 50  # steps between two looks at whether the loss is finite


def solve(
    problems: Sequence[AuxiliaryProblem],
    epoch_batches: Callable[[int], Batches],
    epochs: range,
    steps: int,
    where: str,
    *,
    chained: bool = False,
    fetch: Callable[..., tuple[Tensor, Tensor]] = lambda x, y: (x, y),
    tick: Callable[[Score | None], None] = lambda score: None,
) -> Iterator[tuple[int, list[Score]]]:
    """Train every problem on the same batches; yield (epoch, training scores) after each epoch.

    On a GPU the whole step, from `fetch` to the optimizers, becomes a CUDA graph.

    Args:
        problems: trained side by side, each batch computed once for all of them.
        epoch_batches: gives the batches of an epoch as tensors: (x, y), or what `fetch` makes them from.
        epochs: the epochs to go; a resumed training begins later than 0.
        steps: batches in an epoch.
        where: what is being trained, for messages ("block 2").
        chained: whether each problem reads the detached block output of the one before, instead of x.
        fetch: turns what `epoch_batches` yields into (x, y) on the device, x without a graph behind it.
        tick: called after each step, every few dozen steps with the score so far of the last problem.
    """

    def descend(*batch: Tensor) -> None:
        x, y = fetch(*batch)
        for problem in problems:
            hidden = problem.descend(x, y)
            if chained:
                x = hidden

    step = CapturedStep(descend, problems[0].device)
    for epoch in epochs:
        for problem in problems:
            problem.start_epoch(epoch, steps)
        for i, batch in enumerate(epoch_batches(epoch), start=1):
            for problem in problems:
                problem.prepare()
            step(*batch)
            scores = [problem.score(where) for problem in problems] if i % CHECK_EVERY == 0 else [None]
            tick(scores[-1])
        yield epoch, [problem.score(where) for problem in problems]
    if step.is_captured:
        log.debug("%s: capturing its step took %.2f s", where, step.seconds)


@torch.no_grad()
def evaluate(modules: Sequence[tuple[nn.Module, nn.Module]], batches: Batches, *, chained: bool = False) -> list[Score]:
    """Return the score of each (block, classifier) over batches (x, y), in eval mode, in which they are left."""
    for module in (m for pair in modules for m in pair):
        module.eval()
    sums: list[Tensor] = [torch.zeros(2, dtype=torch.float64)] * len(modules)
    n = 0
    for x, y in batches:
        n += len(y)
        for i, (block, classifier) in enumerate(modules):
            hidden = block(x)
            logits = classifier(hidden).float()
            loss, correct = F.cross_entropy(logits, y, reduction="sum"), (logits.argmax(1) == y).sum()
            sums[i] = sums[i].to(y.device) + torch.stack([loss.double(), correct.double()])
            if chained:
                x = hidden
    return [Score(loss / n, correct / n, n) for loss, correct in (both.tolist() for both in sums)]


def train(
    network: LayerwiseNetwork, dataset: Dataset, config: RunConfig, checkpoint: Checkpoint, report: Report
) -> None:
    """Train all stages in sequence from where the checkpoint stands, which may save itself after each epoch.

    When it returns, every trained block and auxiliary is frozen and in eval mode; the epochs stand in
    checkpoint.history, what was pruned in checkpoint.pruned.
    """
    device = network.device
    data = {name: DeviceSplit(split, device) for name, split in dataset.splits.items() if name != "test"}
    steps = data["train"].batches(config.training.batch_size)
    for number, stage in enumerate(stages(network, config)):
        if number >= checkpoint.stage:
            if (j := stage.prunes) and j not in checkpoint.pruned:
                checkpoint.pruned[j] = prune(network, data["train"], j, config.training.batch_size)
                kept, whole = len(checkpoint.pruned[j].kept), len(checkpoint.pruned[j].saliency)
                log.info("block %d: %d of %d filters stay", j, kept, whole)
            report.start(stage.name, steps * stage.training.epochs, stage.last_epoch)
            train_stage(network, data, config, stage, number, checkpoint, report)
        freeze(nn.ModuleList([*stage.blocks, *stage.classifiers]))


def train_stage(
    network: LayerwiseNetwork,
    data: dict[str, DeviceSplit],
    config: RunConfig,
    stage: Stage,
    number: int,
    checkpoint: Checkpoint,
    report: Report,
) -> None:
    """Train what one stage trains on uint8 images of `data`, from where the checkpoint stands in it.

    data: "train", and "validation" where there is a fold, on the network's device. number: of the stage, from 0.
    """
    config = replace(config, training=stage.training)
    nn.ModuleList([*stage.blocks, *stage.classifiers]).requires_grad_(True)  # one that is trained on was frozen
    problems = [
        AuxiliaryProblem(block, classifier, config.training, config.precision)
        for block, classifier in zip(stage.blocks, stage.classifiers, strict=True)
    ]
    done = checkpoint.resume(number, problems)

    start = time.perf_counter()
    prefix = FrozenPrefix(network, stage.prefix, config.precision)
    epochs = range(done, config.training.epochs)
    keeps = config.training.prefix == "cache" and stage.prefix and epochs  # nothing is kept that nobody will read
    source = (Kept if keeps else Recomputed)(data, prefix, config, stage.depths[0], checkpoint.folder)
    steps = data["train"].batches(config.training.batch_size)

    def batches(epoch: int) -> Batches:
        if network.config.architecture == "custom":  # whose blocks may draw, as dropout does
            torch.manual_seed(derive_seed(config.seed, f"noise {stage.first_epoch + epoch}", stage.depths[0]))
        return source.batches(stage.first_epoch + epoch)

    loop = solve(
        problems,
        batches,
        epochs,
        steps,
        stage.name,
        chained=stage.chained,
        fetch=source.fetch,
        tick=report.step,
    )
    with own_random_stream():
        for epoch, scores in loop:
            held = _validate(problems, source, stage.chained, config.precision)
            seconds = (time.perf_counter() - start) / len(problems)
            for depth, problem, score, seen in zip(stage.depths, problems, scores, held, strict=True):
                row = Epoch(depth, stage.first_epoch + epoch, problem.learning_rate, score, seen, seconds)
                checkpoint.history.append(row)
                report.epoch(row)
            checkpoint.save(number, epoch + 1, network, problems)
            start = time.perf_counter()
    for problem in problems:
        problem.finish()


def _validate(
    problems: Sequence[AuxiliaryProblem], source: Recomputed, chained: bool, precision: str
) -> Sequence[Score | None]:
    if "validation" not in source.data:
        return [None] * len(problems)
    judged = [problem.judged() for problem in problems]
    with autocast(precision, problems[0].device):
        return evaluate(judged, source.held(), chained=chained)


@torch.no_grad()
def settle_batch_norm(network: LayerwiseNetwork, train: DeviceSplit) -> None:
    """Give an untrained network the running statistics of one label-free pass over the training images.

    Every BatchNorm averages the statistics of nearly equal batches (momentum None). The network ends frozen.
    """
    norms = [module for module in network.blocks.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    if norms:
        network.blocks.eval()  # what else differs in training, as dropout does, is no statistic
        for norm in norms:
            norm.train()
        nearly_equal = -(-len(train.label) // train.batches(EVALUATION_BATCH))
        for x, _ in train.in_order(network.normalise, nearly_equal):
            network.advance(x, 0, len(network.blocks))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    freeze(network)
