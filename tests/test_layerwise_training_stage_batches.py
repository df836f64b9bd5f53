"""The kept prefix: what is read is what would be computed; training from it ends where recomputing ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import small_config, train_network

from layerwise.config import RunConfig
from layerwise.datasets import Dataset, Split, load_dataset
from layerwise.model.network import LayerwiseNetwork, freeze
from layerwise.training import stage_batches as cache
from layerwise.training.batches import DeviceSplit
from layerwise.training.history import Epoch
from layerwise.training.prefix import FrozenPrefix
from layerwise.training.stage_batches import Kept, Recomputed

CPU = torch.device("cpu")
WHOLE = load_dataset("digits", holdout=0.1)
AUGMENTED = {"training.crop_padding": 1, "training.flip": True}
STILL = {"training.crop_padding": 0}


def config(prefix: str = "cache", **fields: Any) -> RunConfig:
    return small_config(**{"network.depth": 3, "training.prefix": prefix} | fields)


def network(some: RunConfig) -> LayerwiseNetwork:
    return LayerwiseNetwork(some.network, WHOLE.image_shape, 10, WHOLE.mean, WHOLE.std, 0)


@pytest.fixture
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(cache, "fitting_place", lambda *words: request.param)
    yield request.param


@pytest.mark.parametrize("place", ["device", "memory", "disk"], indirect=True)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fields", [STILL, AUGMENTED | {"training.views": 2}], ids=["still", "views"])
def test_what_is_read_is_what_would_be_computed(
    place: str, precision: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    some = config(precision=precision, **fields)
    data = {name: DeviceSplit(WHOLE.splits[name], CPU) for name in ("train", "validation")}
    net = network(some)
    freeze(net)
    prefix = FrozenPrefix(net, 2, precision)
    kept, anew = Kept(data, prefix, some, 3, tmp_path), Recomputed(data, prefix, some, 3)
    assert kept.place == place
    for epoch in range(3):
        for read, made in zip(kept.batches(epoch), anew.batches(epoch), strict=True):
            (x, y), (expected, label) = kept.fetch(*read), anew.fetch(*made)
            assert x.dtype == prefix.dtype
            assert x.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(y, label)
            torch.testing.assert_close(x, expected, rtol=1e-2 if precision == "bf16" else 1e-5, atol=1e-3)
    for (x, y), (expected, label) in zip(kept.validation(), anew.validation(), strict=True):
        assert torch.equal(y, label)
        torch.testing.assert_close(x, expected, rtol=1e-2 if precision == "bf16" else 1e-5, atol=1e-3)
    assert os.listdir(tmp_path) == []  # a file that lies on the disk has no name there


def trained(some: RunConfig, data: Dataset) -> tuple[LayerwiseNetwork, list[Epoch]]:
    net = network(some)
    return net, train_network(net, data, some)


@pytest.mark.parametrize("fields", [STILL, AUGMENTED | {"training.views": 2}], ids=["still", "views"])
def test_training_from_what_is_kept_ends_where_recomputing_ends(fields: dict[str, Any]) -> None:
    few = {n: Split(s.images[:200], s.label[:200], s.index[:200]) for n, s in WHOLE.splits.items()}
    data = Dataset("digits", WHOLE.classes, few, WHOLE.mean, WHOLE.std)
    fields = fields | {"training.epochs": 3, "training.learning_rate": 0.02}
    (kept, history), (anew, expected) = (trained(config(p, **fields), data) for p in ("cache", "recompute"))
    for a, b in zip(kept.parameters(), anew.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    for found, other in zip(history, expected, strict=True):
        assert found.train.loss == pytest.approx(other.train.loss, rel=1e-3)
        assert found.validation is not None
        assert other.validation is not None
        assert found.validation.loss == pytest.approx(other.validation.loss, rel=1e-3)


def test_no_frozen_block_computes_after_what_is_kept_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    advance = FrozenPrefix.advance

    def counted(self: FrozenPrefix, x: torch.Tensor) -> torch.Tensor:
        passes.append(self.depth)
        return advance(self, x)

    monkeypatch.setattr(FrozenPrefix, "advance", counted)
    some = config(**STILL | {"training.epochs": 4})
    train_network(network(some), WHOLE, some)
    # 1,295 images are three batches of at most 512, and 143 of the fold one.
    assert passes.count(1) == passes.count(2) == 3 + 1
