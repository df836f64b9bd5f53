"""Schedule-free AdamW against its slow form, and against the published sentence that x is a mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import slow_schedule_free_adamw
from torch import nn

from layerwise.model.blocks import AuxiliaryClassifier
from probes.cnn.schedule_free import WARM_UP, ProbeProblem, ScheduleFreeAdamW

MATRIX = np.diag([1.0, 10.0, 0.1]) + 0.05
START = np.array([1.0, -2.0, 3.0])


@pytest.mark.parametrize(("steps", "warm_up"), [(1, 5.0), (40, 5.0), (40, 0.3)])
def test_each_step_is_that_of_the_slow_form(steps: int, warm_up: float) -> None:
    weight = nn.Parameter(torch.tensor(START))
    optimizer = ScheduleFreeAdamW([weight], 0.05)
    for _ in range(steps):
        weight.grad = torch.tensor(MATRIX) @ weight.detach()
        optimizer.advance(warm_up)
        optimizer.step()
    slow = slow_schedule_free_adamw(START, lambda y: MATRIX @ y, steps, rate=0.05, warm_up=max(1.0, warm_up))
    for found, expected in zip((weight.detach(), optimizer.x[0]), slow, strict=True):
        # The share of a step stands in float32.
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_the_average_comes_to_the_minimum() -> None:
    weight = nn.Parameter(torch.tensor(START))
    optimizer = ScheduleFreeAdamW([weight], 0.05)
    for _ in range(2000):
        weight.grad = torch.tensor(MATRIX) @ weight.detach()
        optimizer.advance(10)
        optimizer.step()
    assert optimizer.x[0].abs().max() < 0.01


def test_a_problem_warms_up_over_a_share_of_its_steps_and_gives_its_average() -> None:
    torch.manual_seed(0)
    probe = AuxiliaryClassifier(2, 3, k=2, width=4, batch_norm=True)
    problem = ProbeProblem(probe, 0.1, epochs=2, batch_size=8, precision="fp32")
    x, y = torch.randn(8, 2, 4, 4), torch.arange(8) % 3
    rates = []
    for epoch in range(2):
        problem.start_epoch(epoch, 50)
        for _ in range(50):
            problem.step(x, y)
            rates.append(float(problem.optimizer._now))
    rising = round(WARM_UP * 100)
    np.testing.assert_allclose(rates, np.minimum(1, np.arange(1, 101) / rising) * 0.1, rtol=1e-6)
    averaged = problem.averaged_probe()
    assert torch.equal(averaged.linear.weight, problem.optimizer.x[-2])
    assert not torch.equal(averaged.linear.weight, probe.linear.weight)
    assert not any(p.requires_grad for p in averaged.parameters()) and not averaged.training
