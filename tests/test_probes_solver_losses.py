"""The losses of a linear probe: derivatives, and a dual point that is feasible."""

from __future__ import annotations

import pytest
import torch
from linear_problems import problem

from probes.solver.path import LOSSES


@pytest.mark.parametrize("loss", LOSSES)
def test_slopes_and_curvature_are_the_derivatives_of_the_loss(loss):
    labels = torch.tensor([0, 1, 2, 0, 1, 0])
    generator = torch.Generator().manual_seed(0)
    shape = (1, 3, 6) if loss == "multinomial" else (3, 1, 6)
    logits, change = torch.randn((2, *shape), generator=generator, dtype=torch.float64)
    form = problem(loss, labels, 3, torch.tensor([0.1, 0.2, 0.3, 0.0, 0.15, 0.25], dtype=torch.float64))

    def total(values):
        return form.values(values).sum()

    torch.testing.assert_close(form.slopes(logits), torch.autograd.functional.jacobian(total, logits))
    bent = torch.autograd.functional.hvp(total, logits, change)[1]
    torch.testing.assert_close(form.bend(form.curvature(logits), change), bent)
    hessian = torch.autograd.functional.hessian(total, logits)
    for p in range(len(logits)):
        mean = hessian[p, :, :, p].sum((1, 3))
        torch.testing.assert_close(form.mean_curvature(form.curvature(logits))[p], mean)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_repaired_dual_point_is_feasible_wherever_the_intercept_stands(loss):
    labels = torch.tensor([0] * 20 + [1] * 7 + [2] * 3)
    logits = torch.randn((1, 3, 30) if loss == "multinomial" else (3, 1, 30), dtype=torch.float64) * 4 + 2
    form = problem(loss, labels, 3)
    residuals, _ = form.dual_point(logits, form.repair(form.balance(logits)))
    residuals = residuals * 30
    torch.testing.assert_close(residuals.mean(2), torch.zeros_like(residuals[..., 0]), atol=1e-15, rtol=0)
    one_hot = torch.nn.functional.one_hot(labels, 3).T.double().reshape(residuals.shape)
    if loss == "squared_hinge":
        assert ((residuals * (2 * one_hot - 1)) <= 0).all()
    else:
        assert ((residuals + one_hot >= -1e-15) & (residuals + one_hot <= 1 + 1e-15)).all()
    if loss == "multinomial":
        torch.testing.assert_close(residuals.sum(1), torch.zeros(1, 30, dtype=torch.float64), atol=1e-14, rtol=0)
