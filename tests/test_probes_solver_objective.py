"""Sums over samples, block by block: kept logits and logits made anew give what whole arrays give."""

from __future__ import annotations

import pytest
import torch
from linear_problems import blobs, problem
from reference import linear_objective

from probes.solver.design_matrix import DesignMatrix
from probes.solver.objective import Logits, bend, intercept_slope, slope, slope_along
from probes.solver.path import LOSSES
from probes.solver.rows import Features

DOUBLE = torch.float64


@pytest.fixture(params=[True, False], ids=["held", "streamed"])
def design(request, monkeypatch):
    monkeypatch.setattr("probes.solver.design_matrix._CACHED", 256)  # several blocks
    return DesignMatrix(Features(blobs()[0]), torch.device("cpu"), resident=request.param)


def points(loss):
    """Return the labels, two points [P, K, d + 1] and the mean loss as a function of theta."""
    X, y = blobs()
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    generator = torch.Generator().manual_seed(0)
    theta, direction = torch.randn(
        2, *((1, 3) if loss == "multinomial" else (3, 1)), 6, dtype=DOUBLE, generator=generator
    )

    def mean_loss(theta):
        table = theta.reshape(3, 6)
        return linear_objective(table[:, :-1], table[:, -1], X - X.mean(0), y, 0.0, loss)

    return problem(loss, y, 3), theta, direction, mean_loss


@pytest.mark.parametrize("loss", LOSSES)
def test_values_gradients_and_products_are_derivatives(loss, design):
    form, theta, direction, mean_loss = points(loss)
    logits = Logits.of(design, form, theta, DOUBLE)
    assert (logits.kept is None) == (design.columns_kept == 0)
    found = slope(logits)
    torch.testing.assert_close(found.values.sum(), mean_loss(theta))
    torch.testing.assert_close(found.gradient, torch.autograd.functional.jacobian(mean_loss, theta))
    torch.testing.assert_close(bend(logits, direction), torch.autograd.functional.hvp(mean_loss, theta, direction)[1])
    mean, size, curvature = intercept_slope(logits)
    torch.testing.assert_close(mean, found.gradient[..., -1])
    torch.testing.assert_close(curvature, found.curvature)
    assert (size >= mean.abs().amax(1)).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_logits_that_moved_are_those_of_where_they_moved(loss, design):
    form, theta, direction, mean_loss = points(loss)
    logits = Logits.of(design, form, theta.clone(), DOUBLE)
    line = Logits.of(design, form, direction, DOUBLE, anchored=False)
    length = torch.full((len(theta),), 0.3, dtype=DOUBLE)
    along = (torch.autograd.functional.jacobian(mean_loss, theta + 0.3 * direction) * direction).sum((1, 2))
    torch.testing.assert_close(slope_along(logits, line, length), along)
    shift = torch.ones(theta.shape[:2], dtype=DOUBLE)
    there = theta + 0.3 * direction
    there[..., -1] += 1
    torch.testing.assert_close(
        slope(logits.moved(line, length).shifted(shift)).gradient, torch.autograd.functional.jacobian(mean_loss, there)
    )


@pytest.mark.parametrize("loss", ["ovr", "squared_hinge"])
def test_problems_can_be_taken_and_put_back(loss, design):
    form, theta, direction, _ = points(loss)
    logits = Logits.of(design, form, theta.clone(), DOUBLE)
    some = torch.tensor([0, 2])
    whole = slope(logits)
    part = slope(logits.take(some))
    for all_of, some_of in zip(whole, part, strict=True):
        torch.testing.assert_close(all_of[some], some_of)
    logits.put(some, Logits.of(design, form.take(some), direction[some], DOUBLE))
    mixed = theta.clone()
    mixed[some] = direction[some]
    torch.testing.assert_close(slope(logits).gradient, slope(Logits.of(design, form, mixed, DOUBLE)).gradient)
