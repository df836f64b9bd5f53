"""Where channels stand, layer by layer, in networks that mix both orders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from layerwise.extraction.axes import Axes
from layerwise.extraction.forms import Convention, grids_of
from layerwise.extraction.layers import trace
from layerwise.extraction.models.spec import convention_of
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
    import timm

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


class Function(nn.Module):
    """A layer that is a function of its input, and of which nothing can be known but what it returns."""

    def __init__(self, function: Any):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Block(nn.Module):
    """A residual block on [n, H, W, C], as transformers of images write it."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.norm(x))


class DataFormatNorm(nn.Module):
    """A norm that calls its axes as the first ConvNeXt does."""

    def __init__(self, width: int):
        super().__init__()
        self.normalized_shape, self.data_format = (width,), "channels_first"

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)


def first_last(*layers: nn.Module, size: tuple[int, int] = (6, 10), layout: str = "auto") -> list[str]:
    """Return, for each layer behind a convolution to 5 channels, F or L, with ? for a guess; - where there are none."""
    model = nn.Sequential(nn.Conv2d(3, 5, 1), *layers)
    freeze(model)
    x = torch.randn(2, 3, *size)
    found = trace(model, x, Convention(layout=layout, grids=grids_of(*size)), is_image=True)
    own = [layer.form for layer in found if layer.name in {str(i) for i in range(1, 1 + len(layers))}]
    letters = {"maps": "F", "maps, channels last": "L"}
    return ["-" if f is None else letters.get(f.kind, f.kind) + "?" * f.is_guess for f in own]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([Function(lambda x: x.permute(0, 2, 3, 1))], "L"),
        ([Function(lambda x: x.permute(0, 2, 3, 1).contiguous())], "L"),
        ([Function(lambda x: x.permute(0, 2, 3, 1).contiguous()), nn.GELU(), nn.Linear(5, 7), nn.ReLU()], "LLLL"),
        ([Function(lambda x: x.permute(0, 2, 3, 1)), Block(5), Block(5), Function(lambda x: 2 * x)], "LLLL"),
        ([Function(lambda x: x.permute(0, 2, 3, 1) + 1), Block(5)], "LL"),  # told by what reads it
        ([Function(lambda x: x.permute(0, 2, 3, 1) + 1), Function(lambda x: x.permute(0, 3, 1, 2))], "LF"),  # by sides
        ([nn.Linear(10, 10)], "F"),  # mixes the pixels of a row: the convolution's channels stay first
        ([nn.LayerNorm([5, 6, 10])], "F"),
        ([nn.LayerNorm([6, 10])], "F"),
        ([DataFormatNorm(5)], "F"),
        ([nn.Sequential(nn.ReLU(), Function(lambda x: x.permute(0, 2, 3, 1)))], "L"),
        ([Function(lambda x: x[..., :4, :6].repeat(1, 2, 1, 1))], "F?"),  # 10 x 4 x 6: nothing tells
    ],
)  # fmt: skip
def test_axes_follow_the_values_and_what_reads_them(layers: list[nn.Module], expected: str) -> None:
    assert "".join(first_last(*layers)) == expected


def test_the_values_are_those_that_were_said() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 1), Function(lambda x: x.permute(0, 2, 3, 1).contiguous()), Block(5))
    freeze(model)
    x = torch.randn(2, 3, 6, 10)
    (layer,) = (y for y in trace(model, x, Convention(grids=grids_of(6, 10)), is_image=True) if y.name == "2")
    assert layer.form is not None and layer.form.shape == (5, 6, 10)
    torch.testing.assert_close(layer.form.maps(model(x)), model(x).permute(0, 3, 1, 2), rtol=0, atol=0)


def test_layout_overrules_all_but_what_can_only_be_otherwise() -> None:
    layers = [
        Function(lambda x: x.permute(0, 2, 3, 1)),
        nn.GELU(),
        Function(lambda x: x.permute(0, 3, 1, 2)),
        nn.BatchNorm2d(5),
    ]
    assert first_last(*layers) == ["L", "L", "F", "F"]
    assert first_last(*layers, layout="channels-first") == ["F", "F", "F", "F"]
    assert first_last(*layers, layout="channels-last") == ["L", "L", "L", "F"]


def test_sequences_are_told_from_tokens() -> None:
    found = first_last(
        nn.Flatten(2), nn.Conv1d(5, 4, 1), Function(lambda x: x.transpose(1, 2)), nn.LayerNorm(4), nn.Linear(4, 4)
    )
    assert found == ["F", "F", "patch tokens", "patch tokens", "patch tokens"]


class Oblong(nn.Module):
    """A transformer whose class token and 3 x 5 patches are as many as 4 x 4; it says nothing of itself."""

    def __init__(self, says: bool):
        super().__init__()
        self.embed, self.block = nn.Conv2d(3, 4, 2, stride=2), nn.LayerNorm(4)
        token = torch.randn(1, 1, 4)
        self.register_buffer("cls_token" if says else "token", token)

    def forward(self, x: Tensor) -> Tensor:
        token = self.cls_token if hasattr(self, "cls_token") else self.token
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.block(torch.cat([token.expand(len(x), -1, -1), x], 1))[:, 0]


@pytest.mark.parametrize("size", [(6, 10), (7, 11)])
@pytest.mark.parametrize("says", [True, False])
def test_the_maps_before_a_transformer_are_its_grid(says: bool, size: tuple[int, int]) -> None:
    model = Oblong(says)
    freeze(model)
    found = trace(model, torch.randn(2, 3, *size), replace(convention_of(model, "patch"), grids=grids_of(*size)))
    form = {layer.name: layer.form for layer in found}["block"]
    assert form is not None and (form.kind, form.prefix, form.shape) == ("patch tokens", 1, (4, 3, 5))
