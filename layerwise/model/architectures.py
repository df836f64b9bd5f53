"""The architectures: their blocks, auxiliary classifiers and shapes.

plain: the paper's blocks, P before some of them. paired: two convolutions a block above a whitening layer. vgg11: the
paper's layerwise VGG-11. custom: a user's own blocks.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from layerwise.config import NetworkConfig
from layerwise.errors import UserError
from layerwise.model import custom as factories
from layerwise.model.blocks import AuxiliaryClassifier, Block, VggHead
from layerwise.model.paired import POOLED, PairedBlock, PairedClassifier, WhiteningStem, paired_shapes

Shape = tuple[int, int, int]


def network_shapes(config: NetworkConfig, image: Shape) -> list[Shape]:
    """Return the shape (C, H, W) of x_0 .. x_J, of frozen blocks.

    Raises UserError where the network cannot read images of that shape.
    """
    if config.architecture == "custom":
        return factories.block_shapes(config, image)
    if config.architecture == "plain":
        return shapes(image, config.depth, config.frozen_width, config.downsample)
    if config.architecture == "paired":
        return _paired_shapes(config, image)
    return _vgg_shapes(config, image)


def settled(config: NetworkConfig, image: Shape) -> NetworkConfig:
    """Return the configuration with what custom blocks determine: M, and BatchNorm.

    Where they have BatchNorm, auxiliaries have it too, whatever k is.
    """
    if config.architecture != "custom":
        return config
    width = network_shapes(config, image)[1][0]
    has_norm = config.batch_norm == "auto" and factories.has_batch_norm(config)
    return replace(config, width=width, batch_norm="on" if has_norm else config.batch_norm)


def new_block(config: NetworkConfig, j: int, before: Shape) -> nn.Module:
    """Return block j, which reads x_{j-1} of shape `before`; its weights are drawn from torch's random stream."""
    if config.architecture == "custom":
        return factories.make_block(config, j)
    if config.architecture == "paired":
        return WhiteningStem(before[0]) if j == 1 else PairedBlock(before[0], config.doubled(config.width, j))
    halving = j in config.downsample
    return Block(
        before[0],
        config.doubled(config.width, j),
        downsampling=halving and config.architecture == "plain",
        pooling=halving and config.architecture == "vgg11",
        batch_norm=config.has_batch_norm,
        bias=config.has_bias(j),
        relu=config.activation == "relu",
    )


def new_auxiliary(config: NetworkConfig, j: int, shape: Shape, n_classes: int) -> nn.Module:
    """Return the auxiliary classifier of block j, which reads x_j of this shape.

    shape: of a block that will be pruned, its shape in training.
    """
    if config.architecture == "paired":
        if j < config.first_trained:
            return nn.Identity()  # of the whitening layer, at which nothing is trained
        is_large = min(shape[1:]) >= POOLED
        return PairedClassifier(shape[0], n_classes, config.k - 2 if is_large else 0, config.aux_width)
    is_vgg = config.architecture == "vgg11"
    if is_vgg and j == config.depth:
        return VggHead(shape, n_classes)
    return AuxiliaryClassifier(
        shape[0],
        n_classes,
        k=config.k,
        width=config.aux_width_at(j),
        batch_norm=config.has_batch_norm,
        side=config.average,
        halving=is_vgg or config.aux_halving,
        padded=not is_vgg,
    )


def _paired_shapes(config: NetworkConfig, image: Shape) -> list[Shape]:
    found = paired_shapes(image, [config.doubled(config.width, j) for j in range(2, config.depth + 1)])
    for j, (_, height, width) in enumerate(found):
        if min(height, width) < 1:
            raise UserError(
                f"block {j} of paired convolutions has no maps left of images of {image[1]}x{image[2]}, since each "
                "halves them. Give fewer blocks (--depth) or larger images."
            )
    return found


def _vgg_shapes(config: NetworkConfig, image: Shape) -> list[Shape]:
    found = [image]
    for j in range(1, config.depth + 1):
        _, height, width = found[-1]
        if j in config.downsample:
            height, width = height // 2, width // 2
        # The auxiliary averages it to half its side and applies two 3x3 convolutions without padding, each of which
        # takes 2 pixels; one must be left. The last auxiliary has none.
        if j < config.depth and min(height, width) // 2 < 5:
            raise UserError(
                f"block {j} of vgg11 makes maps of {height}x{width} from images of {image[1]}x{image[2]}, but its "
                "auxiliary needs 10x10. Images of 160x160 or more are large enough: --set data.image_size=160."
            )
        found.append((config.doubled(config.width, j), height, width))
    return found


def shapes(
    image: tuple[int, int, int], depth: int, width: int, downsampling: tuple[int, ...]
) -> list[tuple[int, int, int]]:
    """Return the shape (C, H, W) of x_0 .. x_J.

    `image` is the shape of x_0. The width doubles at each P after block 1. Raises UserError where P meets an
    odd height or width.
    """
    result = [image]
    channels, (height, map_width) = width, image[1:]
    for j in range(1, depth + 1):
        if j in downsampling:
            if height % 2 or map_width % 2:
                raise UserError(
                    f"P before block {j} cannot halve maps of {height}x{map_width}: both sides must be even. "
                    f"Images of {image[1]}x{image[2]} allow other blocks: change them by --set network.downsample=..."
                )
            height, map_width = height // 2, map_width // 2
            channels = channels * 2 if j > 1 else channels
        result.append((channels, height, map_width))
    return result
