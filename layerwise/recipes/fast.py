"""Recipes by better schedules than the paper's: its networks, and the best greedy network known here."""

from __future__ import annotations

from dataclasses import replace

from layerwise.config import DataConfig, NetworkConfig, RunConfig, TrainingConfig
from layerwise.recipes.published import cifar10_k1, cifar10_k2, cifar10_k3

# Rate and decay of airbench, whose loss is the sum over 1,024 images and whose decay is decoupled from the rate: there
# 11.5 / (1024 (1 + 1 / (1 - 0.85))) an image; of the mean over 500 images that is 0.732, and a decay of 0.00133.
AIRBENCH_TRAINING = TrainingConfig(
    epochs=16,
    batch_size=500,
    schedule="linear",
    learning_rate=0.732,
    momentum=0.85,
    nesterov=True,
    norm_bias_rate=64.0,
    weight_decay=0.00133,
    label_smoothing=0.2,
    lookahead=0.95,
    crop_padding=4,
    crop_fill="reflect",
    flip=True,
    alternating_flip=True,
    cutout=8,
)


def cifar10_k1_fast() -> RunConfig:
    """cifar10-k1 by a better schedule, for a GPU.

    Paper: the network of section 4.1; the schedule is this project's own.
        Without label smoothing and auxiliaries at half resolution, which a
        linear auxiliary has no use for; rate 0.05, since it has no BatchNorm.
    Command: layerwise-train cifar10-k1-fast --data-dir DIR --holdout 0
    Cost: 2.0e16 floating-point operations: a GPU.
    Expected: not measured yet.
    """
    return _fast("cifar10-k1-fast", cifar10_k1(), learning_rate=0.05)


def cifar10_k2_fast() -> RunConfig:
    """cifar10-k2 by a better schedule, for a GPU.

    Paper: the network of section 4.3; the schedule is this project's own, as
        is that auxiliaries read half the resolution.
    Command: layerwise-train cifar10-k2-fast --data-dir DIR --holdout 0
    Cost: 3.7e15 floating-point operations: a GPU.
    Expected: not measured yet.
    """
    return _fast("cifar10-k2-fast", cifar10_k2())


def cifar10_k3_fast() -> RunConfig:
    """cifar10-k3 by a better schedule, for a GPU.

    Paper: the network of section 4.3; the schedule is this project's own, as
        is that auxiliaries read half the resolution.
    Command: layerwise-train cifar10-k3-fast --data-dir DIR --holdout 0
    Cost: 4.4e15 floating-point operations: a GPU.
    Expected: not measured yet.
    """
    return _fast("cifar10-k3-fast", cifar10_k3())


def cifar10_best() -> RunConfig:
    """CIFAR-10 in about an hour of CPU time: the best greedy network known here.

    Paper: the method of section 3 with blocks of airbench (Jordan 2024): a
        fixed whitening layer, then two blocks of two convolutions, each
        trained with an auxiliary of two more (k = 4), then frozen for good.
        Optimizer and augmentation as there, without test-time augmentation.
    Command: layerwise-train cifar10-best --data-dir DIR --holdout 0
    Cost: 1.8e15 floating-point operations: 64 minutes of one CPU core with
        AMX in bfloat16, and about 10 for scoring and dump; or a GPU.
    Expected: 93.85% test accuracy at the last depth, 92.75% at the one before
        (means of three seeds; 93.6 to 94.1 and 92.4 to 93.1 over seeds).
    """
    return RunConfig(
        recipe="cifar10-best",
        data=DataConfig(dataset="cifar10"),
        network=NetworkConfig(
            depth=3,
            width=96,
            k=4,
            aux_width=384,
            architecture="paired",
            activation="gelu",
            initialisation="dirac",
            norm_weight="fixed",
            norm_momentum=0.4,
        ),
        training=AIRBENCH_TRAINING,
    )


def _fast(name: str, published: RunConfig, learning_rate: float = 0.1) -> RunConfig:
    """Return the network of a published recipe with a third of its epochs, up to a rate and down to 0 in each block."""
    has_hidden = published.network.k > 1
    training = replace(
        published.training,
        epochs=16,
        schedule="linear",
        learning_rate=learning_rate,
        nesterov=True,
        label_smoothing=0.1 if has_hidden else 0.0,
        alternating_flip=True,
    )
    return replace(
        published, recipe=name, network=replace(published.network, aux_halving=has_hidden), training=training
    )
