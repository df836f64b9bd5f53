"""The forecast of time: its batches are the run's own, its arithmetic holds under any clock, it leaves no trace."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import small_config
from torch.utils.flop_counter import FlopCounterMode

from layerwise.datasets import Sizes
from layerwise.forecast import rehearsal as timing
from layerwise.forecast.rehearsal import MOST, SMALLEST, Rehearsal, Work, forecast_seconds, seconds_per_batch
from layerwise.model.architectures import network_shapes
from layerwise.runfile.plan import plan
from layerwise.training.dump import depths_of
from layerwise.training.operations import TRAINING, count_operations

IMAGE = (1, 8, 8)
COUNTS = {"train": 512, "validation": 512, "test": 1024}  # full batches of every kind
SIZES = Sizes(IMAGE, 10, COUNTS)


def rehearsal(counts: dict[str, int] = COUNTS, **fields: Any) -> Rehearsal:
    config = small_config(**fields)
    storage = plan(depths_of(network_shapes(config.network, IMAGE)), counts, store="maps", max_size=10**9)
    return Rehearsal(config, Sizes(IMAGE, 10, counts), storage, torch.device("cpu"))


class SlowMachine:
    """A clock that only work moves: a batch of n images takes `start + each * n` seconds."""

    def __init__(self, start: float, each: float, hiccups: tuple[int, ...] = ()):
        self.now, self.start, self.each, self.hiccups = 0.0, start, each, hiccups
        self.sizes: list[int] = []

    def prepare(self, n: int) -> Callable[[], object]:
        return lambda: self.spend(n)

    def spend(self, n: int) -> None:
        self.now += (self.start + self.each * n) * (100 if len(self.sizes) in self.hiccups else 1)
        self.sizes.append(n)

    def seconds(self, size: int, budget: float) -> float:
        return seconds_per_batch(Work("training", size, 1, self.prepare), budget, lambda: self.now)


def test_a_quick_batch_is_timed_full_a_few_times() -> None:
    machine = SlowMachine(0.001, 0.0001)
    assert machine.seconds(128, 1.0) == pytest.approx(0.001 + 0.0128)
    assert machine.sizes.count(128) == MOST + 1
    assert machine.now < 1


def test_a_slow_batch_is_scaled_from_the_smallest_one() -> None:
    machine = SlowMachine(0, 1.0)
    assert machine.seconds(128, 0.2) == pytest.approx(128)
    assert machine.sizes == [SMALLEST, SMALLEST]


def test_a_batch_smaller_than_the_smallest_is_timed_as_it_is() -> None:
    machine = SlowMachine(0.01, 0)
    assert machine.seconds(3, 0.2) == pytest.approx(0.01)
    assert set(machine.sizes) == {3}


def test_setting_up_and_a_hiccup_do_not_count() -> None:
    # Calls 0, 2 and 4 are the first of their size; call 6 is one of those timed.
    machine = SlowMachine(0.001, 0.0001, hiccups=(0, 2, 4, 6))
    assert machine.seconds(64, 4.0) == pytest.approx(0.0074)
    assert machine.sizes == [4, 4, 16, 16] + [64] * (MOST + 1)


def test_on_busy_cores_the_fastest_batch_counts() -> None:
    # Call 6 is the first of the full batches that is timed, and three of the four after it are disturbed too.
    machine = SlowMachine(0.001, 0.0001, hiccups=(6, 7, 9, 10))
    assert machine.seconds(64, 4.0) == pytest.approx(0.0074)
    # Call 1 times the smallest batch: it is not taken for a slow machine, whose full batches are 16 small ones.
    machine = SlowMachine(0.001, 0.0001, hiccups=(1,))
    assert machine.seconds(64, 1.0) == pytest.approx(0.0074)
    assert machine.sizes[:5] == [4, 4, 4, 16, 16]


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("mode", TRAINING)
def test_what_is_timed_is_the_work_of_the_run(mode: str, k: int) -> None:
    """Count operations where seconds would be measured: they add up to those of the whole run."""
    found = rehearsal(mode=mode, **{"network.depth": 3, "network.k": k, "training.crop_padding": 0})

    def flops(work: Work, budget: float) -> float:
        batch = work.prepare(8)
        with FlopCounterMode(display=False) as counter:
            batch()
        return counter.get_total_flops() * work.size / 8

    expected = count_operations(found.config, SIZES)
    assert forecast_seconds(found, flops) == {
        "training": sum(expected.training), "scoring": expected.scoring, "dump": expected.dump,
    }  # fmt: skip


@pytest.mark.parametrize("prefix", ["recompute", "cache"])
def test_what_is_timed_of_a_pruned_network_is_the_work_of_its_run(prefix: str) -> None:
    still = {"training.crop_padding": 0, "training.prefix": prefix, "training.finetune_epochs": 3}
    found = rehearsal(**still, **{"network.depth": 2, "network.k": 3, "network.prune_to": 4})

    def flops(work: Work, budget: float) -> float:
        batch = work.prepare(8)
        with FlopCounterMode(display=False) as counter:
            batch()
        return counter.get_total_flops() * work.size / 8

    expected = count_operations(found.config, SIZES)
    assert forecast_seconds(found, flops) == {
        "training": sum(expected.training), "scoring": expected.scoring, "dump": expected.dump,
    }  # fmt: skip


@pytest.mark.parametrize("views", [0, 3])
def test_what_is_timed_of_a_kept_prefix_is_the_work_of_the_run(views: int) -> None:
    augmented = {"training.crop_padding": 1, "training.views": views} if views else {"training.crop_padding": 0}
    found = rehearsal(**augmented, **{"network.depth": 3, "training.prefix": "cache", "training.epochs": 4})

    def flops(work: Work, budget: float) -> float:
        batch = work.prepare(8)
        with FlopCounterMode(display=False) as counter:
            batch()
        return counter.get_total_flops() * work.size / 8

    seconds = forecast_seconds(found, flops, phases=("training",))
    assert seconds == {"training": sum(count_operations(found.config, SIZES).training)}


def batches(counts: dict[str, int], **fields: Any) -> dict[str, float]:
    return forecast_seconds(rehearsal(counts, **fields), lambda work, budget: 1.0)


def test_short_last_batches_are_batches() -> None:
    counts = {"train": 1295, "validation": 143, "test": 513}
    found = batches(counts, **{"network.depth": 3, "training.epochs": 7, "training.batch_size": 64})
    assert found == {"training": 3 * 7 * (21 + 1), "scoring": 3 + 1 + 2, "dump": 6 + 1 + 3}


def test_training_scales_with_epochs_and_nothing_else_does() -> None:
    once, thrice = (batches(COUNTS, **{"training.epochs": epochs}) for epochs in (2, 6))
    assert thrice == once | {"training": 3 * once["training"]}


def test_without_a_validation_fold_there_is_less_to_do() -> None:
    config = {"training.epochs": 1, "training.batch_size": 64}
    assert batches({"train": 512, "test": 512}, **config)["training"] == 2 * 8


def test_measured_seconds_are_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "BUDGET", 0)
    monkeypatch.setattr(timing, "LEAST", 0)
    assert min(forecast_seconds(rehearsal()).values()) > 0


@pytest.mark.parametrize("mode", ["greedy", "untrained"])
def test_no_trace_is_left(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timing, "BUDGET", 0)
    monkeypatch.setattr(timing, "LEAST", 0)

    def state() -> list[object]:
        flags = torch.is_grad_enabled(), torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        numpy_state = np.random.get_state(legacy=False)["state"]  # type: ignore[call-overload]
        return [torch.get_rng_state().tolist(), str(numpy_state), random.getstate(), flags, torch.get_num_threads()]

    before = state()
    forecast_seconds(rehearsal(mode=mode))
    assert state() == before
    assert not list(tmp_path.iterdir())


def test_blocks_below_are_frozen_as_they_are_in_the_run() -> None:
    found = rehearsal({"train": 512, "test": 512}, **{"network.depth": 3})
    training = []

    def look(work: Work, budget: float) -> float:
        training.append([block.training for block in found.network.blocks])
        return 1.0

    forecast_seconds(found, look)
    assert training[:3] == [[True, True, True], [False, True, True], [False, False, True]]
    assert training[3:] == [[False, False, False]] * 2  # scoring and dump


def test_an_untrained_network_is_frozen_after_its_pass() -> None:
    found = rehearsal(mode="untrained")
    training = []
    forecast_seconds(found, lambda work, budget: training.append(found.network.training) or 1.0)  # type: ignore[func-returns-value]
    assert training == [True, False]
