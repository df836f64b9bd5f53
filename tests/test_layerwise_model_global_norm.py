"""BatchNorm over the rows of all ranks is torch's own where there is one rank, in every number type and far from 0."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.model.global_norm import GlobalBatchNorm


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("dtype", "offset", "bound"),
    [
        (torch.float64, 0.0, 1e-12),
        (torch.float64, 1e6, 1e-8),
        (torch.float32, 100.0, 1e-4),
        (torch.bfloat16, 0.0, 2e-2),
    ],
)
def test_values_gradients_and_running_statistics_are_those_of_torch(
    dtype: torch.dtype, offset: float, bound: float, layout: torch.memory_format
) -> None:
    draw = torch.Generator().manual_seed(0)
    x = (offset + torch.randn(6, 4, 5, 5, generator=draw, dtype=torch.float64)).to(dtype).to(memory_format=layout)
    gradient = torch.randn(6, 4, 5, 5, generator=draw, dtype=torch.float64).to(dtype)
    found = []
    for norm in (nn.BatchNorm2d(4), GlobalBatchNorm(4)):
        norm.to(torch.float64 if dtype == torch.float64 else torch.float32)
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([0.5, 1.0, 0.0, -2.0]))
            norm.bias.copy_(torch.arange(4))
        own = x.clone().requires_grad_()
        out = norm(own)
        out.backward(gradient)
        assert out.dtype == dtype and own.grad is not None
        found.append([out.detach(), own.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var])
        assert norm.num_batches_tracked == 1
    for theirs, ours in zip(*found, strict=True):
        assert float((ours - theirs).abs().max()) <= bound * float(theirs.abs().max())


def test_a_norm_without_scale_and_momentum_takes_the_mean_over_batches() -> None:
    ours, theirs = (kind(3, affine=False, momentum=None) for kind in (GlobalBatchNorm, nn.BatchNorm2d))
    for part in torch.randn(12, 3, 4, 4, generator=torch.Generator().manual_seed(0)).split(4):
        torch.testing.assert_close(ours(part), theirs(part))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
