"""Peak memory: what backward keeps is exact; each phase is near what the allocator hands out; parts add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import small_config, train_block, train_network
from torch import Tensor, nn
from torch.nn import functional as F

from layerwise.config import RunConfig
from layerwise.datasets import Dataset, Sizes, Split, load_dataset
from layerwise.forecast.memory import Memory, forecast_memory
from layerwise.model.maps import Maps
from layerwise.model.network import LayerwiseNetwork
from layerwise.training.checkpoint import Checkpoint
from layerwise.training.dump import depth_batches
from layerwise.training.loop import DeviceSplit, evaluate, train, train_stage
from layerwise.training.pruning import prune
from layerwise.training.report import Report
from layerwise.training.stage_batches import kept_bytes
from layerwise.training.stages import Stage, stages

COUNTS = {"train": 200, "validation": 140, "test": 300}
IMAGE, N_CLASSES = (1, 8, 8), 10
SIZES = Sizes(IMAGE, N_CLASSES, COUNTS)
WIDE = {"network.width": 32, "network.aux_width": 48, "training.epochs": 1}

NETWORKS: list[dict[str, Any]] = [
    {"network.k": 1, "network.depth": 2},
    {"network.k": 2, "network.depth": 3, "network.downsample": (1, 3)},
    {"network.k": 3, "network.depth": 2, "network.batch_norm": "off", "network.downsample": (2,)},
    {"network.k": 3, "network.depth": 2, "network.aux_halving": True},
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


def forecast(config: RunConfig) -> Memory:
    return forecast_memory(config, SIZES)


def peak_bytes(work: Callable[[], object]) -> int:
    """Return the most bytes that the CPU allocator had handed out at once while `work` ran."""
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        work()
    events = [e for e in profile.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@by_network
@pytest.mark.parametrize("whole", [False, True])
def test_what_backward_keeps_is_counted_to_the_last_value(fields: dict[str, Any], whole: bool, data: Dataset) -> None:
    config = small_config(**WIDE | fields)
    net, n = network(config, data), 37  # no layer has 37 channels: what has 37 rows is an activation
    maps = Maps(config.network, IMAGE, N_CLASSES)
    for last in range(1, config.network.depth + 1):
        first = 1 if whole else last
        x = net.advance(net.normalise(torch.zeros(n, *IMAGE, dtype=torch.uint8)), 0, first - 1).detach()
        kept: dict[int, Tensor] = {}

        def keep(t: Tensor, kept: dict[int, Tensor] = kept) -> Tensor:
            if t.is_floating_point() and t.shape[:1] == (n,):
                kept[t.data_ptr()] = t.detach()
            return t

        module = nn.Sequential(*net.blocks[first - 1 : last], net.auxiliaries[last - 1])
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            F.cross_entropy(module(x), torch.zeros(n, dtype=torch.int64))
        assert sum(t.numel() for t in kept.values()) == n * maps.kept(first, last)


@by_network
def test_each_phase_takes_what_the_allocator_hands_out_within_a_factor_of_2(
    fields: dict[str, Any], data: Dataset
) -> None:
    config = small_config(**WIDE | fields)
    net, found = network(config, data), forecast(config)
    splits = {name: DeviceSplit(split, torch.device("cpu")) for name, split in data.splits.items()}
    measured = {
        f"training block {j}": peak_bytes(lambda j=j: train_block(net, {"train": splits["train"]}, config, j))  # type: ignore[misc]
        for j in range(1, config.network.depth + 1)
    }
    head = nn.Sequential(*net.blocks, net.auxiliaries[-1])
    measured["evaluation"] = peak_bytes(
        lambda: evaluate([(nn.Identity(), head)], splits["test"].in_order(net.normalise))
    )
    measured["the dump"] = peak_bytes(lambda: [None for _ in depth_batches(net, data.splits["test"])])
    assert found.phases.keys() == measured.keys()
    ratios = {phase: found.phases[phase] / measured[phase] for phase in measured}
    assert all(0.5 < ratio < 2 for ratio in ratios.values()), ratios


def test_pruning_and_training_take_what_the_allocator_hands_out_within_a_factor_of_2(data: Dataset) -> None:
    config = small_config(**WIDE | {"network.k": 3, "network.depth": 2, "network.prune_to": 16})
    net, found = network(config, data), forecast(config)
    train_data = {"train": DeviceSplit(data.splits["train"], torch.device("cpu"))}
    training, tuning = stages(net, config)[:2]
    checkpoint = Checkpoint(None, config, {})

    def solve(stage: Stage, number: int) -> None:
        with Report(1) as report:
            report.start(stage.name, 1)
            train_stage(net, train_data, config, stage, number, checkpoint, report)

    trained = peak_bytes(lambda: solve(training, 0))
    pruned = peak_bytes(lambda: prune(net, train_data["train"], 1, config.training.batch_size))
    assert 0.5 < found.phases["training block 1"] / trained < 2
    assert 0.5 < found.phases["pruning block 1"] / pruned < 2
    assert peak_bytes(lambda: solve(tuning, 1)) < trained


def test_what_was_before_pruning_is_counted_among_the_weights(data: Dataset) -> None:
    config = small_config(
        **{"network.k": 3, "network.prune_to": 4, "training.epochs": 1, "training.finetune_epochs": 1}
    )
    net, checkpoint = network(config, data), Checkpoint(None, config, {})
    with Report(1) as report:
        train(net, data, config, checkpoint, report)
    before = sum(array.nbytes for record in checkpoint.pruned.values() for array in record.before.values())
    assert forecast(config).weights == before + sum(t.nbytes for t in net.state_dict().values())


def test_greedy_training_needs_no_more_than_its_largest_problem_and_end_to_end_training_does(data: Dataset) -> None:
    fields = WIDE | {"network.depth": 5, "data.holdout": 0.0}
    few = replace(data, splits={"train": data.splits["train"]})
    splits = {"train": DeviceSplit(few.splits["train"], torch.device("cpu"))}
    config, net = small_config(**fields), network(small_config(**fields), data)
    alone = [peak_bytes(lambda j=j: train_block(net, splits, config, j)) for j in range(1, 6)]  # type: ignore[misc]
    greedy = peak_bytes(lambda: train_network(network(config, data), few, config))
    weights = sum(t.nbytes for t in net.state_dict().values())
    assert greedy <= max(alone) + weights + 50_000  # which are made within what is measured; and small change
    whole = small_config(mode="end-to-end", **fields)
    assert peak_bytes(lambda: train_network(network(whole, data), few, whole)) > 1.5 * greedy


def test_what_is_kept_of_the_prefix_comes_on_top(data: Dataset) -> None:
    still = {"training.crop_padding": 0, "network.depth": 3}
    anew, kept = (forecast(small_config(**still | {"training.prefix": p})) for p in ("recompute", "cache"))
    assert anew.kept == 0
    assert kept.kept == kept_bytes(small_config(**still), SIZES)
    assert kept.total == anew.total + kept.kept


def test_data_and_weights_are_all_bytes_that_live_throughout(data: Dataset) -> None:
    config = small_config()
    found = forecast(config)
    arrays = [a for s in data.splits.values() for a in (s.images, s.label, s.index)]
    assert found.data == sum(a.nbytes for a in arrays)
    assert found.weights == sum(t.nbytes for t in network(config, data).state_dict().values())
    assert found.phases[found.phase] == max(found.phases.values())
    assert found.total == found.data + found.weights + max(found.phases.values())


def test_a_mode_that_solves_more_at_once_needs_more() -> None:
    def training(mode: str, momentum: float = 0.9) -> int:
        config = small_config(mode=mode, **{"network.depth": 3, "training.momentum": momentum})
        return max((n for phase, n in forecast(config).phases.items() if phase.startswith("training")), default=0)

    assert training("untrained") == 0 < training("greedy") < training("parallel") < training("end-to-end")
    assert training("greedy", momentum=0) < training("greedy")
