"""The forecast of time of a network that is too large to build for a forecast: by its first blocks and by operations.

A rehearsal builds the whole network, with gradients and momentum of the block that it times: 4 GB for an ImageNet
network of k = 3, and minutes on two cores. Where that is so the first two blocks are rehearsed, and the rest is taken
to compute at their rate. Later blocks have more channels and smaller maps, which are rather faster than slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from layerwise.config import RunConfig
from layerwise.datasets import Sizes
from layerwise.forecast.rehearsal import PHASES, Rehearsal, forecast_seconds
from layerwise.model.counts import count_problems
from layerwise.runfile.plan import Plan
from layerwise.training.operations import count_operations
from layerwise.training.run import plan_storage

# Parameters of all blocks and auxiliaries from which a CPU rehearses the first two blocks alone: a gigabyte with
# gradients, momentum, and the copy that the other choice of the prefix needs. No network for CIFAR-10 has a third.
LARGEST = 60_000_000
REHEARSED = 2


def is_large(config: RunConfig, sizes: Sizes, device: torch.device) -> bool:
    """Return whether a run is forecast by its first blocks."""
    if device.type != "cpu" or config.mode != "greedy" or config.network.architecture != "plain":
        return False
    if config.network.depth <= REHEARSED:
        return False
    problems = count_problems(config.network, sizes.image, sizes.n_classes)
    return sum(p.block.parameters + p.auxiliary.parameters for p in problems) > LARGEST


def seconds_of(
    config: RunConfig, sizes: Sizes, storage: Plan, device: torch.device, phases: Sequence[str] = PHASES
) -> dict[str, float]:
    """Return the seconds of each phase of a run, as `forecast_seconds` does."""
    if not is_large(config, sizes, device):
        return forecast_seconds(Rehearsal(config, sizes, storage, device), phases=phases)
    first = replace(_first_blocks(config), store="maps" if storage.maps else "pooled")
    rehearsed = Rehearsal(first, sizes, plan_storage(first, sizes, storage.total), device)
    seconds = forecast_seconds(rehearsed, phases=phases)
    whole, part = _operations(config, sizes), _operations(first, sizes)
    return {phase: taken * whole[phase] / part[phase] for phase, taken in seconds.items()}


def _first_blocks(config: RunConfig) -> RunConfig:
    """Return the configuration of the first blocks alone, each with its auxiliary as it is."""
    net = config.network
    downsample = tuple(j for j in net.downsample if j <= REHEARSED)
    return replace(config, network=replace(net, depth=REHEARSED, downsample=downsample, last_aux_width=0))


def _operations(config: RunConfig, sizes: Sizes) -> dict[str, int]:
    counted = count_operations(config, sizes)
    return {"training": sum(counted.training), "scoring": counted.scoring, "dump": counted.dump}
