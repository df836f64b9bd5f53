"""Owns what each mode trains together: the stages of a run, each a set of auxiliary problems.

greedy       J stages, block j with its auxiliary on the output of j - 1 frozen blocks
parallel     one stage, all blocks at once, each on the detached output of the one before (Decoupled Greedy
             Learning, Belilovsky et al. 2020)
end-to-end   one stage, backpropagation through all blocks, the last auxiliary as the only head
untrained    no stage
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from layerwise.config import RunConfig
from layerwise.network import LayerwiseNetwork


@dataclass(frozen=True)
class Stage:
    """Problems trained together on the output of `prefix` frozen blocks.

    depths: for each problem the depth j it classifies at; blocks, classifiers: its trained parts, in that order.
    chained: each problem reads the detached output of the one before; else all read the same x.
    """

    name: str
    prefix: int
    depths: tuple[int, ...]
    blocks: tuple[nn.Module, ...]
    classifiers: tuple[nn.Module, ...]
    chained: bool = False


def stages(network: LayerwiseNetwork, config: RunConfig) -> list[Stage]:
    """Return the stages of a run in the order in which they are trained."""
    blocks, auxiliaries, depth = list(network.blocks), list(network.auxiliaries), config.network.depth
    every = tuple(range(1, depth + 1))
    if config.mode == "greedy":
        return [Stage(f"block {j}", j - 1, (j,), (blocks[j - 1],), (auxiliaries[j - 1],)) for j in every]
    if config.mode == "parallel":
        return [Stage("all blocks in parallel", 0, every, tuple(blocks), tuple(auxiliaries), chained=True)]
    if config.mode == "end-to-end":
        return [Stage("the network end to end", 0, (depth,), (nn.Sequential(*blocks),), (auxiliaries[-1],))]
    return []
