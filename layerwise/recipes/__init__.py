"""The recipes: functions that return a complete configuration, each with its source and its cost.

A recipe is a few stated choices; a flag of `layerwise-train` replaces one field of it. Times are for two CPU
cores; where a GPU is needed the cost is given in floating-point operations of training (forward and backward,
with the frozen prefix computed on every batch), from which a machine's time follows; a test counts them.

Where the hardware has bfloat16, products are computed in it (`--precision fp32` for float32, as in the authors' code
for CIFAR-10). BatchNorm begins with weights of one; in the authors' PyTorch it began with uniform ones
(`--set network.norm_weight=uniform`; docs/networks.md has what that does).
"""

from __future__ import annotations

from collections.abc import Callable

from layerwise.config import RunConfig
from layerwise.errors import unknown
from layerwise.recipes.fast import cifar10_best, cifar10_k1_fast, cifar10_k2_fast, cifar10_k3_fast
from layerwise.recipes.imagenet import imagenet_k1, imagenet_k2, imagenet_k3, vgg11
from layerwise.recipes.published import (
    cifar10_compressed,
    cifar10_compressed_end_to_end,
    cifar10_k1,
    cifar10_k1_text,
    cifar10_k2,
    cifar10_k2_text,
    cifar10_k3,
    cifar10_k3_text,
    separability,
)
from layerwise.recipes.small import cifar10_small, digits, fashion_mnist

RECIPES: dict[str, Callable[[], RunConfig]] = {
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "cifar10-small": cifar10_small,
    "cifar10-k1": cifar10_k1,
    "cifar10-k2": cifar10_k2,
    "cifar10-k3": cifar10_k3,
    "cifar10-k1-text": cifar10_k1_text,
    "cifar10-k2-text": cifar10_k2_text,
    "cifar10-k3-text": cifar10_k3_text,
    "cifar10-k1-fast": cifar10_k1_fast,
    "cifar10-k2-fast": cifar10_k2_fast,
    "cifar10-k3-fast": cifar10_k3_fast,
    "cifar10-best": cifar10_best,
    "separability": separability,
    "cifar10-compressed": cifar10_compressed,
    "cifar10-compressed-end-to-end": cifar10_compressed_end_to_end,
    "imagenet-k1": imagenet_k1,
    "imagenet-k2": imagenet_k2,
    "imagenet-k3": imagenet_k3,
    "vgg11": vgg11,
}


def recipe(name: str) -> RunConfig:
    """Return the configuration of the named recipe; raise UsageError with the choices for an unknown one."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]()
