"""Recipes: complete, documented, and an unknown one answered with the choices."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from torch import nn

from layerwise.config import RunConfig
from layerwise.datasets import Sizes
from layerwise.errors import UsageError
from layerwise.model.architectures import new_block, shapes
from layerwise.model.counts import count_problems
from layerwise.model.seeds import initialised
from layerwise.recipes import RECIPES, recipe
from layerwise.training.operations import count_operations
from layerwise.training.schedule import learning_rate


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_bears_its_name_and_documents_itself(name: str) -> None:
    assert recipe(name).recipe == name
    for word in ("Paper:", "Command: layerwise-train", "Cost:", "Expected:"):
        assert word in (RECIPES[name].__doc__ or "")


def test_an_unknown_recipe_is_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(
        UsageError,
        match=r"unknown recipe 'digit'. Did you mean 'digits'\? Choices: digits, fashion-mnist, cifar10-small, c",
    ):
        recipe("digit")


def widths(config: RunConfig, image: tuple[int, int, int] = (3, 32, 32)) -> list[tuple[int, int]]:
    """Return width and side of the maps of each block."""
    net = config.network
    return [(c, h) for c, h, _ in shapes(image, net.depth, net.width, net.downsample)[1:]]


# The paper's blocks: sections 4.1 to 4.3, and the authors' documented commands where the two differ.
@pytest.mark.parametrize(
    ("name", "k", "aux_width", "blocks"),
    [
        ("cifar10-k1", 1, None, [(256, 32), (256, 32), (512, 16), (1024, 8), (1024, 8)]),
        ("cifar10-k1-text", 1, None, [(256, 32), (512, 16), (512, 16), (1024, 8), (1024, 8)]),
        ("cifar10-k2", 2, 128, [(128, 32), (128, 32), (256, 16), (256, 16)]),
        ("cifar10-k3", 3, 128, [(128, 32), (128, 32), (256, 16), (256, 16)]),
        ("cifar10-k2-text", 2, 256, [(128, 32), (128, 32), (256, 16), (256, 16)]),
        ("cifar10-k3-text", 3, 256, [(128, 32), (128, 32), (256, 16), (256, 16)]),
        ("separability", 2, 256, [(64, 32)] * 5),
    ],
)
def test_the_papers_networks(name: str, k: int, aux_width: int | None, blocks: list[tuple[int, int]]) -> None:
    config = recipe(name)
    assert widths(config) == blocks
    assert config.network.k == k
    assert config.network.has_batch_norm == (k > 1)
    assert aux_width is None or config.network.aux_width == aux_width
    training = config.training
    assert (training.epochs, training.batch_size, training.learning_rate) == (50, 128, 0.1)
    assert (training.lr_factor, training.lr_every, training.momentum) == (0.2, 15, 0.9)
    assert (training.weight_decay, training.crop_padding, training.flip) == (5e-4, 4, True)
    assert (config.data.dataset, config.data.subset) == ("cifar10", 0)


def test_the_papers_compressed_network_ends_as_the_one_that_stands_beside_it_end_to_end() -> None:
    """Section 4.3: 128 filters pruned to 64, M_f = 64; five convolutions of 64 filters, 120 epochs, a drop every 25."""
    pruned, whole = recipe("cifar10-compressed"), recipe("cifar10-compressed-end-to-end")
    assert widths(pruned) == [(128, 32)] * 3
    network = pruned.network
    assert (network.k, network.aux_width, network.last_aux_width, network.prune_to) == (3, 128, 64, 64)
    assert (pruned.training.epochs, pruned.training.finetune_epochs) == (50, 20)
    last, beside = (count_problems(c.network, (3, 32, 32), 10) for c in (pruned, whole))
    assert [p.block for p in last] == [p.block for p in beside]
    assert last[-1].auxiliary == beside[-1].auxiliary
    assert widths(whole) == [(64, 32)] * 3
    assert (whole.mode, whole.training.epochs, whole.training.lr_every) == ("end-to-end", 120, 25)


IMAGENET = ("imagenet-k1", "imagenet-k2", "imagenet-k3", "vgg11")


@pytest.mark.parametrize(
    ("name", "k", "channels", "sides"),
    [
        ("imagenet-k1", 1, [256, 256, 512, 1024, 2048, 2048, 4096, 4096], [112, 112, 56, 28, 14, 14, 7, 7]),
        ("imagenet-k2", 2, [128, 128, 256, 256, 512, 512, 1024, 1024], [112, 112, 56, 56, 28, 28, 14, 14]),
        ("imagenet-k3", 3, [128, 128, 256, 256, 512, 512, 1024, 1024], [112, 112, 56, 56, 28, 28, 14, 14]),
    ],
)
def test_the_papers_networks_for_imagenet(name: str, k: int, channels: list[int], sides: list[int]) -> None:
    """By the text: M~ = 256 and M_f = 2048 at k > 1; at k = 1 a bias in every convolution, as in the authors' code."""
    config = recipe(name)
    net = config.network
    assert widths(config, (3, 224, 224)) == list(zip(channels, sides, strict=True))
    assert (net.k, net.average, net.has_batch_norm, net.conv_bias) == (k, 2, k > 1, "auto" if k > 1 else "on")
    assert [net.has_bias(j) for j in range(1, 9)] == [k == 1] * 8
    assert k == 1 or (net.aux_width_at(1), net.aux_width_at(8)) == (256, 2048)
    rates = [learning_rate(config.training, epoch) for epoch in range(45)]
    assert rates == pytest.approx([0.1] * 20 + [0.01] * 20 + [0.001] * 5)


@pytest.mark.parametrize("name", IMAGENET)
def test_views_and_constants_of_imagenet(name: str) -> None:
    config = recipe(name)
    data, training = config.data, config.training
    assert (data.image_size, data.eval_resize) == (224, 256)
    assert (data.mean, data.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (training.crop, training.crop_scale, training.crop_ratio) == ("random-resized", (0.08, 1), (3 / 4, 4 / 3))
    assert (training.batch_size, training.momentum, training.weight_decay, training.flip) == (256, 0.9, 1e-4, True)


def costs() -> list[tuple[str, int, float]]:
    """Return (recipe, k, operations) of each cost in operations that a recipe's docstring states."""
    found = []
    for name, make in RECIPES.items():
        stated = re.search(r"Cost: (?:at M = 64: )?([\de., ]+) floating-point", " ".join((make.__doc__ or "").split()))
        if stated:
            numbers = [float(number) for number in stated[1].split(", ")]
            ks = [1, 2, 3] if len(numbers) > 1 else [recipe(name).network.k]
            found += [(name, k, number) for k, number in zip(ks, numbers, strict=True)]
    return found


@pytest.mark.parametrize(("name", "k", "cost"), costs())
def test_the_cost_that_a_recipe_states_is_the_one_that_is_counted(name: str, k: int, cost: float) -> None:
    """Of its documented command, to the two digits that are stated."""
    config = recipe(name)
    config = replace(config, network=replace(config.network, k=k))
    if name in IMAGENET:
        sizes = Sizes((3, 224, 224), 1000, {"train": 1_281_167, "test": 50_000})
        assert float(f"{sum(count_operations(config, sizes).training):.1e}") == cost
        return
    whole = "--holdout 0" in (RECIPES[name].__doc__ or "")
    counts = {"train": 50_000} if whole else {"train": 45_000, "validation": 5_000}
    found = count_operations(config, Sizes((3, 32, 32), 10, counts | {"test": 10_000}))
    assert float(f"{sum(found.training):.1e}") == cost


def test_every_recipe_for_a_gpu_states_its_operations() -> None:
    named = {name for name, _, _ in costs()}
    assert named == {name for name, make in RECIPES.items() if "a GPU" in (make.__doc__ or "")}


def test_vgg11_is_the_authors() -> None:
    """Their code: 44 epochs, drops after 19 and 39; Kaiming fan-out, linear layers N(0, 0.01), biases 0."""
    config = recipe("vgg11")
    rates = [learning_rate(config.training, epoch) for epoch in range(44)]
    assert rates == pytest.approx([0.1] * 19 + [0.01] * 20 + [0.001] * 5)
    network = replace(config.network, width=8, aux_width=16)
    block = initialised(0, lambda: new_block(network, 8, (64, 20, 20)), network.initialisation, network.norm_weight)
    assert block.conv.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.02)
    assert block.conv.bias is not None and not block.conv.bias.any()
    assert 0 <= block.norm.weight.min() < 0.1 and 0.9 < block.norm.weight.max() < 1
    head = initialised(0, lambda: nn.Linear(500, 200), network.initialisation)
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.02) and not head.bias.any()


@pytest.mark.parametrize("name", RECIPES)
def test_the_documented_command_is_of_that_recipe_and_no_line_is_too_long(name: str) -> None:
    lines = (RECIPES[name].__doc__ or "").splitlines()
    (command,) = (line.split() for line in lines if "Command:" in line)
    assert command[2:3] in ([name], [])
    assert max(len(line) for line in lines) <= 80
