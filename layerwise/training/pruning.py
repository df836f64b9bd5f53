"""Layerwise compression: the saliency of each filter of a trained block, and pruning of all but the largest.

The criterion is that of Molchanov et al. 2016 (arXiv 1611.06440), a first-order Taylor expansion of the loss: with a
the map of filter c after relu and L_i the loss (cross-entropy) of image i alone,

    saliency(c) = mean over images i of | sum over positions of a_i dL_i/da_i |

which is, to first order, how much the loss of an image changes when the map becomes 0. The paper divides the sum by the
number of positions and the saliencies of a layer by their norm; within one layer neither changes their order.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from layerwise import ranks
from layerwise.datasets import Dataset
from layerwise.hardware import exact_float32
from layerwise.model.blocks import AuxiliaryClassifier, Block
from layerwise.model.narrowing import narrow, plain_parts
from layerwise.model.network import LayerwiseNetwork, freeze
from layerwise.training.batches import Batches, DeviceSplit, evaluation_batch


@dataclass
class Pruned:
    """What pruning did to block j.

    kept: numbers int64 [F] of the filters that stayed, ascending; saliency: of every filter before, float64 [M].
    before: parameters and buffers of "block" and "auxiliary" before it, by "block/conv.weight" and so on.
    accuracy: in [0, 1], by (state, split), once the run is scored; states are "before" pruning, "pruned" (right after
    it) and "finetuned".
    """

    kept: np.ndarray
    saliency: np.ndarray
    before: dict[str, np.ndarray] = field(default_factory=dict)
    accuracy: dict[tuple[str, str], float] = field(default_factory=dict)


def saliencies(block: nn.Module, auxiliary: nn.Module, batches: Batches) -> np.ndarray:
    """Return the saliency of each filter of a block, float64 [M], in nats, over batches (x, y) of its inputs.

    Block and auxiliary must be frozen: in eval mode the loss of an image depends on that image alone.
    """
    total, n = torch.zeros((), dtype=torch.float64), 0
    for x, y in batches:
        with torch.no_grad():
            maps = block(x)
        maps.requires_grad_()
        with torch.enable_grad():
            loss = F.cross_entropy(auxiliary(maps), y, reduction="sum")
        loss.backward()
        assert maps.grad is not None
        change = (maps.detach() * maps.grad).sum((2, 3)).abs().double().sum(0)
        total, n = total.to(change.device) + change, n + len(y)
    return (total / n).cpu().numpy()


def most_salient(saliency: np.ndarray, count: int) -> np.ndarray:
    """Return the numbers int64 [count] of the filters of largest saliency, ascending; of equals the first ones."""
    return np.sort(np.argsort(-saliency, kind="stable")[:count])


def prune(network: LayerwiseNetwork, data: DeviceSplit, j: int, batch_size: int) -> Pruned:
    """Prune the trained block j to the width that the network's shapes give it; its auxiliary follows.

    data: the train fold, whose images are taken as they are. Everything is computed in exact float32.
    """
    block, auxiliary = plain_parts(network, j)
    freeze(block)
    freeze(auxiliary)
    inputs = ((network.advance(x, 0, j - 1), y) for x, y in data.in_order(network.normalise, batch_size))
    if data.device.type == "cuda":  # its float32 kernels without TF32 are faster channels first (docs/performance.md)
        network.to(memory_format=torch.contiguous_format)
    with exact_float32():
        saliency = saliencies(block, auxiliary, inputs)
    network.to(memory_format=torch.channels_last)
    parts = {"block": block, "auxiliary": auxiliary}
    before = {f"{p}/{n}": t.cpu().numpy().copy() for p, module in parts.items() for n, t in module.state_dict().items()}
    kept = most_salient(saliency, network.shapes[j][0])
    narrow(block, auxiliary, kept)
    return Pruned(kept, saliency, before)


@torch.no_grad()
def score_pruning(network: LayerwiseNetwork, dataset: Dataset, pruned: Mapping[int, Pruned]) -> None:
    """Score each auxiliary before its block was pruned and right after, on all splits, unless a record has its scores.

    One pass over the images as they are, in float32, by the frozen blocks.
    """
    wanted = {j: record for j, record in pruned.items() if record.before}
    heads = {j: _states(network, j, record) for j, record in wanted.items()}
    for name, split in dataset.splits.items() if wanted else ():
        data = DeviceSplit(split, network.device)
        correct = {(j, state): 0 for j in wanted for state in ("before", "pruned")}
        for x, y in data.in_order(network.normalise, evaluation_batch(network), in_turns=True):
            for j, block in enumerate(network.blocks[: max(wanted)], start=1):
                maps = block(x)
                if j in wanted:
                    whole, cut = heads[j]
                    correct[j, "before"] += int((whole(x).argmax(1) == y).sum())
                    correct[j, "pruned"] += int((cut(maps).argmax(1) == y).sum())
                x = maps
        counts = ranks.add_up(torch.tensor(list(correct.values()), device=network.device))
        for (j, state), count in zip(correct, counts.tolist(), strict=True):
            wanted[j].accuracy[state, name] = count / len(data)


def _states(network: LayerwiseNetwork, j: int, record: Pruned) -> tuple[nn.Module, nn.Module]:
    """Return block j with its auxiliary as they were before pruning, and the auxiliary right after it."""
    block, auxiliary = network.new_block(j), network.new_auxiliary(j)
    for name, module in (("block/", block), ("auxiliary/", auxiliary)):
        own = {n.removeprefix(name): torch.from_numpy(a) for n, a in record.before.items() if n.startswith(name)}
        module.load_state_dict(own)
    whole = nn.Sequential(block, auxiliary).to(network.device)
    freeze(whole)
    cut_block, cut = copy.deepcopy(block), copy.deepcopy(auxiliary)
    assert isinstance(cut_block, Block)
    assert isinstance(cut, AuxiliaryClassifier)
    narrow(cut_block, cut, record.kept)
    return whole, cut


def accuracy_attributes(record: Pruned) -> dict[str, float]:
    """Return the accuracies under their names in files: before_test_accuracy and the like."""
    return {f"{state}_{split}_accuracy": value for (state, split), value in record.accuracy.items()}


def accuracies_of(attributes: Mapping[str, Any]) -> dict[tuple[str, str], float]:
    """Return the accuracies that `accuracy_attributes` named."""
    found = {}
    for name, value in attributes.items():
        state, split, _ = name.split("_")
        found[state, split] = float(value)
    return found
