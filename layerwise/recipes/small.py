"""Recipes for two CPU cores: demonstrations, whose sizes are this project's own."""

from __future__ import annotations

from layerwise.config import DataConfig, NetworkConfig, RunConfig, TrainingConfig


def digits() -> RunConfig:
    """scikit-learn's bundled 8x8 digits, four blocks: the demonstration.

    Paper: the method of section 3 at toy size; sizes are this project's own.
    Command: layerwise-train
    Cost: about 20 seconds at k = 2, no download.
    Expected: about 97 to 98% test accuracy at the last depth for k = 1, 2, 3.
    """
    return RunConfig(
        recipe="digits",
        data=DataConfig(dataset="digits"),
        network=NetworkConfig(depth=4, width=32, k=2, aux_width=32),
        training=TrainingConfig(epochs=24, batch_size=64, lr_every=8, crop_padding=1),
        precision="fp32",  # maps of 8x8 are too small for bfloat16 to be faster
    )


def fashion_mnist() -> RunConfig:
    """Fashion-MNIST, 28x28 grey, four blocks, P before block 3.

    Paper: the method of section 3 with the CIFAR-10 layout at an eighth of
        its width; sizes are this project's own.
    Command: layerwise-train fashion-mnist --data-dir DIR
    Cost: about 5 minutes of one core's time, 4 minutes on two.
    Expected: 91.3% test accuracy at the last depth (k = 2, seed 0).
    """
    return RunConfig(
        recipe="fashion-mnist",
        data=DataConfig(dataset="fashion-mnist"),
        network=NetworkConfig(depth=4, width=16, k=2, aux_width=16, downsample=(3,)),
        training=TrainingConfig(epochs=6, lr_every=2, flip=True),
    )


def cifar10_small() -> RunConfig:
    """CIFAR-10 for two CPU cores: 10,000 images, a quarter of the paper's width.

    Paper: the layout of cifar10-k2 (J = 4, P before block 3) with M = 32,
        M~ = 32 and 8 epochs a block; sizes are this project's own.
    Command: layerwise-train cifar10-small --data-dir DIR
    Cost: about 3 minutes of one core's time in bfloat16, reading of the images
        included.
    Expected: about 67% test accuracy at the last depth (66.8%, seed 0).
    """
    return RunConfig(
        recipe="cifar10-small",
        data=DataConfig(dataset="cifar10", subset=10_000),
        network=NetworkConfig(depth=4, width=32, k=2, aux_width=32, downsample=(3,)),
        training=TrainingConfig(epochs=8, lr_every=3, crop_padding=4, flip=True),
    )
