"""The network as a whole: its blocks and auxiliary classifiers, their shapes, their initial weights.

The weights of each block and each auxiliary are drawn from a random stream of its own, derived from the run's seed and
its number and M, so that the first weights of block j do not depend on how the earlier ones were trained, and those of
a narrow network are no part of a wide one's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from layerwise.config import NetworkConfig
from layerwise.model import architectures
from layerwise.model.seeds import derive_seed, initialised


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return x_0: uint8 images [n, C, H, W] scaled to [0, 1] and standardised a channel, float32.

    mean, std: [C, 1, 1], of images scaled to [0, 1].
    """
    return (images.to(torch.float32) / 255 - mean) / std


class Normalisation(nn.Module):
    """Maps uint8 images [n, C, H, W] to x_0."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return normalise(images, self.mean, self.std)


class LayerwiseNetwork(nn.Module):
    """J blocks and their auxiliary classifiers, with the normalisation that turns an image into x_0.

    shapes[j]: (C, H, W) of x_j, for j = 0..J, of frozen blocks. Blocks are numbered from 1: block j computes x_j from
    x_{j-1}. Where it is to be pruned (config.prune_to), it is M wide until layerwise.model.narrowing narrows it.
    """

    def __init__(
        self,
        config: NetworkConfig,
        image_shape: tuple[int, int, int],
        n_classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        seed: int,
    ):
        super().__init__()
        self.config = config
        self.n_classes = n_classes
        self.seed = seed
        self.shapes = architectures.network_shapes(config, image_shape)
        self.blocks = nn.ModuleList(self.new_block(j) for j in range(1, config.depth + 1))
        self.auxiliaries = nn.ModuleList(self.new_auxiliary(j) for j in range(1, config.depth + 1))
        # The values stay the same; the order in memory makes convolutions faster: 4 to 14% of a bfloat16 step on a CPU
        # (docs/performance.md).
        self.to(memory_format=torch.channels_last)
        self.normalisation = Normalisation(mean, std)

    def new_block(self, j: int) -> nn.Module:
        """Return block j with its first weights."""
        cfg, before = self.config, self.shapes[j - 1]
        return initialised(
            self._first_seed("block", j),
            lambda: architectures.new_block(cfg, j, before),
            cfg.initialisation,
            cfg.norm_weight,
            cfg.norm_momentum,
        )

    def new_auxiliary(self, j: int) -> nn.Module:
        """Return the auxiliary classifier of block j with its first weights."""
        cfg, shape = self.config, self.shapes[j]
        if cfg.prune_to:
            shape = (cfg.doubled(cfg.width, j), *shape[1:])
        return initialised(
            self._first_seed("auxiliary", j),
            lambda: architectures.new_auxiliary(cfg, j, shape, self.n_classes),
            cfg.initialisation,
            cfg.norm_weight,
            cfg.norm_momentum,
        )

    def _first_seed(self, purpose: str, j: int) -> int:
        # PyTorch fills a tensor row by row: from one seed, a block of M = 8 would be the first 8 filters of M = 16, and
        # networks of different M no independent draws. Of a user's own blocks M is not asked for.
        has_width = self.config.seeding > 1 and self.config.architecture != "custom"
        return derive_seed(self.seed, purpose, j, self.config.width if has_width else 0)

    def normalise(self, images: Tensor) -> Tensor:
        """Return x_0 of uint8 images [n, C, H, W]."""
        x: Tensor = self.normalisation(images)
        return x

    @property
    def device(self) -> torch.device:
        """The device that holds the network."""
        return self.normalisation.mean.device

    def advance(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Return x_stop from x_start by blocks start + 1 .. stop."""
        for block in self.blocks[start:stop]:
            x = block(x)
        return x


def freeze(module: nn.Module) -> None:
    """Freeze a module: no gradient, and eval mode, in which BatchNorm buffers keep every bit."""
    module.requires_grad_(False)
    module.zero_grad(set_to_none=True)
    module.eval()
