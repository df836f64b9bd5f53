"""Products with the feature matrix, and the spectrum of its Gram matrix: against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probes.solver.design_matrix import DesignMatrix
from probes.solver.rows import Features

CPU = torch.device("cpu")


def normal(n, d, dtype=np.float64):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 5).astype(dtype)


@pytest.fixture(params=[40, 1 << 20])
def block_values(request, monkeypatch):
    monkeypatch.setattr("probes.solver.design_matrix._CACHED", request.param)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("resident", [True, False])
def test_products_are_those_with_centred_features(dtype, resident, block_values):
    X = normal(30, 4, dtype)
    design = DesignMatrix(Features(X), CPU, resident=resident)
    centred = X.astype(np.float64) - X.astype(np.float64).mean(0)
    rng = torch.Generator().manual_seed(0)
    theta, residuals = (torch.randn(2, 3, n, generator=rng, dtype=torch.float64) for n in (5, 30))
    forward, backward = design.forward(theta), design.backward(theta, torch.float64)
    logits = []
    for rows in design.rows():
        block = design.block(rows, torch.float64)
        logits.append(forward(block))
        backward.add(residuals[..., rows], block)
    expected = theta[..., :-1].numpy() @ centred.T + theta[..., -1:].numpy()
    np.testing.assert_allclose(torch.cat(logits, 2), expected, rtol=1e-10, atol=1e-10)
    total = backward.total().numpy()
    np.testing.assert_allclose(total[..., :-1], residuals.numpy() @ centred, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(total[..., -1], residuals.numpy().sum(2), rtol=1e-10, atol=1e-10)


def test_norms_and_means_are_those_of_the_rows(block_values):
    X = normal(30, 4)
    design = DesignMatrix(Features(X), CPU)
    np.testing.assert_allclose(design.mean, X.mean(0))
    np.testing.assert_allclose(design.row_squares, (X**2).sum(1))


@pytest.mark.parametrize("n", [30, 4])
def test_the_spectrum_is_that_of_the_gram_matrix(n, block_values):
    X = normal(n, 6)
    spectrum = DesignMatrix(Features(X), CPU).spectrum()
    centred = X - X.mean(0)
    rebuilt = (spectrum.vectors * spectrum.values) @ spectrum.vectors.T
    np.testing.assert_allclose(rebuilt, centred.T @ centred / n, rtol=1e-4, atol=1e-4)
    assert spectrum.rest is None
    assert spectrum.vectors.shape[1] == min(6, n - 1)


def test_the_spectrum_of_a_large_matrix_keeps_its_trace(monkeypatch):
    monkeypatch.setattr("probes.solver.design_matrix._GRAM_LIMIT", 5)
    X = normal(40, 8)
    spectrum = DesignMatrix(Features(X), CPU).spectrum()
    assert spectrum.vectors.shape == (8, 5)
    np.testing.assert_allclose(spectrum.vectors.T @ spectrum.vectors, np.eye(5), atol=1e-5)
    assert spectrum.rest >= 0
    if spectrum.rest > 0:
        assert float(spectrum.values.sum() + 3 * spectrum.rest) == pytest.approx(X.var(0).sum(), rel=1e-5)


def test_logits_are_kept_where_memory_allows_and_never_beside_streamed_features():
    n, d = 1 << 20, 16  # 32 bytes a logit of each sample
    assert DesignMatrix.columns(n, d, 0) == 4  # 16 MiB, or an eighth of the features
    assert DesignMatrix.columns(n, d, 1000 * 32 * n) == 1000
    X = np.random.default_rng(0).normal(size=(1000, 4))
    assert DesignMatrix(Features(X), torch.device("cpu"), resident=False, room=1 << 40).columns_kept == 0
