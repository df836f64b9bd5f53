"""The Newton equations of a linear probe: solved as a dense solver solves them, and no further than asked."""

from __future__ import annotations

import pytest
import torch
from linear_problems import blobs, plain, problem

from probes.solver.conjugate_gradients import Equations, dot, solve
from probes.solver.objective import Logits, bend, slope
from probes.solver.path import LOSSES

DOUBLE = torch.float64


def equations(loss, precision=DOUBLE):
    """Return the equations at some point, and the dense Hessian [P, K (d + 1), K (d + 1)]."""
    X, y = blobs()
    design = plain(X)
    shape = (2, 3, 6) if loss == "multinomial" else (3, 1, 6)
    theta = torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) / 2
    form = problem(loss, torch.from_numpy(y), 3)
    form = form.take(torch.zeros(2, dtype=torch.long)) if loss == "multinomial" else form
    lam = torch.tensor([1e-1, 1e-3, 1e-4], dtype=DOUBLE)[: shape[0]]
    logits = Logits.of(design, form, theta, precision)
    found = slope(Logits.of(design, form, theta, DOUBLE))
    gradient = found.gradient.clone()
    gradient[..., :-1] += lam[:, None, None] * theta[..., :-1]
    columns = []
    for i in range(shape[1] * shape[2]):
        unit = torch.zeros(shape[0], shape[1] * shape[2], dtype=DOUBLE)
        unit[:, i] = 1
        unit = unit.reshape(shape)
        column = bend(Logits.of(design, form, theta, DOUBLE), unit)
        column[..., :-1] += lam[:, None, None] * unit[..., :-1]
        columns.append(column.flatten(1))
    return Equations(logits, gradient, found.curvature, found.centre, lam), torch.stack(columns, 2), design.spectrum()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("precision", [torch.float32, DOUBLE])
def test_equations_are_solved_as_by_a_dense_solver(loss, precision):
    given, hessian, spectrum = equations(loss, precision)
    tight = torch.full_like(given.lam, 1e-5)
    change, steps = solve(given, spectrum, tight, torch.zeros_like(tight))
    found = change.double()
    assert 1 <= steps < 100
    residual = (hessian @ found.flatten(1)[..., None])[..., 0] + given.gradient.flatten(1)
    assert (residual.norm(dim=1) <= 1e-3 * given.gradient.flatten(1).norm(dim=1)).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_residual_that_is_small_enough_ends_the_work(loss):
    given, hessian, spectrum = equations(loss)
    goal = 0.01 * dot(given.gradient, given.gradient)
    found, _ = solve(given, spectrum, torch.zeros_like(given.lam), goal)
    residual = (hessian @ found.flatten(1)[..., None])[..., 0] + given.gradient.flatten(1)
    assert (residual.square().sum(1) <= goal * (1 + 1e-9)).all()
    assert (residual.square().sum(1) > 1e-6 * goal).any()  # and no further
