"""Random streams: a seed for each purpose, modules drawn from one, and torch's global state left as it was."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def derive_seed(seed: int, purpose: str, j: int = 0, width: int = 0) -> int:
    """Return a seed in [0, 2^63) for one purpose ("block", "order", ...) at depth j, independent of every other.

    width: M, of what is drawn for networks of that width alone; 0 for what all widths share, such as the order of
    images.
    """
    entropy = (seed, zlib.crc32(purpose.encode()), j, *([width] if width else []))
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def initialised(
    seed: int,
    build: Callable[[], Module],
    initialisation: str = "default",
    norm_weight: str = "ones",
    norm_momentum: float = 0.1,
) -> Module:
    """Build a module with weights drawn from `seed`, leaving the global random state alone.

    initialisation, norm_weight, norm_momentum: as in layerwise.config.NetworkConfig. "kaiming" and "orthogonal" leave
        biases as PyTorch draws them.
    """
    with own_random_stream():
        torch.manual_seed(seed)
        module = build()
        for part in module.modules():
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                _INITIALISE[initialisation](part)
            elif isinstance(part, nn.BatchNorm2d):
                part.momentum = norm_momentum
                if norm_weight == "uniform":
                    nn.init.uniform_(part.weight)
        return module


def fix_norm_weights(module: nn.Module) -> None:
    """Let every BatchNorm of a module keep its weights, and train its biases alone."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.weight.requires_grad_(False)


def _kaiming(part: nn.Conv2d | nn.Linear) -> None:
    nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


def _vgg(part: nn.Conv2d | nn.Linear) -> None:
    if isinstance(part, nn.Conv2d):
        _kaiming(part)
    else:
        nn.init.normal_(part.weight, std=0.01)
    if part.bias is not None:
        nn.init.zeros_(part.bias)


def _dirac(part: nn.Conv2d | nn.Linear) -> None:
    if isinstance(part, nn.Conv2d):
        nn.init.dirac_(part.weight[: part.in_channels])


_INITIALISE: dict[str, Callable[[nn.Conv2d | nn.Linear], object]] = {
    "default": lambda part: None,
    "kaiming": _kaiming,
    "orthogonal": lambda part: nn.init.orthogonal_(part.weight),
    "vgg": _vgg,
    "dirac": _dirac,
}


@contextmanager
def own_random_stream() -> Iterator[None]:
    """Leave torch's global random state, on all devices in use, as the caller had it before the block."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        yield
