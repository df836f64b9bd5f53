"""Standardised maps against the slow form, whatever their scale, and with constant channels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from reference import slow_channel_standardisation
from torch import Tensor

from probes.cnn.standardiser import ChannelStandardiser


class Maps:
    """Maps [n, C, H, W] as `Labelled` gives them: in order, a few images at a time."""

    def __init__(self, x: np.ndarray):
        self.x = torch.from_numpy(x)

    def in_order(self, rows: range) -> Iterator[Tensor]:
        for start in range(rows.start, rows.stop, 50):
            yield self.x[start : min(start + 50, rows.stop)]


@pytest.fixture
def maps() -> np.ndarray:
    """Return 120 maps of channels of very different mean and deviation; the last one is constant."""
    x = np.random.default_rng(0).normal(size=(120, 4, 5, 3))
    scale = np.array([1e-4, 1.0, 100.0, 0.0])[:, None, None]
    mean = np.array([0.01, -3.0, 5e3, 7.3])[:, None, None]
    return (x * scale + mean).astype(np.float32)


def test_channels_are_brought_to_mean_0_and_deviation_1(maps: np.ndarray) -> None:
    standardise = ChannelStandardiser(Maps(maps), 90)  # type: ignore[arg-type]
    found = standardise(torch.from_numpy(maps)).numpy()
    np.testing.assert_allclose(found, slow_channel_standardisation(maps, maps[:90]), atol=2e-4)
    np.testing.assert_allclose(found[:90, :3].mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(found[:90, :3].std((0, 2, 3)), 1, atol=1e-4)
    assert (found[:, 3] == 0).all()


def test_statistics_are_a_frozen_part_of_the_probe(maps: np.ndarray) -> None:
    standardise = ChannelStandardiser(Maps(maps), 120, torch.bfloat16)  # type: ignore[arg-type]
    assert set(standardise.state_dict()) == {"mean", "scale"}
    assert not list(standardise.parameters())
    half = torch.from_numpy(maps[:8, :3]).half()
    assert ChannelStandardiser(Maps(maps[:, :3]), 120, torch.bfloat16)(half).dtype == torch.bfloat16  # type: ignore[arg-type]
