"""Owns block and auxiliary without some of their filters."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from layerwise.model.blocks import AuxiliaryClassifier, Block
from layerwise.model.network import LayerwiseNetwork


@torch.no_grad()
def narrow(block: Block, auxiliary: AuxiliaryClassifier, kept: np.ndarray) -> None:
    """Take every filter but `kept` out of a block, in place, and what read them out of its auxiliary.

    The auxiliary then computes, in eval mode, what it would of maps with zeros in place of those taken out.
    """
    rows = torch.from_numpy(kept).to(block.conv.weight.device)
    conv = block.conv
    block.conv = _convolution(conv, conv.weight[rows], None if conv.bias is None else conv.bias[rows])
    if block.norm is not None:
        block.norm = _batch_norm(block.norm, rows)
    if len(auxiliary.convs):
        first = auxiliary.convs[0]
        assert isinstance(first, nn.Conv2d)
        auxiliary.convs[0] = _convolution(first, first.weight[:, rows], first.bias)
        return
    bias = auxiliary.linear.bias
    weight = auxiliary.linear.weight.unflatten(1, (-1, auxiliary.side**2))
    if auxiliary.pooled_norm is not None:
        # BatchNorm makes a constant of a map of zeros, which the linear layer no longer reads, but its bias can hold.
        gone = torch.ones(weight.shape[1], dtype=torch.bool, device=weight.device)
        gone[rows] = False
        constant = _of_zeros(auxiliary.pooled_norm)
        bias = bias + (weight.sum(2) * (constant * gone)).sum(1)
        auxiliary.pooled_norm = _batch_norm(auxiliary.pooled_norm, rows)
    features = len(kept) * auxiliary.side**2
    linear = nn.utils.skip_init(nn.Linear, features, len(bias), device=weight.device)
    linear.load_state_dict({"weight": weight[:, rows].flatten(1), "bias": bias})
    auxiliary.linear = linear.train(auxiliary.linear.training)


def narrow_all(network: LayerwiseNetwork, depths: Iterable[int]) -> None:
    """Give blocks and auxiliaries of some depths the sizes that pruning leaves them, to be filled with weights."""
    for j in depths:
        narrow(*_parts(network, j), np.arange(network.shapes[j][0]))


def _parts(network: LayerwiseNetwork, j: int) -> tuple[Block, AuxiliaryClassifier]:
    block, auxiliary = network.blocks[j - 1], network.auxiliaries[j - 1]
    assert isinstance(block, Block)
    assert isinstance(auxiliary, AuxiliaryClassifier)
    return block, auxiliary


def _convolution(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Return a convolution like `conv` of other weights, which lie in memory as those of a network do."""
    made = nn.utils.skip_init(
        nn.Conv2d, weight.shape[1], len(weight), kernel_size=3, padding=1, bias=bias is not None, device=weight.device
    )
    made.weight = nn.Parameter(weight.detach().clone(memory_format=torch.channels_last))
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone())
    return made.train(conv.training)


def _batch_norm(norm: nn.BatchNorm2d, rows: Tensor) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(len(rows), device=rows.device)
    state = norm.state_dict()
    made.load_state_dict({name: value if value.dim() == 0 else value[rows] for name, value in state.items()})
    return made.train(norm.training)


def _of_zeros(norm: nn.BatchNorm2d) -> Tensor:
    """Return what BatchNorm in eval mode makes of a map of zeros, [C]."""
    return norm.eval()(torch.zeros(1, norm.num_features, 1, 1, device=norm.weight.device)).flatten()
