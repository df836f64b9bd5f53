"""BatchNorm of an untrained network: statistics of equal batches are those of all samples, and nothing else moves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.model.batch_norm import settling


def test_statistics_are_the_mean_over_batches_and_everything_ends_in_eval_mode() -> None:
    net = nn.Sequential(nn.BatchNorm1d(3, momentum=0.3), nn.Dropout(0.5))
    x = 2 + 3 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    with settling(net) as has_norms:
        assert has_norms and net[0].training and not net[1].training
        for part in x.split(10):
            net(part)
    torch.testing.assert_close(net[0].running_mean, x.mean(0))
    torch.testing.assert_close(net[0].running_var, torch.stack([part.var(0) for part in x.split(10)]).mean(0))
    assert net[0].momentum == 0.3 and not any(module.training for module in net.modules())


def test_momentum_returns_where_the_pass_fails() -> None:
    net = nn.Sequential(nn.BatchNorm1d(3, momentum=0.3))
    with pytest.raises(ValueError, match="2D or 3D"), settling(net):
        net(torch.zeros(1, 2, 3, 4))
    assert net[0].momentum == 0.3 and not net[0].training


@pytest.mark.parametrize("net", [nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False)])
def test_where_nothing_is_kept_there_is_nothing_to_settle(net: nn.Module) -> None:
    with settling(net) as has_norms:
        assert not has_norms
