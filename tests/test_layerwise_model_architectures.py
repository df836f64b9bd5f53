"""Tests of VGG-11 trained layerwise: its layers are torchvision's, its auxiliaries those of the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layerwise.config import RunConfig
from layerwise.errors import UsageError, UserError
from layerwise.export import export_run
from layerwise.model import counts as measured
from layerwise.model.architectures import network_shapes, new_auxiliary, new_block
from layerwise.model.blocks import AuxiliaryClassifier, VggHead
from layerwise.model.counts import count_problems, measure
from layerwise.model.network import LayerwiseNetwork, freeze
from layerwise.recipes import vgg11
from layerwise.runfile import RunFile
from layerwise.runfile.place import Place
from layerwise.settings import set_fields
from layerwise.training.prefix import FrozenPrefix
from layerwise.training.replacement import replaced
from layerwise.training.run import train_run

SMALL = {"network.width": 2, "network.aux_width": 4, "data.image_size": 160, "precision": "fp32"}


@pytest.fixture(autouse=True)
def small_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the last auxiliary 8 hidden values instead of 4096, which take a second each time they are drawn."""
    monkeypatch.setattr(VggHead, "HIDDEN", 8)
    measured.measure.cache_clear()


def config(**fields: Any) -> RunConfig:
    return set_fields(vgg11(), SMALL | fields)


def blocks_of(net: RunConfig, image: tuple[int, int, int]) -> list[nn.Module]:
    shapes = network_shapes(net.network, image)
    return [new_block(net.network, j, shapes[j - 1]) for j in range(1, 9)]


def test_its_layers_are_those_of_torchvisions_vgg11() -> None:
    from torchvision.models import vgg11_bn

    theirs, ours = vgg11_bn().features, blocks_of(vgg11(), (3, 224, 224))
    convs = [layer for layer in theirs if isinstance(layer, nn.Conv2d)]
    assert [block.conv.weight.shape for block in ours] == [conv.weight.shape for conv in convs]  # type: ignore[union-attr]
    norms = [layer for layer in theirs if isinstance(layer, nn.BatchNorm2d)]
    for block, conv, norm in zip(ours, convs, norms, strict=True):
        conv.load_state_dict(block.conv.state_dict())  # type: ignore[union-attr]
        norm.load_state_dict(block.norm.state_dict())  # type: ignore[union-attr]
    x = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        expected = theirs[:-1].eval()(x)  # its last max-pool belongs to the last auxiliary
        found = nn.Sequential(*ours).eval()(x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_shapes_are_those_of_vgg_a() -> None:
    sides = [224, 112, 56, 56, 28, 28, 14, 14]
    expected = [(c, s, s) for c, s in zip([64, 128, 256, 256, 512, 512, 512, 512], sides, strict=True)]
    assert network_shapes(vgg11().network, (3, 224, 224)) == [(3, 224, 224), *expected]
    assert [vgg11().network.aux_width_at(j) for j in range(1, 9)] == [128, 256, 512, 512, 1024, 1024, 1024, 1024]


def test_the_last_auxiliary_is_the_classifier_of_vgg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with torch.device("meta"):
        from torchvision.models import vgg11 as their_vgg11

        theirs = [layer for layer in their_vgg11().classifier if isinstance(layer, nn.Linear)]
        head = new_auxiliary(vgg11().network, 8, (512, 14, 14), 1000)
    ours = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    assert [layer.weight.shape for layer in ours] == [layer.weight.shape for layer in theirs]
    assert not any(isinstance(layer, nn.Dropout) for layer in head.modules())


def test_it_pools_before_it_reads() -> None:
    head, x = VggHead((3, 10, 10), 4), torch.randn(2, 3, 10, 10)
    pooled = F.max_pool2d(x, 2).flatten(1)  # 5x5 is smaller than 7x7, and read as it is
    torch.testing.assert_close(head(x), head.layers(pooled))
    assert head.layers[0].in_features == 75


def test_the_others_read_half_the_resolution_by_two_convolutions_without_padding() -> None:
    auxiliary = new_auxiliary(config().network, 5, (16, 20, 20), 10).eval()
    assert isinstance(auxiliary, AuxiliaryClassifier) and auxiliary.norms is not None and auxiliary.pooled_norm
    x = torch.randn(3, 16, 20, 20)
    y = F.avg_pool2d(x, 2)
    for conv, norm in zip(auxiliary.convs, auxiliary.norms, strict=True):
        y = F.relu(norm(F.conv2d(y, conv.weight)))
    assert y.shape == (3, 32, 6, 6)
    y = auxiliary.linear(auxiliary.pooled_norm(F.adaptive_avg_pool2d(y, 2)).flatten(1))
    torch.testing.assert_close(auxiliary(x), y)


def test_frozen_blocks_are_folded_with_their_max_pools() -> None:
    network = LayerwiseNetwork(config().network, (3, 160, 160), 10, (0.5,) * 3, (0.5,) * 3, 0)
    freeze(network)
    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    with torch.no_grad():
        expected = network.advance(network.normalise(images), 0, 7)
    torch.testing.assert_close(FrozenPrefix(network, 7, "fp32")(images), expected, rtol=1e-3, atol=1e-4)


def test_operations_are_those_of_its_convolutions() -> None:
    problems = count_problems(config().network, (3, 160, 160), 10)
    shapes = network_shapes(config().network, (3, 160, 160))
    for j, problem in enumerate(problems, start=1):
        channels, height, width = shapes[j]
        assert problem.block.operations == 2 * 9 * shapes[j - 1][0] * channels * height * width
        assert problem.learning == 2 * problem.block.operations
        assert problem.block.parameters == 9 * shapes[j - 1][0] * channels + 3 * channels  # a bias, and BatchNorm's two
    counted = measure(config().network, (3, 160, 160), 10)[0][0]
    # Its convolution's input and output, and BatchNorm's output, which relu keeps.
    assert counted.saved == (3 + 2 + 2) * 160 * 160


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("network.depth", 5, r"network.depth is 5, but must be 8, since the network is vgg11."),
        ("network.k", 2, r"network.k is 2, but must be 3, since the network is vgg11."),
        ("network.downsample", (2,), r"network.downsample is \(2,\), but must be \(2, 3, 5, 7\), since"),
        ("network.prune_to", 1, r"network.prune_to is 1, but must be 0, since the network is vgg11."),
        ("network.last_aux_width", 5, r"network.last_aux_width is 5, but must be 0, since the network is vgg11."),
    ],
)
def test_what_it_is_not(field: str, value: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(**{field: value})


def test_its_last_auxiliary_is_not_replaced() -> None:
    with pytest.raises(
        UsageError, match="run.h5 is of VGG-11, but --replace-auxiliary is of the paper's plain networks"
    ):
        replaced(config(), 4, Path("run.h5"))


def test_images_that_are_too_small() -> None:
    with pytest.raises(UserError, match=r"block 7 of vgg11 makes maps of 9x9 from images of 159x159, .* needs 10x10"):
        network_shapes(vgg11().network, (3, 159, 159))


def test_it_is_trained_on_real_images(some_cifar10: Path, tmp_path: Path) -> None:
    fields = {"data.subset": 80, "training.epochs": 1, "training.batch_size": 20, "training.crop_padding": 4}
    fields |= {"training.crop": "pad"}
    place = Place(out=tmp_path / "run.h5", device=torch.device("cpu"), data_dir=some_cifar10)
    train_run(config(**fields), place)
    with RunFile(place.out) as run:
        assert run.depth_shape(8) == (16, 10, 10) and len(run.depths) == 9
        assert run.config is not None and run.config.network.variant == "VGG-11"
        assert all(0 <= run.scores(j)["test_accuracy"] <= 1 for j in range(1, 9))
        for depth in (3, 8):  # which compares the program with the outputs in the run
            export_run(run, tmp_path / f"{depth}.pt2", depth=depth)
