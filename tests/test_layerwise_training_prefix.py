"""The frozen prefix: folded, it computes what the blocks do; recomputed, its batches are those of the plain loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import small_config
from torch import Tensor, nn

from layerwise.datasets import load_dataset
from layerwise.model.network import LayerwiseNetwork, freeze
from layerwise.model.seeds import derive_seed
from layerwise.training import prefix
from layerwise.training.batches import DeviceSplit, augment
from layerwise.training.prefix import FrozenPrefix, folded
from layerwise.training.stage_batches import Recomputed

DATA = load_dataset("digits", holdout=0.1)
CPU = torch.device("cpu")


def frozen_network(**fields: Any) -> LayerwiseNetwork:
    """Return a network of three blocks whose BatchNorms have seen images, frozen."""
    config = small_config(**{"network.depth": 3, "network.downsample": (2,)} | fields).network
    net = LayerwiseNetwork(config, DATA.image_shape, 10, DATA.mean, DATA.std, 0)
    generator = torch.Generator().manual_seed(0)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.weight.data.uniform_(-1, 2, generator=generator)
        norm.bias.data.normal_(generator=generator)
    for _ in range(3):
        net.advance(net.normalise(images(100)), 0, 3)
    freeze(net)
    return net


def images(n: int) -> Tensor:
    return torch.from_numpy(DATA.splits["train"].images[:n])


@pytest.mark.parametrize("fields", [{"network.k": 1}, {"network.k": 2}, {"network.k": 1, "network.batch_norm": "on"}])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_folded_blocks_compute_what_the_blocks_compute(fields: dict[str, Any], depth: int) -> None:
    net = frozen_network(**fields)
    with torch.no_grad():
        expected = net.advance(net.normalise(images(20)), 0, depth)
    found = FrozenPrefix(net, depth, "fp32")(images(20))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_it_is_near_and_needs_no_autocast() -> None:
    net = frozen_network()
    rounded = FrozenPrefix(net, 3, "bf16")
    found, exact = rounded(images(20)), FrozenPrefix(net, 3, "fp32")(images(20))
    assert found.dtype == rounded.dtype == torch.bfloat16
    assert float((found.float() - exact).norm() / exact.norm()) < 0.02
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(rounded(images(20)), found)


def test_the_block_that_is_folded_keeps_every_bit() -> None:
    net = frozen_network()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    x = FrozenPrefix(net, 3, "fp32")(images(20))
    assert not x.requires_grad
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert folded(net.blocks[0]).weight.data_ptr() != net.blocks[0].conv.weight.data_ptr()


def test_a_block_that_still_trains_is_not_folded() -> None:
    net = frozen_network()
    net.blocks[1].train()
    with pytest.raises(AssertionError, match="Fusion only for eval"):
        FrozenPrefix(net, 2, "fp32")


@pytest.mark.parametrize("views", [0, 3])
def test_fixed_views_come_again_and_nothing_else_does(views: int) -> None:
    config = small_config(**{"training.views": views, "training.crop_padding": 2, "training.flip": True})
    data = {"train": DeviceSplit(DATA.splits["train"], CPU)}
    source = Recomputed(data, FrozenPrefix(frozen_network(), 0, "fp32"), config, 1)

    def epoch(e: int) -> list[bytes]:
        """Return the images of an epoch, sorted, so that their order does not count."""
        return sorted(image.numpy().tobytes() for x, _ in source.batches(e) for image in x)

    first = [x for x, _ in source.batches(1)]
    assert all(torch.equal(a, b) for a, (b, _) in zip(first, source.batches(1), strict=True))
    assert {e for e in range(1, 7) if epoch(e) == epoch(0)} == ({3, 6} if views else set())
    if views:  # the same images in another order
        assert not all(torch.equal(a, b) for (a, _), (b, _) in zip(source.batches(0), source.batches(3), strict=True))


@pytest.mark.parametrize("at_once", [1, 3])
def test_without_views_the_batches_are_those_of_the_plain_loop(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Order and draws come from one stream, however many batches are made at once."""
    config = small_config(**{"training.crop_padding": 1, "training.flip": True})
    split = DeviceSplit(DATA.splits["train"], CPU)
    net = frozen_network()
    source = Recomputed({"train": split}, FrozenPrefix(net, 0, "fp32"), config, 2)
    generator = torch.Generator().manual_seed(derive_seed(0, "order 5", 2))
    n = len(split)
    order = torch.randperm(n, generator=generator)
    offsets, flips = torch.randint(0, 3, (2, n), generator=generator), torch.rand(n, generator=generator) < 0.5
    size = config.training.batch_size
    monkeypatch.setattr(prefix, "AT_ONCE", at_once * size * 64 + 1)
    parts = zip(order.split(size), offsets[0].split(size), offsets[1].split(size), flips.split(size), strict=True)
    for (x, y), (rows, *draws) in zip(source.batches(5), parts, strict=True):
        images = augment(split.images[rows], torch.stack(list(draws)), 1)
        assert torch.equal(x, net.normalise(images))
        assert torch.equal(y, split.label[rows])
