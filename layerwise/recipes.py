"""Owns the recipes: each a function that returns a complete configuration, with its source and its cost.

A recipe is a few stated choices; a flag of `layerwise-train` replaces one field of it. Costs are for two
CPU cores.
"""

from __future__ import annotations

from collections.abc import Callable

from layerwise.config import DataConfig, NetworkConfig, RunConfig, TrainingConfig
from layerwise.errors import unknown


def digits() -> RunConfig:
    """scikit-learn's bundled 8x8 digits, four blocks: the demonstration, no download.

    Paper: the method of section 2 at toy size; sizes are this project's own.
    Command: layerwise-train
    Cost: about 15 seconds.
    Expected: at least 97% test accuracy at the last depth for k = 1, 2, 3.
    """
    return RunConfig(
        recipe="digits",
        data=DataConfig(dataset="digits"),
        network=NetworkConfig(depth=4, width=32, k=2, aux_width=32),
        training=TrainingConfig(epochs=24, batch_size=64, lr_every=8, crop_padding=1),
        precision="fp32",  # maps of 8x8 are too small for bfloat16 to be faster
    )


def fashion_mnist() -> RunConfig:
    """Fashion-MNIST, 28x28 grey, four blocks with one downsampling before block 3.

    Paper: the method of section 2 with the CIFAR-10 layout at an eighth of its width; sizes are this project's own.
    Command: layerwise-train fashion-mnist --data-dir DIR
    Cost: about 6 minutes.
    Expected: at least 90% test accuracy at the last depth.
    """
    return RunConfig(
        recipe="fashion-mnist",
        data=DataConfig(dataset="fashion-mnist"),
        network=NetworkConfig(depth=4, width=16, k=2, aux_width=16, downsample=(3,)),
        training=TrainingConfig(epochs=6, lr_every=2, flip=True),
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {"digits": digits, "fashion-mnist": fashion_mnist}


def recipe(name: str) -> RunConfig:
    """Return the configuration of the named recipe; raise UsageError with the choices for an unknown one."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]()
