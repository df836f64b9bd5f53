"""The forecast of a sweep: the operations and bytes of what is left, and seconds at the throughput measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from layerwise.forecast.rehearsal import Work
from layerwise.model.counts import count_problems
from layerwise.runfile import RunFile
from probes.cnn import probe as cnn
from probes.cnn import reading
from probes.cnn.forecast import forecast_sweep, lines, planned_operations
from probes.cnn.probe import CnnFamily
from probes.cnn.rates import LEARNING_RATES
from probes.cnn.source import Source
from probes.cnn.training import Design
from probes.sweep import missing, sweep
from probes.tasks.task import Task

CPU = torch.device("cpu")
SECONDS = {"training": 0.5, "scoring": 0.25}


def timer(work: Work, budget: float) -> float:
    work.prepare(2)()  # what is timed must run
    return SECONDS[work.phase]


@pytest.fixture
def family(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CnnFamily]:
    """Yield a family of four probes whose maps cost a second and 100 bytes an image."""
    about = {"name": "stored", "nbytes": 100, "operations": 10, "seconds": 1.0}
    monkeypatch.setattr(cnn, "choose_source", lambda run, depth, source, device: Source(depth=depth, **about))
    with RunFile(own_run) as run:
        yield CnnFamily(run, Task(run), ps=[1], widths=[4, 6], seeds=2, epochs=3, device=CPU, precision="fp32")


def costs(shape: tuple[int, int, int]) -> tuple[int, int]:
    """Return operations of one image through both widths, in training and in scoring."""
    designs = [Design(1, width, 0) for width in (4, 6)]
    return sum(d.training_operations(shape, 10) for d in designs), sum(d.operations(shape, 10) for d in designs)


def test_operations_bytes_and_seconds_of_a_whole_sweep(family: CnnFamily) -> None:
    left = missing(family.run, family, [0, 1, 2])
    depths = forecast_sweep(family, left, timer)
    assert [one.depth for one in depths] == [0, 1, 2]
    n_train, n_both, n_validation, n_all, rates = 1295, 1438, 143, 1797, len(LEARNING_RATES)
    train, score = costs(family.run.depth_shape(1))
    # Depth 1 tries every rate with seed 0 for an epoch; then both seeds are fitted for 3. BatchNorm's statistics take a
    # pass after a trial, and one after each of half and all of the epochs of a fit, which is scored at both.
    trained = train * (rates * n_train + 2 * 3 * n_both)
    scored = score * (rates * (n_train + n_validation) + 2 * 2 * (n_both + n_all))
    assert depths[1].trained == 2 * (rates + 2)
    assert depths[1].operations == trained + scored + 10 * (n_all + n_both)
    assert depths[1].nbytes == 100 * (n_all + n_both)
    per_step, per_batch = 32 * train / SECONDS["training"], 256 * score / SECONDS["scoring"]
    assert depths[1].seconds == pytest.approx(trained / per_step + scored / per_batch + n_all + n_both)
    train, score = costs(family.run.depth_shape(0))
    assert depths[0].trained == 2 * 2  # no rate is tried there, so both seeds are only refitted
    assert depths[0].operations == 3 * train * 2 * n_both + score * 2 * 2 * (n_both + n_all) + 10 * n_all


def test_maps_that_are_not_held_are_read_once_an_epoch_and_training(
    family: CnnFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "KEPT_BYTES", 0)
    (one,) = [d for d in forecast_sweep(family, missing(family.run, family, [0]), timer) if d.depth == 0]
    # Once to standardise, in each of three epochs, twice for BatchNorm; then all that is scored.
    assert one.nbytes == 100 * (1797 + (1 + 3 + 2) * 1438)


def test_what_is_done_is_not_forecast(family: CnnFamily) -> None:
    sweep(family.run, family.task, family, [1])
    left = missing(family.run, family, [0, 1])
    assert [one.depth for one in forecast_sweep(family, left, timer)] == [0]


def test_the_lines_fit_80_columns_and_end_in_the_whole(family: CnnFamily) -> None:
    depths = forecast_sweep(family, missing(family.run, family, [0, 1, 2]), timer)
    found = list(lines(depths, family))
    assert all(len(line) <= 80 for line in found)
    assert found[0].split() == ["depth", "maps", "trainings", "operations", "read", "time"]
    assert found[1].split()[:3] == ["0", "stored", "4"]
    assert found[4].split()[:3] == ["all", "20", f"{sum(one.operations for one in depths):.3e}"]
    assert found[5] == f"rates {', '.join(map(str, LEARNING_RATES))}: tried for 1 epochs at depths 1, 2, one is chosen"
    assert found[6] == "3 epochs of fp32 products on this cpu"


def test_the_plan_of_a_network_not_trained_yet_is_the_forecast_of_the_trained_one(run_path: Path) -> None:
    with RunFile(run_path) as run:
        family = CnnFamily(run, Task(run), ps=[1, 2], widths=[4, 6], seeds=2, source="recompute", device=CPU)
        found = forecast_sweep(family, missing(run, family, run.depths), timer)
        counts = {split: len(run.labels(split)) for split in run.splits}
        problems = count_problems(run.config.network, run.depth_shape(0), 10)
        designs = [Design(p, width, seed) for p in (1, 2) for width in (4, 6) for seed in (0, 1)]
        shapes = [run.depth_shape(depth) for depth in run.depths]
        blocks = [problem.block.operations for problem in problems]
        planned = planned_operations(shapes, blocks, counts, 10, designs)
    assert sum(planned) == sum(one.operations for one in found)
