"""BatchNorm whose statistics in training are those of the whole batch, of which each rank holds a share.

With statistics of its own share each rank would train another network (docs/scale.md), and running statistics would
differ from rank to rank, so that frozen blocks would. torch.nn.SyncBatchNorm does this on GPUs alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from layerwise import ranks


class _Normalised(torch.autograd.Function):
    """x [n, C, H, W] with mean 0 and variance 1 over the rows of all ranks, scaled and shifted by channel.

    Each pass over the maps is one of torch's own kernels of BatchNorm, in the number type of x; what is computed for
    channels alone is in float64. Made of single operations in float32 a step took 2.5 times as long (docs/scale.md).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count, mean, variance = _of_all_ranks(*_own_statistics(x))
        ctx.save_for_backward(x, weight, count, mean, torch.rsqrt(variance + eps))
        ctx.mark_non_differentiable(count, mean, variance)
        return _affine(x, weight, bias, mean, variance, eps), count, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *others: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, count, mean, rsqrt = ctx.saved_tensors
        own = _own_sums(gradient, x, weight, mean, rsqrt)
        of_weight, of_bias = ranks.add_up(torch.stack(own).double()) / count
        scale = weight * rsqrt
        slope = (-scale * rsqrt * of_weight).to(x.dtype)  # rounded as the maps are, and the shift made for it
        shift = -scale * of_bias - slope * mean
        found = _affine(gradient, scale, shift, torch.zeros_like(mean), torch.ones_like(mean), 0.0)
        return found.addcmul_(x, slope[:, None, None]), *own, None


def _dtype(x: Tensor) -> torch.dtype:
    """Return the number type of what belongs to the channels of x."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _own_statistics(x: Tensor) -> tuple[int, Tensor, Tensor]:
    """Return the number of values of a channel on this rank, their mean and variance; 0 where there is none."""
    mean, variance = torch.zeros(2, x.shape[1], dtype=_dtype(x), device=x.device)
    if x.numel():
        mean, variance = torch.batch_norm_update_stats(x, mean, variance, 0.0)
    return x.numel() // x.shape[1], mean, variance


def _of_all_ranks(n: int, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return number, mean and variance of the values of all ranks, by one message (Chan, Golub and LeVeque 1983)."""
    own = torch.stack([torch.full_like(mean, n, dtype=torch.float64), mean.double(), variance.double()])
    numbers, means, variances = ranks.gathered(own).unbind(1)
    count = numbers.sum(0)
    joint = (numbers * means).sum(0) / count
    return count, joint, (numbers * (variances + (means - joint).square())).sum(0) / count


def _own_sums(gradient: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rsqrt: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of scale and shift by this rank's rows."""
    if not x.numel():
        return torch.zeros_like(weight), torch.zeros_like(weight)
    kept, only_sums = (mean.to(weight.dtype), rsqrt.to(weight.dtype)), [False, True, True]
    sums = torch.ops.aten.native_batch_norm_backward(gradient, x, weight, None, None, *kept, True, 0.0, only_sums)
    return sums[1], sums[2]


def _affine(x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    """Return scale (x - mean) / sqrt(variance + eps) + shift by channel, in the number type of x."""
    if not x.numel():
        return x.clone()
    scale, shift, mean, variance = (value.to(_dtype(x)) for value in (scale, shift, mean, variance))
    return torch.native_batch_norm(x, scale, shift, mean, variance, False, 0.0, eps)[0]


class GlobalBatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d over the rows of all ranks, whose shares may be unequal and empty."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        weight = (
            torch.ones(self.num_features, dtype=_dtype(input), device=input.device)
            if self.weight is None
            else self.weight
        )
        bias = torch.zeros_like(weight) if self.bias is None else self.bias
        found, count, mean, variance = _Normalised.apply(input, weight, bias, self.eps)
        self._keep(mean, variance * count / (count - 1))
        return found

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
