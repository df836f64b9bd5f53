"""The learning-rate schedules: steps, and PyTorch's cosine and one cycle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from layerwise.config import TrainingConfig
from layerwise.training.schedule import learning_rate


def training(**fields: Any) -> TrainingConfig:
    return TrainingConfig(**{"epochs": 10, "learning_rate": 0.1} | fields)


def test_steps_drop_every_so_many_epochs() -> None:
    config = training(lr_factor=0.2, lr_every=4)
    assert [learning_rate(config, e) for e in (0, 3.9, 4, 8)] == pytest.approx([0.1, 0.1, 0.02, 0.004])


def test_the_first_drop_may_come_earlier_and_then_the_optimizer_is_new() -> None:
    config = TrainingConfig(epochs=9, learning_rate=1.0, lr_factor=0.5, lr_first=2, lr_every=3)
    assert [learning_rate(config, epoch) for epoch in range(9)] == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]
    assert [config.drops(epoch) for epoch in range(9)] == [0, 0, 1, 1, 1, 2, 2, 2, 3]


def test_cosine_goes_from_the_top_to_0_as_pytorchs_does() -> None:
    config = training(schedule="cosine")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for epoch in range(10):
        assert learning_rate(config, epoch) == pytest.approx(theirs.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        theirs.step()


def test_one_cycle_is_pytorchs_shape() -> None:
    config = training(schedule="one-cycle")
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.1, total_steps=1001, pct_start=0.3, div_factor=25, final_div_factor=1e12
    )
    for step in range(1000):
        # theirs peaks one of 1001 steps earlier, hence the tolerance
        assert learning_rate(config, step / 100) == pytest.approx(theirs.get_last_lr()[0], abs=6e-4)
        optimizer.step()
        theirs.step()


def test_linear_rises_from_a_fifth_and_falls_to_0() -> None:
    config = training(schedule="linear")
    found = [learning_rate(config, epoch) for epoch in (0, 1.15, 2.3, 6.15, 10)]
    assert found == pytest.approx([0.02, 0.06, 0.1, 0.05, 0], abs=1e-12)
