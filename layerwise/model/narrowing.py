"""Block and auxiliary without some of their filters."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from layerwise.model.blocks import AuxiliaryClassifier, Block
from layerwise.model.network import LayerwiseNetwork


@torch.no_grad()
def narrow(block: Block, auxiliary: AuxiliaryClassifier, kept: np.ndarray) -> None:
    """Remove every filter but `kept` from a block, in place, and the weights that read them from its auxiliary.

    In eval mode the auxiliary then computes what it computed for maps with zeros in place of the removed ones.
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
        # BatchNorm turns a map of zeros into a constant; the linear layer no longer reads it, so its bias takes it up.
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
    """Bring blocks and auxiliaries of some depths to their pruned sizes; their weights are to be loaded afterwards."""
    for j in depths:
        narrow(*plain_parts(network, j), np.arange(network.shapes[j][0]))


def plain_parts(network: LayerwiseNetwork, j: int) -> tuple[Block, AuxiliaryClassifier]:
    """Return block j and its auxiliary, of a plain network, the only one whose filters can be taken out."""
    block, auxiliary = network.blocks[j - 1], network.auxiliaries[j - 1]
    assert isinstance(block, Block)
    assert isinstance(auxiliary, AuxiliaryClassifier)
    return block, auxiliary


def _convolution(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Return a convolution like `conv` with other weights, channels last in memory as in a network."""
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
    """Return the output [C] of BatchNorm in eval mode for maps of zeros."""
    return norm.eval()(torch.zeros(1, norm.num_features, 1, 1, device=norm.weight.device)).flatten()
