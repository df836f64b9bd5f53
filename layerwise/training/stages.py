"""The stages of a run in each mode: sets of auxiliary problems that are trained together.

greedy       J stages, block j with its auxiliary on the output of j - 1 frozen blocks; where blocks are pruned, a
             second stage after each, in which the auxiliary alone is trained further (fine-tuned)
parallel     one stage, all blocks at once, each on the detached output of the one before (Decoupled Greedy
             Learning, Belilovsky et al. 2020)
end-to-end   one stage, backpropagation through all blocks, the last auxiliary as the only head
untrained    no stage
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from layerwise.config import RunConfig, TrainingConfig
from layerwise.model.network import LayerwiseNetwork


@dataclass(frozen=True)
class Stage:
    """Problems trained together on the output of `prefix` frozen blocks.

    depths: for each problem the depth j it classifies at; blocks, classifiers: its trained parts, in that order.
    training: how the problems are solved. chained: each problem reads the detached output of the one before; else all
    read the same x.
    prunes: the block that is pruned before the stage begins; 0 for none. first_epoch: number of its first epoch.
    """

    name: str
    prefix: int
    depths: tuple[int, ...]
    blocks: tuple[nn.Module, ...]
    classifiers: tuple[nn.Module, ...]
    training: TrainingConfig
    chained: bool = False
    prunes: int = 0
    first_epoch: int = 0

    @property
    def last_epoch(self) -> int:
        """Number of its last epoch."""
        return self.first_epoch + self.training.epochs - 1


def stages(network: LayerwiseNetwork, config: RunConfig) -> list[Stage]:
    """Return the stages of a run in the order in which they are trained."""
    blocks, auxiliaries, depth = list(network.blocks), list(network.auxiliaries), config.network.depth
    first = config.network.first_trained
    every, cfg = tuple(range(first, depth + 1)), config.training
    blocks, auxiliaries = blocks[first - 1 :], auxiliaries[first - 1 :]
    if config.mode == "greedy":
        found = []
        for j, block, auxiliary in zip(every, blocks, auxiliaries, strict=True):
            found.append(Stage(f"block {j}", j - 1, (j,), (block,), (auxiliary,), cfg.of_block(j)))
            if config.network.prune_to:
                found.append(_finetuning(j, auxiliary, cfg))
        return found
    if config.mode == "parallel":
        return [Stage("all blocks in parallel", first - 1, every, tuple(blocks), tuple(auxiliaries), cfg, chained=True)]
    if config.mode == "end-to-end":
        return [
            Stage("the network end to end", first - 1, (depth,), (nn.Sequential(*blocks),), (auxiliaries[-1],), cfg)
        ]
    return []


def _finetuning(j: int, auxiliary: nn.Module, training: TrainingConfig) -> Stage:
    """Return the stage that fine-tunes the auxiliary of pruned block j; its epochs are numbered on from training's."""
    name = f"fine-tuning of auxiliary {j}"
    return Stage(
        name, j, (j,), (nn.Identity(),), (auxiliary,), training.finetuning, prunes=j, first_epoch=training.epochs
    )
