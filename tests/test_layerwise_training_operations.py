"""Parameters and operations: equal to torch's own counts of networks that really train, to the last one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import small_config, train_block, train_network
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from layerwise.config import MATCHED, MODES, RunConfig
from layerwise.datasets import Dataset, Sizes, Split, load_dataset
from layerwise.errors import UsageError
from layerwise.model.counts import count_problems
from layerwise.model.network import LayerwiseNetwork
from layerwise.training.checkpoint import Checkpoint
from layerwise.training.dump import depth_batches
from layerwise.training.loop import DeviceSplit, settle_batch_norm, train
from layerwise.training.operations import (
    TRAINING,
    count_operations,
    match_operations,
    operations_to_epochs,
    pruning_bytes,
    weight_bytes,
)
from layerwise.training.pruning import score_pruning
from layerwise.training.report import Report
from layerwise.training.scoring import score_auxiliaries

# Batches of 64 leave a short last one. Two epochs, so that a count of one epoch would not pass.
COUNTS = {"train": 150, "validation": 70, "test": 30}
IMAGE, N_CLASSES = (1, 8, 8), 10
SIZES = Sizes(IMAGE, N_CLASSES, COUNTS)

NETWORKS: list[dict[str, Any]] = [
    {"network.k": 1, "network.depth": 1},
    {"network.k": 1, "network.depth": 3, "network.downsample": (2, 3)},
    {"network.k": 1, "network.depth": 2, "network.batch_norm": "on"},
    {"network.k": 2, "network.depth": 2},
    {"network.k": 2, "network.depth": 3, "network.downsample": (1, 3), "network.average": 1},
    {"network.k": 2, "network.depth": 1, "network.batch_norm": "off"},
    {"network.k": 3, "network.depth": 2, "network.downsample": (2,)},
    {"network.k": 3, "network.depth": 3, "network.batch_norm": "off", "network.downsample": (1, 2)},
    {"network.k": 3, "network.depth": 2, "network.aux_halving": True},
    {"network.architecture": "paired", "network.activation": "gelu", "network.k": 4, "network.depth": 3},
]
PRUNED: list[dict[str, Any]] = [
    {"network.k": 1, "network.depth": 2, "network.prune_to": 4, "training.finetune_epochs": 3},
    {"network.k": 1, "network.depth": 2, "network.batch_norm": "on", "network.prune_to": 2, "network.average": 1},
    {"network.k": 2, "network.depth": 3, "network.downsample": (1, 3), "network.prune_to": 3},
    {"network.k": 3, "network.depth": 1, "network.last_aux_width": 4, "network.prune_to": 5},
]
by_network = pytest.mark.parametrize("fields", NETWORKS, ids=lambda f: " ".join(map(str, f.values())))


@pytest.fixture(scope="module")
def data() -> Dataset:
    whole = load_dataset("digits", holdout=0.1)
    splits = {
        n: Split(s.images[: COUNTS[n]], s.label[: COUNTS[n]], s.index[: COUNTS[n]]) for n, s in whole.splits.items()
    }
    return replace(whole, splits=splits)


def network(config: RunConfig, data: Dataset) -> LayerwiseNetwork:
    return LayerwiseNetwork(config.network, data.image_shape, len(data.classes), data.mean, data.std, config.seed)


def flops(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def count(config: RunConfig) -> Any:
    return count_operations(config, SIZES)


@by_network
def test_parameters_and_bytes_are_those_of_the_modules(fields: dict[str, Any], data: Dataset) -> None:
    config = small_config(**fields)
    net = network(config, data)
    problems = count_problems(config.network, IMAGE, N_CLASSES)
    for found, modules in (
        ([p.block for p in problems], net.blocks),
        ([p.auxiliary for p in problems], net.auxiliaries),
    ):
        assert [p.parameters for p in found] == [sum(t.numel() for t in m.parameters()) for m in modules]
        assert [p.nbytes for p in found] == [sum(t.nbytes for t in m.state_dict().values()) for m in modules]
    assert [p.shape for p in problems] == net.shapes[1:]
    assert weight_bytes(config, problems) == sum(t.nbytes for t in net.state_dict().values())


@by_network
def test_greedy_training_spends_what_is_counted_for_each_block(fields: dict[str, Any], data: Dataset) -> None:
    config = small_config(**fields)
    net = network(config, data)
    splits = {name: DeviceSplit(split, torch.device("cpu")) for name, split in data.splits.items() if name != "test"}
    found = tuple(
        flops(lambda j=j: train_block(net, splits, config, j))  # type: ignore[misc]
        for j in range(1, config.network.depth + 1)
    )
    assert count(config).training == found


@pytest.mark.parametrize("prefix", ["recompute", "cache"])
@pytest.mark.parametrize("fields", PRUNED, ids=lambda f: " ".join(map(str, f.values())))
def test_pruned_networks_are_counted_to_the_last_operation_and_byte(
    fields: dict[str, Any], prefix: str, data: Dataset
) -> None:
    kept = {"training.crop_padding": 0, "training.prefix": prefix, "training.finetune_epochs": 2}
    config = small_config(**kept | fields)
    net, checkpoint = network(config, data), Checkpoint(None, config, {})
    with Report(2) as report:
        found = flops(lambda: train(net, data, config, checkpoint, report))
    assert sum(count(config).training) == found
    problems = count_problems(config.network, IMAGE, N_CLASSES)
    assert [p.shape for p in problems] == net.shapes[1:]
    assert weight_bytes(config, problems) == sum(t.nbytes for t in net.state_dict().values())
    for p, block, auxiliary in zip(problems, net.blocks, net.auxiliaries, strict=True):
        assert p.block.parameters == sum(t.numel() for t in block.parameters())
        assert p.auxiliary.parameters == sum(t.numel() for t in auxiliary.parameters())
    records = checkpoint.pruned.values()
    assert pruning_bytes(config.network) == sum(r.kept.nbytes + r.saliency.nbytes for r in records)

    def score() -> None:
        score_auxiliaries(net, data, config.heads)
        score_pruning(net, data, checkpoint.pruned)

    assert count(config).scoring == flops(score)


def test_the_width_of_the_last_auxiliary_is_counted_there_alone(data: Dataset) -> None:
    config = small_config(**{"network.depth": 3, "network.k": 3, "network.downsample": (2,)})
    narrow = small_config(
        **{"network.depth": 3, "network.k": 3, "network.downsample": (2,), "network.last_aux_width": 4}
    )
    before, after = (count_problems(c.network, IMAGE, N_CLASSES) for c in (config, narrow))
    assert before[:2] == after[:2]
    assert (before[2].aux_width, after[2].aux_width) == (10, 4)
    auxiliary = network(narrow, data).auxiliaries[2]
    assert after[2].auxiliary.parameters == sum(t.numel() for t in auxiliary.parameters())


@pytest.mark.parametrize("views", [0, 2])
def test_training_with_a_kept_prefix_spends_what_is_counted(views: int, data: Dataset) -> None:
    augmented = {"training.crop_padding": 1, "training.views": views} if views else {"training.crop_padding": 0}
    fields = {"network.depth": 3, "training.epochs": 5, **augmented}
    config = small_config(**fields | {"training.prefix": "cache"})
    found = flops(lambda: train_network(network(config, data), data, config))
    assert sum(count(config).training) == found
    assert found < sum(count(small_config(**fields | {"training.prefix": "recompute"})).training)


def test_without_a_validation_fold_training_spends_less(data: Dataset) -> None:
    config = small_config()
    kept = {name: split for name, split in data.splits.items() if name != "validation"}
    found = flops(lambda: train_network(network(config, data), replace(data, splits=kept), config))
    counts = {name: COUNTS[name] for name in kept}
    assert sum(count_operations(config, Sizes(IMAGE, N_CLASSES, counts)).training) == found
    assert found < sum(count(config).training)


@by_network
def test_an_untrained_network_spends_one_pass_where_it_has_batch_norm(fields: dict[str, Any], data: Dataset) -> None:
    config = small_config(mode="untrained", **fields)
    train = DeviceSplit(data.splits["train"], torch.device("cpu"))
    found = flops(lambda: settle_batch_norm(network(config, data), train))
    assert sum(count(config).training) == found
    assert (found > 0) == config.network.has_batch_norm


@by_network
def test_parallel_training_spends_what_is_counted_for_each_block(fields: dict[str, Any], data: Dataset) -> None:
    config = small_config(mode="parallel", **fields)
    net = network(config, data)
    spent = [0] * config.network.depth
    for _ in range(config.training.epochs):
        for name in ("train", "validation"):
            split = DeviceSplit(data.splits[name], torch.device("cpu"))
            for x, y in split.in_order(net.normalise, 64):
                for j, (block, auxiliary) in enumerate(zip(net.blocks, net.auxiliaries, strict=True)):
                    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(name == "train"):
                        x = block(x.detach())
                        if j + 1 in config.heads:
                            loss = F.cross_entropy(auxiliary(x), y)
                            if name == "train":
                                loss.backward()
                    spent[j] += counter.get_total_flops()
    assert count(config).training == tuple(spent)


@by_network
def test_end_to_end_training_spends_what_is_counted(fields: dict[str, Any], data: Dataset) -> None:
    config = small_config(mode="end-to-end", **fields)
    net = network(config, data)
    whole = nn.Sequential(*net.blocks, net.auxiliaries[-1])

    def train() -> None:
        for _ in range(config.training.epochs):
            for x, y in DeviceSplit(data.splits["train"], torch.device("cpu")).in_order(net.normalise, 64):
                F.cross_entropy(whole(x), y).backward()
            with torch.no_grad():
                for x, _ in DeviceSplit(data.splits["validation"], torch.device("cpu")).in_order(net.normalise):
                    whole(x)

    assert sum(count(config).training) == flops(train)


def test_the_gradient_of_every_block_but_the_first_goes_on_in_end_to_end_training(data: Dataset) -> None:
    config = small_config(mode="end-to-end", **{"network.depth": 3})
    problems = count_problems(config.network, IMAGE, N_CLASSES)
    n, held = 2 * COUNTS["train"], 2 * COUNTS["validation"]
    expected = [(n * passes + held) * p.block.operations for passes, p in zip((2, 3, 3), problems, strict=True)]
    expected[-1] += (3 * n + held) * problems[-1].auxiliary.operations
    assert count(config).training == tuple(expected)


@by_network
@pytest.mark.parametrize("mode", TRAINING)
def test_scoring_is_one_pass_with_the_heads_that_were_trained(mode: str, fields: dict[str, Any], data: Dataset) -> None:
    config = small_config(mode=mode, **fields)
    net = network(config, data)

    @torch.no_grad()
    def score() -> None:
        for split in data.splits.values():
            for x, _ in DeviceSplit(split, torch.device("cpu")).in_order(net.normalise):
                for j, block in enumerate(net.blocks, start=1):
                    x = block(x)
                    if j in config.heads:
                        net.auxiliaries[j - 1](x)

    assert count(config).scoring == (0 if mode == "untrained" else flops(score))


def test_mirrored_images_are_a_second_pass_of_what_is_not_trained_on(data: Dataset) -> None:
    config = small_config(mirrored=True)
    net = network(config, data)
    once = count(small_config()).scoring
    assert count(config).scoring == flops(lambda: score_auxiliaries(net, data, config.heads, mirrored=True))
    assert once < count(config).scoring < 2 * once


def test_each_mode_has_its_heads() -> None:
    found = {mode: list(small_config(mode=mode, **{"network.depth": 3}).heads) for mode in TRAINING}
    assert found == {"greedy": [1, 2, 3], "untrained": [], "parallel": [1, 2, 3], "end-to-end": [3]}
    assert set(MODES) == set(TRAINING)


@by_network
def test_the_dump_is_one_pass_through_the_blocks(fields: dict[str, Any], data: Dataset) -> None:
    config = small_config(**fields)
    net = network(config, data)

    def dump() -> None:
        for split in data.splits.values():
            list(depth_batches(net, split))

    found = count(config)
    assert found.dump == flops(dump)
    assert found.total == sum(found.training) + found.scoring + found.dump


def test_epochs_of_equal_operations_are_the_nearest_whole_number() -> None:
    config = small_config(mode="end-to-end", **{"network.depth": 3})
    seven = sum(count(replace(config, training=replace(config.training, epochs=7))).training)

    def epochs(operations: int) -> int:
        return operations_to_epochs(operations, config, SIZES)

    assert epochs(seven) == 7
    half = seven // 14
    assert (epochs(seven + half - 1), epochs(seven + half + 1)) == (7, 8)
    assert (epochs(seven - half + 1), epochs(seven - half - 1)) == (7, 6)
    assert epochs(1) == 1


def test_a_greedy_run_is_matched_within_half_an_epoch() -> None:
    greedy = small_config(**{"network.depth": 3, "training.epochs": 5})
    spent = sum(count(greedy).training)
    epochs = operations_to_epochs(spent, replace(greedy, mode="end-to-end"), SIZES)
    matched = replace(greedy, mode="end-to-end", training=replace(greedy.training, epochs=epochs))
    assert abs(sum(count(matched).training) - spent) <= sum(count(matched).training) / epochs / 2


@pytest.mark.parametrize("mode", MATCHED)
def test_matched_operations_are_nearest_to_the_greedy_runs_and_the_configuration_repeats_itself(mode: str) -> None:
    fields = {"network.depth": 4, "training.epochs": 6, "training.lr_every": 2}
    matched = match_operations(small_config(mode=mode, match="operations", **fields), SIZES)
    greedy = sum(count(small_config(**fields)).training)
    one_epoch = sum(count(matched).training) / matched.training.epochs
    assert abs(sum(count(matched).training) - greedy) <= one_epoch / 2
    assert matched.training.epochs > 6
    assert matched.training.lr_every == round(2 * matched.training.epochs / 6)
    assert matched.match == "epochs"
    assert (matched.training.matched_epochs, matched.training.matched_lr_every) == (6, 2)


@pytest.mark.parametrize(
    ("fields", "counted"),
    [
        ({"training.crop_padding": 0}, "cache"),
        ({"training.views": 2}, "cache"),
        ({}, "recompute"),
        ({"training.crop_padding": 0, "training.prefix": "recompute"}, "recompute"),
    ],
)
def test_a_prefix_left_to_auto_is_matched_as_kept_wherever_images_repeat(fields: dict[str, Any], counted: str) -> None:
    fields = {"network.depth": 4, "training.epochs": 60} | fields
    matched = match_operations(small_config(mode="end-to-end", match="operations", **fields), SIZES)
    assert matched.training.prefix == fields.get("training.prefix", "auto")
    views = {} if fields.get("training.crop_padding") == 0 else {"training.views": 2}
    greedy = {
        "cache": small_config(**fields | views | {"training.prefix": "cache"}),
        "recompute": small_config(**fields | {"training.prefix": "recompute"}),
    }
    spent = {prefix: sum(count(config).training) for prefix, config in greedy.items()}
    one_epoch = sum(count(matched).training) / matched.training.epochs
    assert spent["recompute"] - spent["cache"] > 2 * one_epoch  # the two are told apart
    assert abs(sum(count(matched).training) - spent[counted]) <= one_epoch / 2


def test_matching_is_refused_where_there_is_nothing_to_match() -> None:
    with pytest.raises(UsageError, match="match is 'operations', but must be 'epochs' unless the mode is end-to-end"):
        small_config(match="operations")
