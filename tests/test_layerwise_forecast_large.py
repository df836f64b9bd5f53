"""Networks too large to build for a forecast: their seconds go by operations, at the rate of the first two blocks."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch
from conftest import small_config

from layerwise.config import RunConfig
from layerwise.datasets import Sizes
from layerwise.forecast import large
from layerwise.forecast.large import is_large, seconds_of
from layerwise.forecast.rehearsal import Rehearsal
from layerwise.training.operations import count_operations
from layerwise.training.run import plan_storage

CPU = torch.device("cpu")
SIZES = Sizes((3, 16, 16), 10, {"train": 200, "validation": 20, "test": 50})
DEEP = {"network.depth": 5, "network.downsample": (2, 4), "network.last_aux_width": 7, "store": "pooled"}


def config_of(**fields: Any) -> RunConfig:
    return small_config(**DEEP | fields)


def test_only_large_greedy_networks_of_plain_blocks_on_a_cpu_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_large(config_of(), SIZES, CPU)
    monkeypatch.setattr(large, "LARGEST", 0)
    assert is_large(config_of(), SIZES, CPU)
    assert not is_large(config_of(), SIZES, torch.device("cuda"))
    assert not is_large(config_of(mode="end-to-end"), SIZES, CPU)
    assert not is_large(small_config(), SIZES, CPU)
    wide = {"network.width": 128, "network.aux_width": 256, "network.depth": 8, "network.downsample": (1, 3, 5, 7)}
    monkeypatch.undo()
    assert is_large(config_of(**wide), Sizes((3, 224, 224), 1000, SIZES.counts), CPU)


def test_seconds_of_the_first_blocks_are_scaled_by_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "LARGEST", 0)
    rehearsed = []

    def timed(rehearsal: Rehearsal, phases: Any) -> dict[str, float]:
        rehearsed.append(rehearsal.config.network)
        counted = count_operations(rehearsal.config, rehearsal.sizes)
        every = {"training": sum(counted.training), "scoring": counted.scoring, "dump": counted.dump}
        return {phase: float(every[phase]) for phase in phases}

    monkeypatch.setattr(large, "forecast_seconds", timed)
    config = config_of()
    storage = plan_storage(config, SIZES, 10**9)
    found, counted = seconds_of(config, SIZES, storage, CPU), count_operations(config, SIZES)
    assert found == pytest.approx(
        {"training": sum(counted.training), "scoring": counted.scoring, "dump": counted.dump}, rel=1e-9
    )
    (network,) = rehearsed
    assert (network.depth, network.downsample, network.last_aux_width) == (2, (2,), 0)
    assert list(seconds_of(config, SIZES, storage, CPU, ("training",))) == ["training"]


def test_it_builds_two_blocks_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "LARGEST", 0)
    monkeypatch.setattr("layerwise.forecast.rehearsal.LEAST", 0.0)
    config = config_of()
    seconds = seconds_of(config, SIZES, plan_storage(config, SIZES, 10**9), CPU)
    assert min(seconds.values()) > 0 and prod(seconds.values()) < float("inf")
