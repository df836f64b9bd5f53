"""The scale of features: mean 0, deviation 1, and what becomes of a constant."""

from __future__ import annotations

import numpy as np

from probes.solver.standardiser import Standardiser


def test_standardised_features_have_mean_0_and_deviation_1_and_constants_become_0() -> None:
    x = np.random.default_rng(0).normal(3, 5, (200, 4)).astype(np.float32)
    x[:, 2] = 7
    z = Standardiser(x)(x)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(0), [1, 1, 0, 1], atol=1e-5)
    assert z.dtype == np.float32


def test_other_data_are_scaled_by_those_it_was_made_from() -> None:
    rng = np.random.default_rng(1)
    x, other = rng.normal(2, 3, (50, 3)), rng.normal(0, 1, (20, 3)).astype(np.float16)
    expected = (other - x.mean(0)) / x.std(0)
    np.testing.assert_allclose(Standardiser(x)(other), expected, rtol=1e-5, atol=1e-5)
