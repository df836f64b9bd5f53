"""The frozen blocks below the one that trains, with BatchNorm folded, in the number type of the products.

A frozen block computes relu(BN(conv P x)) with fixed statistics, so its BatchNorm is a scale and a shift of the
convolution's output: it is folded into the weights here, for speed. What the run file holds is computed by the blocks
as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from layerwise.model.blocks import Block
from layerwise.model.network import LayerwiseNetwork

# Values of x_0 that are made at once, for as many batches as they are (21 of 128 CIFAR-10 images): cropping, flipping
# and normalising take some twenty small kernels, each of which costs a GPU as much for one batch as for many. Predicted
# to save 40 us a step, not measured apart (docs/performance.md). In float32 they are 34 MB, twice that while made.
AT_ONCE = 2**23


class FrozenPrefix:
    """Maps uint8 images [n, C, H, W] to x_depth by frozen blocks, without a graph.

    dtype: of x_depth; float32, or bfloat16 at precision "bf16" and depth > 0.
    """

    def __init__(self, network: LayerwiseNetwork, depth: int, precision: str):
        self.network, self.depth = network, depth
        self.dtype = torch.bfloat16 if precision == "bf16" and depth else torch.float32
        self.shape = network.shapes[depth]
        self._layers = [layer_of(block, self.dtype) for block in network.blocks[:depth]]

    def __call__(self, images: Tensor) -> Tensor:
        """Return x_depth [n, C, H, W], channels last in memory."""
        return self.advance(self.begin(images))

    @torch.no_grad()
    def begin(self, images: Tensor) -> Tensor:
        """Return x_0 as the first block reads it."""
        return self.network.normalise(images).to(self.dtype, memory_format=torch.channels_last)

    @torch.no_grad()
    def advance(self, x: Tensor) -> Tensor:
        """Return x_depth from x_0."""
        with torch.autocast(x.device.type, enabled=False):
            for layer in self._layers:
                x = layer(x)
        return x


def layer_of(block: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return a function that computes a frozen block in a number type: folded if it is a `Block`, else a copy."""
    if not isinstance(block, Block) or not block.relu:
        return copy.deepcopy(block).eval().to(dtype)
    conv, is_downsampling, is_pooling = folded(block).to(dtype), block.downsampling, block.pooling

    def layer(x: Tensor) -> Tensor:
        if is_downsampling:
            x = stacked(x)
        elif is_pooling:
            x = F.max_pool2d(x, 2)
        return rectified(conv, x)

    return layer


def rectified(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Return relu(conv(x)): on a GPU by cuDNN's one kernel for both, which takes multiples of eight channels.

    Timed alone on a GPU, it takes 0.062 ms where two kernels take 0.123 (docs/performance.md).
    """
    if x.is_cuda and conv.bias is not None and conv.in_channels % 8 == 0:
        stride = padding = dilation = (1, 1)
        return torch.cudnn_convolution_relu(x, conv.weight, conv.bias, stride, padding, dilation, groups=1)
    return F.relu_(conv(x))


@torch.no_grad()
def folded(block: Block) -> nn.Conv2d:
    """Return the convolution that a frozen block is before its relu; with P, it reads `stacked` x."""
    conv = copy.deepcopy(block.conv) if block.norm is None else fuse_conv_bn_eval(block.conv, block.norm)
    if block.downsampling:
        weight = conv.weight.unflatten(1, (-1, 4)).transpose(1, 2).flatten(1, 2)
        conv.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
    return conv


def stacked(x: Tensor) -> Tensor:
    """Apply P with its output channels in another order: [n, C, H, W] -> [n, 4 C, H / 2, W / 2], channels last.

    Channel (2 a + b) C + c holds x[:, c, a::2, b::2]. In this order all channels of a pixel move together, which takes
    a quarter of the time of P (3% of a step of block 4, docs/performance.md); the weights that read it are ordered so.
    """
    n, c, h, w = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c)
    return pixels.permute(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c).permute(0, 3, 1, 2)
