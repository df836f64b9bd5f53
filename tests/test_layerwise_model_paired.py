"""Paired blocks and the whitening layer below them: shapes, whitened patches, and that the layer stays what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_run, small_config
from torch import nn
from torch.nn import functional as F

from layerwise.datasets import load_dataset
from layerwise.errors import UsageError, UserError
from layerwise.model.network import LayerwiseNetwork, normalise
from layerwise.model.paired import EPSILON, PairedBlock, PairedClassifier, WhiteningStem
from layerwise.runfile import RunFile

PAIRED: dict[str, Any] = {
    "network.architecture": "paired", "network.activation": "gelu", "network.depth": 3, "network.k": 4,
    "network.initialisation": "dirac", "network.norm_weight": "fixed", "network.norm_momentum": 0.4,
}  # fmt: skip


def images(n: int = 300) -> torch.Tensor:
    x = torch.randn(n, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 0.7 * x[:, 0] + 0.3 * x[:, 1]
    return F.avg_pool2d(x, 3, 1, 1)  # neighbours depend on each other


def test_whitened_patches_have_the_identity_for_covariance() -> None:
    x, stem = images(), WhiteningStem(3)
    stem.whiten(x)
    assert stem.weight.shape == (24, 3, 2, 2)
    assert torch.equal(stem.weight[:12], -stem.weight[12:])
    patches = x.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12).double().numpy()
    values = np.linalg.eigvalsh(patches.T @ patches / len(patches))
    white = patches @ stem.weight[:12].reshape(12, 12).double().numpy().T
    found = white.T @ white / len(white)
    assert np.allclose(found, np.diag(values / (values + EPSILON)), atol=1e-5)
    assert torch.allclose(stem(x), F.gelu(F.conv2d(x, stem.weight)))
    again = WhiteningStem(3)
    again.whiten(x)
    assert torch.equal(again.weight, stem.weight)


def test_a_block_is_two_convolutions_with_a_pool_between() -> None:
    torch.manual_seed(0)
    block = PairedBlock(4, 6).eval()
    x = torch.randn(2, 4, 7, 8)
    by_hand = F.gelu(block.first_norm(F.max_pool2d(F.conv2d(x, block.first.weight, padding=1), 2)))
    by_hand = F.gelu(block.second_norm(F.conv2d(by_hand, block.second.weight, padding=1)))
    assert block(x).shape == (2, 6, 3, 4)
    assert torch.allclose(block(x), by_hand)


@pytest.mark.parametrize("hidden", [0, 1, 2])
def test_a_classifier_reads_the_largest_value_of_each_map(hidden: int) -> None:
    torch.manual_seed(0)
    classifier = PairedClassifier(4, 10, hidden, 5).eval()
    assert sum(isinstance(part, nn.Conv2d) for part in classifier.modules()) == hidden
    x, block = torch.randn(2, 4, 6, 6), classifier.block
    read = x
    if block is not None:
        read = F.gelu(block.first_norm(F.max_pool2d(F.conv2d(x, block.first.weight, padding=1), 2)))
    if isinstance(block, PairedBlock):
        read = F.gelu(block.second_norm(F.conv2d(read, block.second.weight, padding=1)))
    assert torch.allclose(classifier(x), read.amax((2, 3)) @ classifier.linear.weight.T / 9)


def network(**fields: Any) -> LayerwiseNetwork:
    config = small_config(**PAIRED | fields)
    return LayerwiseNetwork(config.network, (3, 32, 32), 10, (0.5,) * 3, (0.2,) * 3, 0)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_a_problem_of_a_paired_block_has_k_hidden_layers(k: int) -> None:
    net = network(**{"network.k": k})
    for block, auxiliary in zip(net.blocks[1:], net.auxiliaries[1:], strict=True):
        assert sum(isinstance(part, nn.Conv2d) for part in nn.Sequential(block, auxiliary).modules()) == k


def test_shapes_widths_and_auxiliaries_are_those_of_airbench() -> None:
    net = network(**{"network.depth": 4, "network.width": 8, "network.aux_width": 16})
    assert net.shapes == [(3, 32, 32), (24, 31, 31), (8, 15, 15), (32, 7, 7), (32, 3, 3)]
    x = torch.randn(2, 3, 32, 32)
    for block, shape in zip(net.blocks, net.shapes[1:], strict=True):
        x = block(x)
        assert x.shape[1:] == shape
    assert isinstance(net.auxiliaries[0], nn.Identity)
    assert [bool(a.block) for a in net.auxiliaries[1:]] == [True, True, False]  # maps of 3x3 are not halved again
    assert [norm.momentum for norm in net.modules() if isinstance(norm, nn.BatchNorm2d)] == [0.4] * 10


def test_dirac_begins_by_passing_channels_on() -> None:
    first = network(**{"network.width": 30}).blocks[1].first
    x = torch.randn(1, 24, 8, 8)
    assert torch.allclose(first(x)[:, :24], x)
    assert not torch.allclose(first.weight[24:], torch.zeros(6, 24, 3, 3))


@pytest.mark.parametrize("mode", ["greedy", "parallel", "end-to-end", "untrained"])
def test_the_whitening_layer_is_fixed_and_a_depth_like_any_other(mode: str, tmp_path: Path) -> None:
    path = make_run(tmp_path / "run.h5", **PAIRED, mode=mode)
    with RunFile(path) as run:
        list(run.verify())
        assert list(run.depths) == [0, 1, 2, 3]
        trained = {"greedy": [2, 3], "parallel": [2, 3], "end-to-end": [3], "untrained": []}[mode]
        assert run.trained_depths == trained
        weight = torch.from_numpy(run.weights("blocks", 1)["weight"])
        stem = WhiteningStem(1)
        data = load_dataset("digits", holdout=0.1)
        stem.whiten(
            normalise(torch.from_numpy(run.images("train")[:]), torch.tensor(data.mean), torch.tensor(data.std))
        )
        assert torch.allclose(weight, stem.weight, atol=1e-4)
        for j in (2, 3):
            weights = run.weights("blocks", j)
            assert np.array_equal(weights["first_norm.weight"], np.ones_like(weights["first_norm.weight"]))
            assert np.any(weights["first_norm.bias"]) == (mode != "untrained")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"network.k": 1}, "network.k is 1, but must be 2, 3 or 4, since the blocks are paired convolutions"),
        ({"network.depth": 1}, "network.depth is 1, but must be at least 2: block 1 is the whitening layer"),
        ({"network.batch_norm": "off"}, "network.batch_norm is 'off', but must be auto or on, since"),
        ({"network.activation": "relu"}, "network.activation is 'relu', but must be gelu, since the network is paired"),
        ({"network.norm_momentum": 0.0}, r"network.norm_momentum is 0.0, but must be a number in \(0, 1\]"),
        ({"network.architecture": "plain"}, "network.activation is 'gelu', but must be relu where blocks are plain"),
    ],
)
def test_what_paired_networks_do_not_have_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        small_config(**PAIRED | fields)


def test_images_too_small_for_so_many_blocks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="block 4 of paired convolutions has no maps left of images of 8x8"):
        make_run(tmp_path / "run.h5", **PAIRED | {"network.depth": 4})
