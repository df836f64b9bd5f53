"""The network: independent random streams, normalisation, depths in order."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.config import NetworkConfig
from layerwise.model.network import LayerwiseNetwork, freeze
from layerwise.model.seeds import derive_seed, initialised


def network(depth: int = 3, seed: int = 0, k: int = 2) -> LayerwiseNetwork:
    config = NetworkConfig(depth=depth, width=4, k=k, aux_width=6, downsample=(2,))
    return LayerwiseNetwork(config, (3, 8, 8), 5, (0.5, 0.4, 0.3), (0.2, 0.1, 0.3), seed)


def test_seeds_differ_by_run_purpose_and_depth() -> None:
    seeds = {derive_seed(s, p, j) for s in (0, 1) for p in ("block", "auxiliary", "order 0") for j in range(4)}
    assert len(seeds) == 24
    assert derive_seed(3, "block", 1) == derive_seed(3, "block", 1)


def first_filters(width: int, seeding: int) -> torch.Tensor:
    config = NetworkConfig(depth=1, width=width, k=1, aux_width=1, seeding=seeding)
    weight: torch.Tensor = LayerwiseNetwork(config, (3, 8, 8), 5, (0.5,) * 3, (0.2,) * 3, 0).blocks[0].conv.weight
    return weight[:4].detach()


def test_a_narrow_network_is_no_part_of_a_wide_one_but_in_runs_of_earlier_versions() -> None:
    assert torch.equal(first_filters(4, seeding=1), first_filters(8, seeding=1))
    assert not torch.allclose(first_filters(4, seeding=2), first_filters(8, seeding=2), atol=0.01)
    assert derive_seed(0, "order 0", 1) == derive_seed(0, "order 0", 1, width=0) != derive_seed(0, "order 0", 1, 8)


def test_a_block_starts_the_same_whatever_comes_after_it() -> None:
    shallow, deep = network(depth=2), network(depth=3)
    for a, b in zip(shallow.blocks, deep.blocks, strict=False):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    other = network(depth=2, seed=1)
    assert not torch.equal(shallow.blocks[0].conv.weight, other.blocks[0].conv.weight)


def test_building_a_module_leaves_the_global_random_stream_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    initialised(0, lambda: nn.Linear(3, 3))
    assert torch.equal(torch.rand(3), expected)


def test_x_0_is_the_image_standardised_a_channel() -> None:
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.1, 0.3]).view(3, 1, 1)
    torch.testing.assert_close(network().normalise(images), (images / 255 - mean) / std)


def test_depths_have_the_shapes_announced_and_follow_one_another() -> None:
    net = network()
    freeze(net)
    x = net.normalise(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    for j in range(1, 4):
        step = net.advance(net.advance(x, 0, j - 1), j - 1, j)
        assert torch.equal(net.advance(x, 0, j), step)
        assert step.shape[1:] == net.shapes[j]
        assert net.auxiliaries[j - 1](step).shape == (2, 5)


def test_the_auxiliarys_width_doubles_with_the_blocks() -> None:
    assert [a.convs[0].out_channels for a in network().auxiliaries] == [6, 12, 12]


def test_without_batch_norm_the_first_convolution_alone_has_a_bias() -> None:
    assert [block.conv.bias is not None for block in network(k=1).blocks] == [True, False, False]
    assert [block.conv.bias is not None for block in network(k=2).blocks] == [False, False, False]


def test_frozen_means_no_gradient_and_eval_mode() -> None:
    net = network()
    freeze(net)
    assert not any(p.requires_grad for p in net.parameters())
    assert not any(m.training for m in net.modules())


@pytest.mark.parametrize("initialisation", ["default", "kaiming", "orthogonal"])
def test_initialisations_have_the_statistics_they_are_named_for(initialisation: str) -> None:
    module = initialised(0, lambda: nn.Conv2d(32, 64, 3), initialisation)
    weight, bias = module.weight.detach(), module.bias.detach()
    assert torch.equal(bias, initialised(0, lambda: nn.Conv2d(32, 64, 3)).bias.detach())
    if initialisation == "default":  # uniform in +-1 / sqrt(fan in)
        assert float(weight.abs().max()) <= (32 * 9) ** -0.5
        assert float(weight.std()) == pytest.approx((32 * 9) ** -0.5 / 3**0.5, rel=0.02)
    elif initialisation == "kaiming":  # normal with variance 2 / fan out
        assert float(weight.std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    else:
        rows = weight.flatten(1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(64), rtol=1e-4, atol=1e-5)


def test_the_configured_initialisation_reaches_blocks_and_auxiliaries() -> None:
    config = NetworkConfig(depth=1, width=4, k=2, aux_width=4, initialisation="orthogonal")
    net = LayerwiseNetwork(config, (3, 8, 8), 5, (0.5,) * 3, (0.2,) * 3, 0)
    for conv in (net.blocks[0].conv, net.auxiliaries[0].convs[0]):
        rows = conv.weight.detach().flatten(1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(4), rtol=1e-4, atol=1e-5)
