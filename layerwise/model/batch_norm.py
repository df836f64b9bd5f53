"""BatchNorm's running statistics where nothing is trained: those of one label-free pass over the training data.

Without them an untrained network would divide by the variance 1 that BatchNorm starts with, which no data have, and so
say more of that number than of its weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def settling(model: nn.Module) -> Iterator[bool]:
    """Let every BatchNorm of a model average the statistics of what it sees in the block; yield whether there is any.

    Every batch weighs the same (momentum None), so batches of nearly one size make the statistics those of all
    samples. Everything else stays in eval mode, since dropout and the like are no statistic; all of it ends there.
    """
    kinds = nn.modules.batchnorm._BatchNorm
    norms = [module for module in model.modules() if isinstance(module, kinds) and module.track_running_stats]
    usual = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield bool(norms)
    finally:
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum
            norm.eval()
