"""Owns the frozen prefix while blocks above it train: the blocks below, folded, in the number type of the products.

A frozen block computes relu(BN(conv P x)) with fixed statistics, so its BatchNorm is a scale and a shift of the
convolution's own output: it is folded into the weights here. What is dumped is computed by the blocks as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from layerwise.batches import Batches, DeviceSplit, fixed_view
from layerwise.blocks import Block, downsample
from layerwise.config import RunConfig
from layerwise.network import LayerwiseNetwork, derive_seed


class FrozenPrefix:
    """Maps uint8 images [n, C, H, W] to x_depth by frozen blocks, without a graph.

    dtype: of x_depth; float32, or bfloat16 at precision "bf16" and depth > 0.
    """

    def __init__(self, network: LayerwiseNetwork, depth: int, precision: str):
        self.network, self.depth = network, depth
        self.dtype = torch.bfloat16 if precision == "bf16" and depth else torch.float32
        self.shape = network.shapes[depth]
        blocks = [block for block in network.blocks[:depth] if isinstance(block, Block)]
        self._layers = [(block.downsampling, folded(block).to(self.dtype)) for block in blocks]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return x_depth [n, C, H, W], channels last in memory."""
        x = self.network.normalise(images).to(self.dtype, memory_format=torch.channels_last)
        with torch.autocast(images.device.type, enabled=False):
            for is_downsampling, conv in self._layers:
                x = F.relu_(conv(downsample(x) if is_downsampling else x))
        return x


@torch.no_grad()
def folded(block: Block) -> nn.Conv2d:
    """Return a convolution that computes what a frozen block does between P and relu."""
    if block.norm is None:
        return copy.deepcopy(block.conv)
    return fuse_conv_bn_eval(block.conv, block.norm)


class Recomputed:
    """Batches of a stage whose x is computed anew from the images, by the frozen prefix, for every batch.

    data: "train", and "validation" where there is a fold. depth: of the stage's first classifier, which names its
    random streams. folder: where a file may lie, which this kind does not need.
    """

    def __init__(
        self,
        data: Mapping[str, DeviceSplit],
        prefix: FrozenPrefix,
        config: RunConfig,
        depth: int,
        folder: Path | None = None,
    ):
        self.data, self.prefix, self.config, self.depth = data, prefix, config, depth
        self.views = max(1, config.training.views)

    def order_seed(self, epoch: int) -> int:
        """Return the seed of an epoch's order, and of what is drawn anew in it."""
        return derive_seed(self.config.seed, f"order {epoch}", self.depth)

    def view(self, v: int) -> Tensor | None:
        """Return the draws of fixed view v, int64 [3, images]; None where there are no fixed views."""
        cfg = self.config
        if not cfg.training.views:
            return None
        return fixed_view(len(self.data["train"]), cfg.training, derive_seed(cfg.seed, f"view {v}", self.depth))

    def batches(self, epoch: int) -> Batches:
        """Yield the choices of the batches of an epoch."""
        return self.data["train"].choices(self.config.training, self.order_seed(epoch), self.view(epoch % self.views))

    def fetch(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return (x, y) of a choice."""
        images, y = self.data["train"].take(batch[0], self.config.training)
        return self.prefix(images), y

    def held(self) -> Batches:
        """Yield (x, y) of the validation fold."""
        return self.data["validation"].in_order(self.prefix)
