"""Owns the counts of blocks that no formula is kept for: they are found by running each on two black images.

Operations are those that torch.utils.flop_counter counts; what backward needs is what autograd saves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from layerwise.architectures import Shape, network_shapes, new_auxiliary, new_block
from layerwise.config import NetworkConfig
from layerwise.network import initialised
from layerwise.randomness import own_random_stream

IMAGES = 2  # BatchNorm takes statistics of more than one


@dataclass(frozen=True)
class Counts:
    """A block or an auxiliary classifier, by count.

    parameters: trainable values. nbytes: of parameters and buffers. operations: of one image, forward; learning: of
    one image, forward and backward, where the input needs no gradient. saved: values of one image that backward needs;
    largest: of them those of the largest map.
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
    """Put into `sizes` the values of an image of each map that is saved for backward, once each, weights left out."""
    seen = set(own)

    def pack(tensor: Tensor) -> Tensor:
        is_map = tensor.is_floating_point() and tensor.dim() > 1 and len(tensor) == IMAGES
        if is_map and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            sizes.append(tensor.numel() // IMAGES)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield
