"""The optimizer of an auxiliary problem, and the factors by which some parameters have another learning rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from layerwise.config import TrainingConfig

FACTOR = "rate_factor"  # entry of a parameter group: of the schedule's learning rate


def new_optimizer(config: TrainingConfig, module: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """Return the optimizer of all parameters of a module.

    On a GPU it is the fused one, which takes its learning rates from tensors on the device.
    """
    on_gpu = device.type == "cuda"
    groups = parameter_groups(config, module)
    for group in groups:
        rate = config.learning_rate * group[FACTOR]
        group["lr"] = torch.tensor(rate, device=device) if on_gpu else rate
    fused = True if on_gpu else None
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, nesterov=config.nesterov, fused=fused)
    return torch.optim.AdamW(groups, fused=fused, capturable=on_gpu)


def parameter_groups(config: TrainingConfig, module: nn.Module) -> list[dict[str, Any]]:
    """Return the parameters that are trained: biases of BatchNorm apart, where they have a rate of their own.

    SGD shrinks a weight by rate times decay, so that theirs is divided by as much as their rate is multiplied.
    """
    factor = config.norm_bias_rate
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    own = {norm.bias for norm in norms if norm.bias is not None} if factor != 1 else set()
    every = [(parameter, parameter in own) for parameter in module.parameters()]
    groups = []
    for is_own, by in ((False, 1.0), (True, factor)):
        if parameters := [parameter for parameter, apart in every if apart is is_own]:
            groups.append({"params": parameters, FACTOR: by, "weight_decay": config.weight_decay / by})
    return groups


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step, times the factor of each group."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate * group[FACTOR])
        else:
            group["lr"] = rate * group[FACTOR]
