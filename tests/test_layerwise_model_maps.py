"""Batches without gradients are bounded by bytes: those of large images are cut, all others are as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from layerwise.activations import load_network, open_activations
from layerwise.datasets import load_dataset
from layerwise.model import maps
from layerwise.model.architectures import settled
from layerwise.model.maps import BATCH_BYTES, maps_of, rows_within
from layerwise.recipes import recipe
from layerwise.runfile import RunFile
from layerwise.training.batches import EVALUATION_BATCH, evaluation_batch
from layerwise.training.dump import DUMP_BATCH, depth_batches, dump_batch
from layerwise.training.scoring import score_auxiliaries


@pytest.mark.parametrize("name", ["cifar10-k1", "cifar10-k2-text", "cifar10-k3-text", "separability", "digits"])
def test_recipes_on_small_images_keep_their_batches(name: str) -> None:
    network, image = recipe(name).network, (1, 8, 8) if name == "digits" else (3, 32, 32)
    found = maps_of(network, image, 10)
    assert rows_within(EVALUATION_BATCH, found.forward(network.depth)) == EVALUATION_BATCH
    assert rows_within(DUMP_BATCH, found.dumped) == DUMP_BATCH


@pytest.mark.parametrize("name", ["imagenet-k1", "imagenet-k3"])
def test_batches_of_imagenet_s_networks_fit_the_bytes(name: str) -> None:
    image = (3, 224, 224)
    network = settled(recipe(name).network, image)
    found = maps_of(network, image, 1000)
    for most, values in ((EVALUATION_BATCH, found.forward(network.depth)), (DUMP_BATCH, found.dumped)):
        rows = rows_within(most, values)
        assert 30 < rows < 60 and 4 * rows * values <= BATCH_BYTES < 4 * (rows + 1) * values
    assert rows_within(DUMP_BATCH, BATCH_BYTES) == 1  # one image, however large


def test_smaller_batches_say_the_same(run_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_dataset("digits", holdout=0.1)
    with RunFile(run_path) as run:
        network = load_network(run, torch.device("cpu"))
        assert network is not None
        before, whole = score_auxiliaries(network, data, [1, 2]), open_activations(run, 2, "test", source="recompute")
        monkeypatch.setattr(maps, "BATCH_BYTES", 500_000)
        cut = open_activations(run, 2, "test", source="recompute")
        assert whole.at_once == 256 > cut.at_once > 1
        torch.testing.assert_close(cut[:300], whole[:300])
        assert evaluation_batch(network) < len(data.splits["test"].label) and dump_batch(network) < 256
        assert len(next(depth_batches(network, data.splits["test"]))[0]) == dump_batch(network)
    for one, other in zip(before, score_auxiliaries(network, data, [1, 2]), strict=True):
        assert (one.accuracy, one.top5, one.ensembles) == (other.accuracy, other.top5, other.ensembles)
        assert set(one.logits) == set(other.logits) == {"validation", "test"}  # of train nothing is kept
        for name, logits in one.logits.items():
            np.testing.assert_allclose(other.logits[name], logits, rtol=1e-5, atol=1e-5)
