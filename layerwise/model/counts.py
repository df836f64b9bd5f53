"""Counts of parameters and operations: of plain blocks by formula, of all others by running each on two black images.

Operations are those that torch.utils.flop_counter counts; memory for backward is what autograd saves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from layerwise.config import NetworkConfig
from layerwise.model.architectures import Shape, network_shapes, new_auxiliary, new_block
from layerwise.model.seeds import initialised, own_random_stream

IMAGES = 2  # BatchNorm takes statistics of more than one


@dataclass(frozen=True)
class Counts:
    """A block or an auxiliary classifier, by count.

    parameters: trainable values. nbytes: of parameters and buffers. operations: of one image, forward. learning: of one
    image, forward and backward, without the gradient of the input. saved: values of one image kept for backward.
    largest: those of its largest map.
    """

    parameters: int
    nbytes: int
    operations: int
    learning: int
    saved: int
    largest: int


@functools.lru_cache(maxsize=64)
def measure(config: NetworkConfig, image: Shape, n_classes: int) -> tuple[tuple[Counts, Counts], ...]:
    """Return the counts of each block and its auxiliary, 1..J, for images of shape (C, H, W)."""
    found = []
    for j, (before, shape) in enumerate(pairwise(network_shapes(config, image)), start=1):
        block = initialised(0, functools.partial(new_block, config, j, before))
        auxiliary = initialised(0, functools.partial(new_auxiliary, config, j, shape, n_classes))
        with own_random_stream():  # blocks may draw from it, as dropout does
            found.append((_counts(block, before), _counts(auxiliary, shape)))
    return tuple(found)


def _counts(module: nn.Module, shape: Shape) -> Counts:
    x = torch.zeros(IMAGES, *shape)
    own = {tensor.data_ptr() for tensor in module.state_dict().values()}
    saved: list[int] = []

    def learn() -> None:
        y: Tensor = module.train()(x)
        if y.requires_grad:
            y.sum().backward()

    with _saved(own, saved):
        learning = _operations(learn)
    with torch.no_grad():
        operations = _operations(lambda: module.eval()(x))
    values = module.state_dict().values()
    return Counts(
        parameters=sum(p.numel() for p in module.parameters() if p.requires_grad),
        nbytes=sum(tensor.numel() * tensor.element_size() for tensor in values),
        operations=operations,
        learning=max(learning, operations),
        saved=sum(saved),
        largest=max([*saved, prod(shape)]),
    )


def _operations(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops()) // IMAGES


@contextmanager
def _saved(own: set[int], sizes: list[int]) -> Iterator[None]:
    """Append to `sizes` the values of one image of each map saved for backward, each map once, weights not at all."""
    seen = set(own)

    def pack(tensor: Tensor) -> Tensor:
        is_map = tensor.is_floating_point() and tensor.dim() > 1 and len(tensor) == IMAGES
        if is_map and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            sizes.append(tensor.numel() // IMAGES)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


KERNEL = 9  # every convolution of a plain block or auxiliary is 3x3, padded to keep H and W
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Part:
    """A block or an auxiliary classifier, by count.

    parameters: trainable values; operations: of one image, forward; nbytes: of parameters and buffers.
    """

    parameters: int = 0
    operations: int = 0
    nbytes: int = 0

    def __add__(self, other: Part) -> Part:
        return Part(self.parameters + other.parameters, self.operations + other.operations, self.nbytes + other.nbytes)


@dataclass(frozen=True)
class Problem:
    """Auxiliary problem j by count: shape (C, H, W) of x_j, block j, its auxiliary and that one's channels.

    learning: operations of block j, forward and backward, of one image, without the gradient of its input.
    unpruned: the problem while block j is trained, where it is pruned afterwards.
    """

    shape: Shape
    block: Part
    auxiliary: Part
    aux_width: int
    learning: int
    unpruned: Problem | None = None

    @property
    def trained(self) -> Problem:
        """The problem as it is while block j is trained."""
        return self.unpruned or self


def count_problems(config: NetworkConfig, image: Shape, n_classes: int) -> list[Problem]:
    """Return auxiliary problems 1..J by count, for images of shape (C, H, W)."""
    xs = network_shapes(config, image)
    if config.architecture != "plain":
        return _measured_problems(config, image, xs, n_classes)
    found = []
    for j, (before, shape) in enumerate(pairwise(xs), start=1):
        unpruned = None
        if config.prune_to:
            unpruned = _problem(config, j, before, (config.doubled(config.width, j), *shape[1:]), n_classes)
        found.append(replace(_problem(config, j, before, shape, n_classes), unpruned=unpruned))
    return found


def _problem(config: NetworkConfig, j: int, before: Shape, shape: Shape, n_classes: int) -> Problem:
    """Return problem j of a block that reads x_{j-1} of one shape and makes x_j of another."""
    channels, aux_width = before[0] * (4 if j in config.downsample else 1), config.aux_width_at(j)
    block = _convolution(channels, shape, config.has_batch_norm, bias=config.has_bias(j))
    auxiliary = _auxiliary(config, shape, aux_width, n_classes)
    return Problem(shape, block, auxiliary, aux_width, 2 * block.operations)


def _measured_problems(config: NetworkConfig, image: Shape, xs: list[Shape], n_classes: int) -> list[Problem]:
    found = []
    for j, counts in enumerate(measure(config, image, n_classes), start=1):
        block, auxiliary = (Part(part.parameters, part.operations, part.nbytes) for part in counts)
        found.append(Problem(xs[j], block, auxiliary, config.aux_width_at(j), counts[0].learning))
    return found


def _auxiliary(config: NetworkConfig, shape: Shape, width: int, n_classes: int) -> Part:
    part, channels = Part(), shape[0]
    height, map_width = (side // 2 if config.aux_halving else side for side in shape[1:])
    for _ in range(config.k - 1):
        part += _convolution(channels, (width, height, map_width), config.has_batch_norm)
        channels = width
    if config.has_batch_norm:
        part += _batch_norm(channels)
    features = channels * config.average**2
    return part + _weights(features * n_classes + n_classes, 2 * features * n_classes)


def _convolution(channels: int, shape: Shape, batch_norm: bool, bias: bool = False) -> Part:
    """Return a convolution of `channels` to maps of `shape`, with its BatchNorm where it has one."""
    width = shape[0]
    part = _weights(KERNEL * channels * width + (width if bias else 0), convolution_operations(channels, shape))
    return part + _batch_norm(width) if batch_norm else part


def convolution_operations(channels: int, shape: Shape) -> int:
    """Return the operations, for one image, of a 3x3 convolution of `channels` to maps of shape (C, H, W)."""
    width, height, map_width = shape
    return 2 * KERNEL * channels * width * height * map_width


def _batch_norm(channels: int) -> Part:
    """Return a BatchNorm: scale and shift, the running mean and variance, and an 8-byte count of batches."""
    return Part(2 * channels, 0, 4 * channels * FLOAT_BYTES + 8)


def _weights(parameters: int, operations: int) -> Part:
    return Part(parameters, operations, FLOAT_BYTES * parameters)
