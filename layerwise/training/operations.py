"""Floating-point operations of a run by phase and mode, counted from shapes alone.

Plain blocks are counted by formula, others by running each once (layerwise.model.counts). A multiply-add is two
operations, and only convolutions and linear layers count, as torch.utils.flop_counter counts them; tests hold every
formula to it.

Backward, a layer spends as many operations as forward for the gradient of its weights, and as many again for that of
its input. The first trainable convolution needs no gradient of its input. Counts depend on the number of images only,
not on batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from layerwise.config import NetworkConfig, RunConfig
from layerwise.datasets import Sizes
from layerwise.model.counts import Problem, convolution_operations, count_problems


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of a whole run.

    training: for each block, including evaluation of the validation fold after every epoch, pruning and fine-tuning.
    scoring: one pass of every split through the blocks and each trained auxiliary, and one of mirrored validation and
    test images where that is asked for; where blocks were pruned, one more through blocks and auxiliaries as they were
    before pruning, and auxiliaries right after it. dump: one pass of every split through the blocks (three where values
    do not fit float16, which is not known in advance).
    """

    training: tuple[int, ...]
    scoring: int
    dump: int

    @property
    def total(self) -> int:
        """Operations of everything."""
        return sum(self.training) + self.scoring + self.dump


def weight_bytes(config: RunConfig, problems: list[Problem]) -> int:
    """Return the bytes of the parameters and buffers that a run file keeps: all blocks, and trained auxiliaries."""
    return sum(p.block.nbytes for p in problems) + sum(problems[j - 1].auxiliary.nbytes for j in config.heads)


def pruning_bytes(config: NetworkConfig) -> int:
    """Return the bytes of the record of pruning: the filters that stayed (int64), all saliencies (float64)."""
    if not config.prune_to:
        return 0
    return sum(8 * config.doubled(config.prune_to + config.width, j) for j in range(1, config.depth + 1))


def count_operations(config: RunConfig, sizes: Sizes) -> Operations:
    """Return the operations of a run."""
    problems = count_problems(config.network, sizes.image, sizes.n_classes)
    blocks, n = sum(p.block.operations for p in problems), sizes.total
    auxiliaries = [problems[j - 1].auxiliary.operations for j in config.heads]
    scored = n + (n - sizes.train if config.mirrored else 0)
    scoring = scored * (blocks + sum(auxiliaries)) if auxiliaries else 0
    if config.network.prune_to:
        states = sum(p.trained.block.operations + p.trained.auxiliary.operations for p in problems)
        scoring += n * (states + blocks + sum(auxiliaries))
    return Operations(TRAINING[config.mode](config, problems, sizes), scoring, n * blocks)


def operations_to_epochs(operations: int, config: RunConfig, sizes: Sizes) -> int:
    """Return the number of epochs, at least 1, whose training in the mode of `config` comes nearest to `operations`."""
    one_epoch = replace(config, training=replace(config.training, epochs=1))
    problems = count_problems(config.network, sizes.image, sizes.n_classes)
    spent = sum(TRAINING[config.mode](one_epoch, problems, sizes))
    return max(1, (2 * operations + spent) // (2 * spent))


def match_operations(config: RunConfig, sizes: Sizes) -> RunConfig:
    """Return the configuration with as many epochs as spend what the greedy one of the same k and M does in training.

    Where prefix is "auto", the greedy run counts as keeping it wherever images repeat, so that the number of epochs
    does not depend on the memory that is free. The stepwise schedule is stretched in proportion. The result says
    match="epochs", since its epochs are now explicit: a run repeated from it is the same run. Epochs of the greedy run
    stand beside them, since they depend on M and on k, and runs that differ in these are still one experiment.
    """
    keeps = config.training.prefix == "auto" and config.training.repeats
    training = replace(config.training, prefix="cache") if keeps else config.training
    greedy = replace(config, mode="greedy", match="epochs", training=training)
    spent = sum(count_operations(greedy, sizes).training)
    epochs = operations_to_epochs(spent, config, sizes)
    asked, scale = config.training, epochs / config.training.epochs
    matched = replace(
        asked,
        epochs=epochs,
        lr_first=round(asked.lr_first * scale),
        lr_every=max(1, round(asked.lr_every * scale)),
        matched_epochs=asked.epochs,
        matched_lr_every=asked.lr_every,
    )
    return replace(config, match="epochs", training=matched)


def _greedy(config: RunConfig, problems: list[Problem], sizes: Sizes) -> tuple[int, ...]:
    """Every image goes through the frozen blocks below, in each epoch or once for each view that is kept.

    Block j passes no gradient on to them.
    """
    found, prefix = [], 0
    for j, p in enumerate(problems, start=1):
        cfg = config.training.of_block(j)
        views, times = (max(1, cfg.views), 1) if cfg.prefix == "cache" else (cfg.epochs, cfg.epochs)
        block, auxiliary = p.trained.block.operations, p.trained.auxiliary.operations
        if j < config.network.first_trained:
            found.append(0)
            prefix += block
            continue
        below = (sizes.train * views + sizes.validation * times) * prefix
        train = sizes.train * (p.trained.learning + 3 * auxiliary)
        spent = below + cfg.epochs * (train + sizes.validation * (block + auxiliary))
        if config.network.prune_to:
            # The saliency takes one pass, and the gradient of the maps without that of the weights.
            spent += sizes.train * (prefix + block + 2 * auxiliary)
            spent += _finetuning(config, p, prefix + p.block.operations, sizes)
        found.append(spent)
        prefix += p.block.operations
    return tuple(found)


def _finetuning(config: RunConfig, problem: Problem, prefix: int, sizes: Sizes) -> int:
    """Return the operations of fine-tuning an auxiliary above frozen blocks of `prefix` operations an image."""
    cfg, net, auxiliary = config.training, config.network, problem.auxiliary.operations
    epochs = cfg.finetune_epochs
    views, times = (max(1, cfg.views), 1) if cfg.prefix == "cache" else (epochs, epochs)
    below = (sizes.train * views + sizes.validation * times) * prefix
    # The first layer computes no gradient of its input, except a linear one above a BatchNorm that is trained.
    if net.k > 1:
        first = convolution_operations(problem.shape[0], (problem.aux_width, *problem.shape[1:]))
    else:
        first = 0 if net.has_batch_norm else auxiliary
    return below + epochs * (sizes.train * (3 * auxiliary - first) + sizes.validation * auxiliary)


def _untrained(config: RunConfig, problems: list[Problem], sizes: Sizes) -> tuple[int, ...]:
    """BatchNorm takes its statistics from one pass over the train fold."""
    passes = sizes.train if config.network.has_batch_norm else 0
    return tuple(passes * p.block.operations for p in problems)


def _parallel(config: RunConfig, problems: list[Problem], sizes: Sizes) -> tuple[int, ...]:
    """Every image goes once through all blocks, each of which learns from its own auxiliary alone."""
    found = []
    for j, p in enumerate(problems, start=1):
        block, auxiliary = p.block.operations, p.auxiliary.operations
        learning = p.learning + 3 * auxiliary if j >= config.network.first_trained else block
        spent = sizes.train * learning + sizes.validation * (block + auxiliary)
        found.append(config.training.epochs * spent)
    return tuple(found)


def _end_to_end(config: RunConfig, problems: list[Problem], sizes: Sizes) -> tuple[int, ...]:
    """The last auxiliary is the only head; its gradient goes down to the first trained block, which needs none of x."""
    found, first = [], config.network.first_trained
    for j, p in enumerate(problems, start=1):
        block = p.block.operations
        auxiliary = p.auxiliary.operations if j == len(problems) else 0
        train = sizes.train * ((3 * block if j > first else p.learning) + 3 * auxiliary)
        found.append(config.training.epochs * (train + sizes.validation * (block + auxiliary)))
    return tuple(found)


# For each mode: operations of training by block.
TRAINING: dict[str, Callable[[RunConfig, list[Problem], Sizes], tuple[int, ...]]] = {
    "greedy": _greedy,
    "untrained": _untrained,
    "parallel": _parallel,
    "end-to-end": _end_to_end,
}
