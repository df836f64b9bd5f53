"""Each image has values of its own, whatever shares its batch; a network that gives it others is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from foreign_networks import SmallNet
from torch import Tensor, nn
from torch.nn import functional as F

from layerwise.errors import UserError
from layerwise.extraction.forms import Convention
from layerwise.extraction.independence import FirstRow, require_own_values, two_images
from layerwise.extraction.layer_selection import choose
from layerwise.extraction.layers import trace


def check(net: nn.Module, layers: str = "auto") -> None:
    net.eval()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x, first = torch.randn(2, 1, 8, 8), FirstRow()
        found = trace(net, x, Convention(), beside=first.keep)
        require_own_values(net, x, first, found, choose(net, found, layers))


class Function(nn.Module):
    """A layer that is a function of its input, and keeps nothing."""

    def __init__(self, function: Any):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Counting(nn.Module):
    """Changes with every call, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class Stubborn(nn.Dropout):
    """Does not follow eval()."""

    def train(self, mode: bool = True) -> Stubborn:
        return super().train(True)


def behind(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), layer, nn.Conv2d(4, 2, 3))


BATCH, CHANCE = "depends on the other images of its batch", "draws at random or changes from call to call"


@pytest.mark.parametrize(
    ("layer", "why", "remedy"),
    [
        (nn.BatchNorm2d(4, track_running_stats=False), BATCH, "Build it with track_running_stats=True"),
        (Function(lambda x: x - x.mean(0)), BATCH, "Mend it so that eval"),
        (
            Function(lambda x: F.batch_norm(x, None, None, training=True)),
            BATCH,
            "F.batch_norm take training=self.train",
        ),
        (Function(lambda x: F.dropout(x, 0.1)), CHANCE, "F.dropout and"),
        (Function(lambda x: x + 0.1 * torch.randn_like(x)), CHANCE, "Mend it so that eval"),
        (Stubborn(0.2), CHANCE, "It stays in training mode when eval"),
        (Counting(), CHANCE, "Mend it"),
    ],
)
def test_a_layer_that_gives_one_image_two_values_is_named(layer: nn.Module, why: str, remedy: str) -> None:
    with pytest.raises(UserError, match=rf"^layer 1 \({type(layer).__name__}\), .* {why}.*so do 1, 2. .*{remedy}"):
        check(behind(layer))


def test_layers_before_it_and_those_that_forget_it_can_be_read() -> None:
    check(behind(nn.BatchNorm2d(4, track_running_stats=False)), "0")
    with pytest.raises(UserError, match="so do 2. "):
        check(behind(nn.BatchNorm2d(4, track_running_stats=False)), "0,2")


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm2d(4), nn.Dropout(), nn.InstanceNorm2d(4), nn.GroupNorm(2, 4), Function(torch.sign), nn.RReLU()],
)
def test_layers_that_treat_each_image_alone_are_taken(layer: nn.Module) -> None:
    check(behind(layer))
    check(SmallNet())


def test_a_layer_that_is_called_for_some_batches_alone_is_named() -> None:
    class Hurried(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 2, 3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.b(x) if len(x) > 1 else x

    with pytest.raises(UserError, match="layer b .* depends on the other images of its batch"):
        check(Hurried())


def test_the_second_image_is_another_one() -> None:
    x = torch.zeros(4, 1, 2, 2)
    x[2] = 1
    assert two_images(x).flatten(1).sum(1).tolist() == [0, 4]
    assert two_images(x[:2]).shape == (2, 1, 2, 2) and two_images(x[:1]).shape == (1, 1, 2, 2)
