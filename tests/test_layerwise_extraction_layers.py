"""Layers: all of them, in the order of execution, each call by itself; which are meant, and what cannot be read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from foreign_networks import Awkward, SmallNet
from torch import nn

from layerwise.errors import UsageError, UserError
from layerwise.extraction.forms import Convention
from layerwise.extraction.layer_selection import matches, select
from layerwise.extraction.layers import Layer, describe_layers, single_tensor, tapped, trace
from layerwise.model.network import freeze


def layers_of(model: nn.Module, *size: int, convention: Convention | None = None) -> list[Layer]:
    freeze(model)
    return trace(model, torch.randn(2, *size), convention or Convention())


def names(layers: list[Layer]) -> list[str]:
    return [layer.name for layer in layers]


def test_layers_come_in_the_order_of_execution_and_calls_are_numbered() -> None:
    found = layers_of(SmallNet(), 1, 8, 8)
    assert names(found) == ["conv1", "norm", "relu:1", "conv2", "relu:2", "fc"]
    assert [layer.shape for layer in found] == [(4, 8, 8)] * 3 + [(6, 4, 4)] * 2 + [(10,)]
    assert [layer.kind for layer in found][:3] == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert [layer.is_output for layer in found] == [False] * 5 + [True]


def test_an_output_is_read_before_the_next_module_writes_into_it() -> None:
    net = SmallNet()
    freeze(net)
    x, seen = torch.randn(2, 1, 8, 8), {}
    expected = net.norm(net.conv1(x))
    assert (expected < 0).any()

    def visit(name: str, call: int, inputs: Any, output: Any) -> None:
        seen[name, call] = output.clone()

    with tapped(net, visit, {"norm", "relu"}):
        net(x)
        net(x)  # calls are counted anew at each pass
    torch.testing.assert_close(seen["norm", 1], expected)
    assert set(seen) == {("norm", 1), ("relu", 1), ("relu", 2)}
    seen.clear()
    net(x)
    assert seen == {}  # the hooks are gone


def test_names_and_patterns_select_in_the_order_of_execution() -> None:
    net = SmallNet()
    found = layers_of(net, 1, 8, 8)
    for asked, chosen in {
        "conv2,conv1": ["conv1", "conv2"],
        "conv*": ["conv1", "conv2"],
        "relu": ["relu:1", "relu:2"],
        "relu:2": ["relu:2"],
        "relu:*, conv?": ["conv1", "relu:1", "conv2", "relu:2"],
        "fc": ["fc"],
    }.items():
        assert names(select(found, asked)) == chosen


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("blocks.1", "blocks.*", True),
        ("blocks.1.mlp", "blocks.*", False),
        ("blocks.1.mlp", "blocks.*.mlp", True),
        ("blocks.1.mlp", "blocks.**", True),
        ("blocks.1.mlp", "**.mlp", True),
        ("mlp", "**.mlp", True),
        ("layer10", "layer?", False),
        ("layer1.0.relu:2", "**.relu:2", True),
        ("blocks", "blocks.*", False),
    ],
)
def test_a_star_stays_within_a_part_of_a_name(name: str, pattern: str, expected: bool) -> None:
    assert matches(name, pattern) == expected


def test_a_name_that_matches_nothing_is_answered_with_the_nearest() -> None:
    net = SmallNet()
    found = layers_of(net, 1, 8, 8)
    with pytest.raises(UsageError) as error:
        select(found, "conv1,conv3")
    assert str(error.value) == (
        "no layer is named or matches 'conv3'. Nearest: conv2, conv1. --list-layers shows all 6."
    )


def test_layers_whose_output_is_no_depth_say_why() -> None:
    net = Awkward()
    found = layers_of(net, 1, 5, 5)
    assert {layer.name: layer.problem for layer in found} == {
        "conv": "",
        "pair": "returns a tuple of 2, no single tensor",
        "merge": "has a first axis that is not that of the images ([4, 3, 3] for 2 images)",
    }
    with pytest.raises(
        UsageError, match="layer pair cannot be read: it returns a tuple of 2, no single tensor. Name an"
    ):
        select(found, "pair")
    with pytest.raises(UsageError, match="layer merge cannot be read: it has a first axis"):
        select(found, "m*")
    assert names(select(found, "*")) == ["conv"]


def test_one_tensor_beside_nones_is_read() -> None:
    x = torch.zeros(2)
    assert single_tensor(x) is x and single_tensor((x, None)) is x and single_tensor([x]) is x
    assert single_tensor((x, x)) is None and single_tensor({"a": x}) is None and single_tensor((None,)) is None


def test_inputs_that_a_network_cannot_take_are_named_with_its_own_words() -> None:
    with pytest.raises(
        UserError, match=r"the network cannot take inputs of 3x8x8: RuntimeError: .*channels.*--image-si"
    ):
        layers_of(SmallNet(), 3, 8, 8)


def test_the_list_shows_name_kind_output_and_how_it_is_read() -> None:
    net = Awkward()
    found = layers_of(net, 1, 5, 5)
    lines = list(describe_layers(found, select(found, "conv")))
    assert lines[0].split() == ["name", "kind", "output", "read", "as"]
    assert lines[1].split() == ["*", "conv", "Conv2d", "2", "x", "3", "x", "3", "maps"]
    assert lines[2].split()[:2] == ["pair", "Pair"] and lines[2].endswith("returns a tuple of 2, no single tensor")
