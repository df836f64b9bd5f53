"""The forecast of linear probes: the operations and bytes of what is left, and seconds at the speed of a product."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from layerwise.forecast.rehearsal import Work
from layerwise.runfile import RunFile
from probes.linear.forecast import FEW, ROWS, forecast_sweep, lines
from probes.linear.probe import LinearFamily
from probes.sweep import missing
from probes.tasks.task import Task

CPU = torch.device("cpu")
N_TRAIN, N_BOTH, N_ALL, D, K = 1295, 1438, 1797, 24, 10  # digits, depth 1


def timer(work: Work, budget: float) -> float:
    work.prepare(20)()  # what is timed must run
    return 0.5


def work(n: int, products: tuple[int, int, int], made_anew: int) -> int:
    bends, slopes, proofs = products
    return n * D * K * (bends * (4 + made_anew) + slopes * (2 + made_anew) + proofs * 12)


@pytest.mark.parametrize("streamed", [False, True])
def test_operations_bytes_and_seconds_of_a_depth(run_path: Path, streamed: bool) -> None:
    with RunFile(run_path) as run:
        family = LinearFamily(run, Task(run), "linear", device=CPU, max_memory=1000 if streamed else None)
        (one,) = forecast_sweep(family, missing(run, family, [1]), timer)
        row_bytes = run.pooled(1, "train").nbytes // N_TRAIN
    anew = 2 if streamed else 0
    assert one.operations == work(N_TRAIN, FEW[0], anew) + work(N_BOTH, FEW[1], anew) + 2 * 2 * N_ALL * D * K
    assert one.seconds == pytest.approx(one.operations / (4 * ROWS * D * K / 0.5))
    reads = [(b + s + 6 * p) if streamed else 1 for b, s, p in FEW]
    assert one.nbytes == row_bytes * (reads[0] * N_TRAIN + reads[1] * N_BOTH + N_ALL)


def test_every_pooling_and_the_pixels_have_a_line_within_80_columns(run_path: Path) -> None:
    with RunFile(run_path) as run:
        family = LinearFamily(run, Task(run), "linear", device=CPU)
        found = list(lines(forecast_sweep(family, missing(run, family, run.depths), timer), family))
    assert [line.split()[:2] for line in found[1:5]] == [["0", "2x2"], ["0", "whole"], ["1", "2x2"], ["2", "2x2"]]
    assert found[0].split() == ["depth", "reads", "features", "probes", "operations", "read", "time"]
    assert found[5].split()[:2] == ["all", "4"]
    assert all(len(line) <= 80 for line in found)


def test_projections_are_fitted_ten_times_at_their_own_width_but_a_rotation_once(run_path: Path) -> None:
    with RunFile(run_path) as run:
        family = LinearFamily(run, Task(run), "linear", features="matched", device=CPU)
        found = {one.depth: one for one in forecast_sweep(family, missing(run, family, [1, 2]), timer)}
        least = min(family.fitted_width(depth, 2)[0] for depth in (1, 2))
        is_rotation = {depth: family.fitted_width(depth, 2)[1] for depth in (1, 2)}
    assert {one.n_features for one in found.values()} == {least}
    assert any(is_rotation.values())
    per_fit = {depth: one.operations / (1 if is_rotation[depth] else 10) for depth, one in found.items()}
    assert per_fit[1] == pytest.approx(per_fit[2])
