"""The training loop, and the stages of a run in sequence. All of the training of block j, with where each line is:

    for epoch in range(epochs):                                         # solve
        draw order, crops and flips of all images, on the CPU           # batches.DeviceSplit.choices
        for images, y in batches:                                       # stage_batches.Recomputed.batches
            x_0 = normalise(crop and flip(images))                      # batches.augment, prefix.FrozenPrefix.begin
            set the learning rate of this step                          # problem.AuxiliaryProblem.prepare
            x = blocks 1 .. j - 1 of x_0, frozen, without a graph       # prefix.FrozenPrefix.advance
            loss = cross_entropy(auxiliary_j(block_j(x)), y)            # problem.AuxiliaryProblem.descend
            loss.backward(); optimizer.step()
            add loss and correct predictions to sums on the device
        read the sums, score the validation fold, save a checkpoint     # problem.score, evaluate, checkpoint.save
    freeze block j and its auxiliary                                    # train

On a GPU everything from x to the sums is one CUDA graph (capture). Training in parallel gives block j + 1 the detached
output of block j in the same step; end to end, one problem holds all blocks. `probes` solves the CNN-p probes of a
depth by the same `solve`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerwise import ranks
from layerwise.config import RunConfig
from layerwise.datasets import Dataset, Split
from layerwise.model.batch_norm import settling
from layerwise.model.network import LayerwiseNetwork, freeze
from layerwise.model.paired import WHITENED, WhiteningStem
from layerwise.model.seeds import derive_seed, fix_norm_weights, own_random_stream
from layerwise.training.batches import Batches, DeviceSplit, evaluation_batch
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

# Steps between two looks at the sums on the device: for the progress bar, and for a loss that is not finite. Each look
# waits for the device, where a captured step takes 1.4 to 1.7 ms (docs/performance.md), so one in fifty costs little,
# and a training that diverged stops within a tenth of a second. On a CPU, at 146 ms a step (block 2 at M = 64), 50
# steps are 7 s. The first bad step is counted on the device: the message names it exactly, however late it is read.
CHECK_EVERY = 50


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
    done: int = 0,
    save: Callable[[int, int], None] = lambda epoch, step: None,
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
        tick: called after each step, every CHECK_EVERY steps with the score so far of the last problem.
        done: batches of the first epoch that were done before; `epoch_batches` leaves them out.
        save: called after each step with the epoch and how many of its steps are done.
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
            problem.start_epoch(epoch, steps, done)
        for i, batch in enumerate(epoch_batches(epoch), start=done + 1):
            for problem in problems:
                problem.prepare()
            step(*batch)
            scores = [problem.score(where) for problem in problems] if i % CHECK_EVERY == 0 else [None]
            tick(scores[-1])
            save(epoch, i)
        done = 0
        yield epoch, [problem.score(where) for problem in problems]
    if step.is_captured:
        log.debug("%s: capturing its step took %.2f s", where, step.seconds)


@torch.no_grad()
def evaluate(modules: Sequence[tuple[nn.Module, nn.Module]], batches: Batches, *, chained: bool = False) -> list[Score]:
    """Return the score of each (block, classifier) over the batches (x, y) of all ranks; they are left in eval mode."""
    for module in (m for pair in modules for m in pair):
        module.eval()
    sums: list[Tensor] = [torch.zeros(2, dtype=torch.float64)] * len(modules)
    images = torch.zeros(1, dtype=torch.int64)
    for x, y in batches:
        images = images.to(y.device) + len(y)
        for i, (block, classifier) in enumerate(modules):
            hidden = block(x)
            logits = classifier(hidden).float()
            loss, correct = F.cross_entropy(logits, y, reduction="sum"), (logits.argmax(1) == y).sum()
            sums[i] = sums[i].to(y.device) + torch.stack([loss.double(), correct.double()])
            if chained:
                x = hidden
    n = int(ranks.add_up(images))
    return [Score(loss / n, correct / n, n) for loss, correct in (ranks.add_up(both).tolist() for both in sums)]


def train(
    network: LayerwiseNetwork, dataset: Dataset, config: RunConfig, checkpoint: Checkpoint, report: Report
) -> None:
    """Train all stages in sequence, beginning where the checkpoint stands; it may save itself after each epoch.

    Afterwards every trained block and auxiliary is frozen and in eval mode. checkpoint.history holds the epochs,
    checkpoint.pruned what pruning removed and kept.
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
            report.start(stage.name, steps * stage.training.epochs, stage.last_epoch, finetunes=stage.first_epoch > 0)
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
    # Fine-tuning after pruning trains an auxiliary that was frozen.
    parts = nn.ModuleList([*stage.blocks, *stage.classifiers]).requires_grad_(True)
    if network.config.norm_weight == "fixed":
        fix_norm_weights(parts)
    problems = [
        AuxiliaryProblem(block, classifier, config.training, config.precision)
        for block, classifier in zip(stage.blocks, stage.classifiers, strict=True)
    ]
    done, step = checkpoint.resume(number, problems)

    start = time.perf_counter() - (checkpoint.seconds if step else 0.0)
    source = _source(network, data, config, stage, checkpoint, done)

    def batches(epoch: int) -> Batches:
        is_begun = step > 0 and epoch == done
        if network.config.architecture == "custom":  # whose blocks may draw random numbers, as dropout does
            torch.manual_seed(derive_seed(config.seed, f"noise {stage.first_epoch + epoch}", stage.depths[0]))
            if is_begun:
                checkpoint.restore_noise(network.device)
        return source.batches(stage.first_epoch + epoch, step if is_begun else 0)

    def save(epoch: int, steps_done: int) -> None:
        # Ranks agree on it by a message, which is not sent after every step.
        if (ranks.world() == 1 or steps_done % CHECK_EVERY == 0) and checkpoint.is_due():
            for problem in problems:
                problem.score(stage.name)  # raises where the loss is not finite, of which nothing should be kept
            checkpoint.save(number, epoch, network, problems, steps_done, time.perf_counter() - start)

    loop = solve(
        problems,
        batches,
        range(done, config.training.epochs),
        data["train"].batches(config.training.batch_size),
        stage.name,
        chained=stage.chained,
        fetch=source.fetch,
        tick=report.step,
        done=step,
        save=save,
    )
    with own_random_stream():
        for epoch, train_scores in loop:
            validation_scores = _validate(problems, source, stage.chained, config.precision)
            seconds = (time.perf_counter() - start) / len(problems)
            found = zip(stage.depths, problems, train_scores, validation_scores, strict=True)
            rows = [
                Epoch(j, stage.first_epoch + epoch, problem.learning_rate, train_score, validation_score, seconds)
                for j, problem, train_score, validation_score in found
            ]
            checkpoint.history += rows
            checkpoint.save(number, epoch + 1, network, problems)
            for row in rows:  # after the first save, so that a training of which anything was shown is known to go on
                report.epoch(row)
            start = time.perf_counter()
    for problem in problems:
        problem.finish()


def _source(
    network: LayerwiseNetwork,
    data: dict[str, DeviceSplit],
    config: RunConfig,
    stage: Stage,
    checkpoint: Checkpoint,
    done: int,
) -> Recomputed:
    """Return where x of a stage comes from: kept for all of its epochs, or computed anew for every batch."""
    prefix = FrozenPrefix(network, stage.prefix, config.precision)
    # Filling takes a pass over the images, which a stage without a prefix or epochs to go would never read.
    if config.training.prefix == "cache" and stage.prefix and done < config.training.epochs:
        return Kept(data, prefix, config, stage.depths[0], checkpoint.folder)
    return Recomputed(data, prefix, config, stage.depths[0])


def _validate(
    problems: Sequence[AuxiliaryProblem], source: Recomputed, chained: bool, precision: str
) -> Sequence[Score | None]:
    if "validation" not in source.data:
        return [None] * len(problems)
    modules = [problem.evaluated() for problem in problems]
    with autocast(precision, problems[0].device):
        return evaluate(modules, source.validation(), chained=chained)


@torch.no_grad()
def whiten(network: LayerwiseNetwork, train: Split) -> None:
    """Set the filters of a whitening layer, where the network has one, from the first images of the train fold."""
    stem = network.blocks[0]
    if isinstance(stem, WhiteningStem):
        images = torch.from_numpy(train.read(slice(0, WHITENED))).to(network.device)
        stem.whiten(network.normalise(images))
        freeze(stem)


@torch.no_grad()
def settle_batch_norm(network: LayerwiseNetwork, train: DeviceSplit) -> None:
    """Give an untrained network's BatchNorm the statistics of the training images. The network ends frozen."""
    # Nearly equal batches, else a short last one would weigh more.
    batch_size = -(-len(train.label) // train.batches(evaluation_batch(network)))
    with settling(network.blocks) as has_norms:
        for x, _ in train.in_order(network.normalise, batch_size, shared=True) if has_norms else ():
            network.advance(x, 0, len(network.blocks))
    freeze(network)
