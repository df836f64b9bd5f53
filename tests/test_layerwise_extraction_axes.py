"""Where channels stand, layer by layer, in networks that mix both orders."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from layerwise.extraction.forms import Axes
from layerwise.extraction.layers import trace
from layerwise.extraction.models import convention_of
from layerwise.model.network import freeze


def kinds_of(model: nn.Module) -> dict[str, str | None]:
    freeze(model)
    found = trace(model, torch.randn(2, 3, 32, 32), convention_of(model, "patch"))
    return {layer.name: layer.form.kind if layer.form else None for layer in found}


def test_axes_are_those_of_each_layer_within_one_network() -> None:
    from torchvision.models import ConvNeXt, SwinTransformer
    from torchvision.models.convnext import CNBlockConfig

    first, last = "maps", "maps, channels last"
    swin = kinds_of(SwinTransformer([2, 2], 8, [1, 1], [2, 2], [2, 2], num_classes=2))
    for name, expected in {
        "features.0.0": first, "features.0.1": last, "features.0.2": last, "features.0": last,
        "features.1.0.attn": last, "features.1.0.mlp.1": last, "features.1": last, "norm": last,
        "permute": first, "avgpool": first,
    }.items():  # fmt: skip
        assert swin[name] == expected, name
    convnext = kinds_of(ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=2))
    block = {"0": first, "1": last, "2": last, "3": last, "4": last, "5": last, "6": first}
    for name, expected in {
        "features.0.1": first, "features.0": first, **{f"features.1.0.block.{i}": kind for i, kind in block.items()},
        "features.1.0.block": first, "features.1.0.stochastic_depth": first, "features.1": first, "avgpool": first,
    }.items():  # fmt: skip
        assert convnext[name] == expected, name


def test_axes_of_timms_networks() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(4, 8, 8, 8), conv_mlp=False, num_classes=2)
    kinds = kinds_of(model)
    assert {kinds[f"stages.0.blocks.0.{name}"] for name in ("norm", "mlp.fc1", "mlp.act", "mlp")} == {
        "maps, channels last"
    }
    assert {kinds[name] for name in ("stem.0", "stem.1", "stages.0.blocks.0.conv_dw", "stages.0", "stages.3")} == {
        "maps"
    }


@pytest.mark.parametrize("default", [False, True])
def test_a_layer_of_unknown_kind_has_the_axes_of_its_input_or_of_the_network(default: bool) -> None:
    axes, x, y = Axes(default), torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4)
    assert axes.are_last(nn.GELU(), (x,), y) == default  # of an input that nobody has returned
    assert axes.are_last(nn.Linear(4, 4), (x,), x)
    assert axes.are_last(nn.GELU(), (x,), torch.randn(2, 4, 4, 4))
    assert axes.are_last(nn.Sequential(), (), x)  # returns what the linear layer did
    assert axes.are_last(nn.Upsample(scale_factor=2), (x,), torch.randn(2, 4, 8, 8)) == default
    assert not axes.are_last(nn.Conv2d(4, 4, 1), (x,), torch.randn(2, 4, 4, 4))
    assert axes.are_last(nn.PReLU(), (x,), torch.randn(2, 4, 4, 4))
    assert axes.are_last(nn.TransformerDecoderLayer(4, 1, 4), (x,), torch.randn(2, 4, 4, 4)) == default  # has layers
    assert axes.are_last(nn.Identity(), (x,), None) == default
