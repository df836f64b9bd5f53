"""BatchNorm whose statistics in training are those of the whole batch, of which each rank holds a share.

With statistics of its own share each rank would train another network (docs/scale.md), and running statistics would
differ from rank to rank, so that frozen blocks would. torch.nn.SyncBatchNorm does this on GPUs alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from layerwise import ranks


class _Summed(torch.autograd.Function):
    """The sum of a tensor over ranks. The loss is a sum over ranks too, and so is the gradient of what enters it."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return ranks.add_up(own.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return ranks.add_up(gradient.clone())


class GlobalBatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d over the rows of all ranks, whose shares may be unequal and empty."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input if input.dtype == torch.float64 else input.float()
        count = ranks.add_up(torch.tensor([x.numel() // x.shape[1]], dtype=x.dtype, device=x.device))
        mean = _Summed.apply(x.sum((0, 2, 3))) / count
        centred = x - mean[:, None, None]
        variance = _Summed.apply(centred.square().sum((0, 2, 3))) / count
        self._keep(mean.detach(), variance.detach() * count / (count - 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        found = centred * scale[:, None, None]
        if self.bias is not None:
            found = found + self.bias[:, None, None]
        return found.to(input.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics to those of a batch, as nn.BatchNorm2d does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def make_global(module: nn.Module, device: torch.device) -> None:
    """Let every BatchNorm of a module take the statistics of all ranks, in place, where there are several.

    On GPUs it becomes torch's own SyncBatchNorm, which has kernels for it.
    """
    if ranks.world() == 1:
        return
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, _global(child, device))
        else:
            make_global(child, device)


def _global(norm: nn.BatchNorm2d, device: torch.device) -> nn.Module:
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(norm)
        return converted
    made = GlobalBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.to(next(iter(norm.state_dict().values())).dtype if norm.affine else torch.float32)
    made.load_state_dict(norm.state_dict())
    return made.train(norm.training)
