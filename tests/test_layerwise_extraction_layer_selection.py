"""What auto takes: the output of each stage, of networks whose stages are known and of any other."""

from __future__ import annotations

import pytest
import torch
from foreign_networks import SmallNet, Transformer
from torch import nn

from layerwise.errors import UsageError, UserError
from layerwise.extraction.forms import Convention
from layerwise.extraction.layer_selection import choose
from layerwise.extraction.layers import Layer, trace
from layerwise.extraction.models.spec import build, convention_of
from layerwise.model.network import freeze


def layers_of(model: nn.Module, *size: int, convention: Convention | None = None) -> list[Layer]:
    freeze(model)
    return trace(model, torch.randn(2, *size), convention or Convention())


def names(layers: list[Layer]) -> list[str]:
    return [layer.name for layer in layers]


@pytest.mark.parametrize(
    ("spec", "size", "expected"),
    [
        ("resnet18", 32, ["maxpool", "layer1", "layer2", "layer3", "layer4"]),
        ("shufflenet_v2_x0_5", 32, ["conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"]),
        ("regnet_y_400mf", 32, ["stem", *(f"trunk_output.block{i}" for i in (1, 2, 3, 4))]),
        ("mobilenet_v2", 32, ["features.1", "features.3", "features.6", "features.13", "features.18"]),
    ],
)
def test_auto_takes_the_output_of_each_stage(spec: str, size: int, expected: list[str]) -> None:
    model = build(f"torchvision:{spec}", {}, 0).module
    found = layers_of(model, 3, size, size, convention=convention_of(model, "patch"))
    assert names(choose(model, found, "auto")) == expected


def test_auto_takes_the_blocks_of_transformers() -> None:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(
        image_size=8, patch_size=4, num_layers=3, num_heads=1, hidden_dim=8, mlp_dim=8, num_classes=2
    )
    found = layers_of(model, 3, 8, 8, convention=convention_of(model, "patch"))
    chosen = choose(model, found, "auto")
    assert names(chosen) == [f"encoder.layers.encoder_layer_{i}" for i in range(3)]
    assert {layer.form.kind for layer in chosen if layer.form} == {"patch tokens"}


def test_auto_takes_what_timm_lists() -> None:
    import timm

    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2)
    assert names(choose(model, layers_of(model, 3, 32, 32), "auto")) == ["blocks.0", "blocks.1"]
    model = timm.create_model("resnet10t")
    chosen = names(choose(model, layers_of(model, 3, 32, 32), "auto"))
    assert chosen[1:] == ["layer1", "layer2", "layer3", "layer4"] and len(chosen) == 5


def test_stages_that_timm_lists_but_cannot_be_read_are_sought_among_the_children() -> None:
    net = SmallNet()
    net.feature_info = [{"module": "nowhere"}]  # type: ignore[assignment]
    assert names(choose(net, layers_of(net, 1, 8, 8), "auto"))[0] == "conv1"


def test_auto_takes_the_children_of_any_other_network_but_for_its_classifier() -> None:
    for net, expected in (
        (SmallNet(), ["conv1", "norm", "relu:1", "conv2", "relu:2"]),
        (Transformer(), ["embed", "blocks.0", "blocks.1"]),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 5), nn.Linear(5, 2)), ["0", "1", "2"]),
    ):
        assert names(choose(net, layers_of(net, 1, 8, 8), "auto")) == expected


@pytest.mark.parametrize("body", ["features", "layers"])
def test_a_body_that_is_never_called_is_no_body(body: str) -> None:
    net = SmallNet()
    setattr(net, body, nn.Sequential(nn.Linear(2, 2)))
    assert names(choose(net, layers_of(net, 1, 8, 8), "auto")) == ["conv1", "norm", "relu:1", "conv2", "relu:2"]


def test_a_network_without_any_stage_says_so() -> None:
    net = nn.Sequential(nn.Flatten(0))
    with pytest.raises(UserError, match="no stage of this network could be found. Name --layers"):
        choose(net, layers_of(net, 1, 2, 2), "auto")


def test_names_are_those_of_select() -> None:
    net = SmallNet()
    assert names(choose(net, layers_of(net, 1, 8, 8), "conv2")) == ["conv2"]


def test_a_module_that_is_never_called_is_told_from_one_that_is_not_there() -> None:
    net = Transformer()
    found = layers_of(net, 1, 8, 8)
    with pytest.raises(UsageError, match="layer blocks.0.self_attn.out_proj is never called when the network is run"):
        choose(net, found, "blocks.0.self_attn.out_proj")
    with pytest.raises(UsageError, match="no layer is named or matches 'blocks.9'"):
        choose(net, found, "blocks.9")
