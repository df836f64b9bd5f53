"""The learning-rate schedule: which rate a training has after a number of epochs."""

from __future__ import annotations

import math

from layerwise.config import TrainingConfig

# One cycle (Smith, Topin 2018) by the defaults of PyTorch's OneCycleLR: the learning rate rises for the first 30% of
# the training, from a 25th of the highest one. It ends at 0.
RISING_SHARE, START_DIVISOR = 0.3, 25
# The rise of airbench (Jordan 2024), whose rate then falls linearly to 7%; here to 0.
LINEAR_SHARE, LINEAR_START = 0.23, 0.2


def learning_rate(config: TrainingConfig, progress: float) -> float:
    """Return the learning rate after `progress` epochs (a fraction within an epoch) of config.epochs.

    steps: multiplied by lr_factor after lr_first epochs and every lr_every from there.
    cosine: half a cosine from learning_rate to 0.
    one-cycle: half a cosine up from a 25th of it for the first 30%, half a cosine down to 0 for the rest.
    linear: from a fifth of it up for the first 23%, then down to 0.
    """
    top, share = config.learning_rate, progress / config.epochs
    if config.schedule == "steps":
        return top * config.lr_factor ** config.drops(int(progress))
    if config.schedule == "cosine":
        return top * (1 + math.cos(math.pi * share)) / 2
    if config.schedule == "linear":
        rising = LINEAR_START + (1 - LINEAR_START) * share / LINEAR_SHARE
        return top * min(rising, (1 - share) / (1 - LINEAR_SHARE))
    if share < RISING_SHARE:
        start = top / START_DIVISOR
        return start + (top - start) * (1 - math.cos(math.pi * share / RISING_SHARE)) / 2
    return top * (1 + math.cos(math.pi * (share - RISING_SHARE) / (1 - RISING_SHARE))) / 2
