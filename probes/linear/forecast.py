"""The forecast of a sweep of linear probes: operations, bytes read, and time at the speed of one product."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from layerwise.activations import pooled_width
from layerwise.forecast.rehearsal import Work, seconds_per_batch
from layerwise.runfile.layout import POOL_SIDE
from layerwise.units import show_seconds, show_size
from probes.linear.penalties import MANY_CLASSES
from probes.linear.probe import LinearFamily
from probes.probe import ProbeName
from probes.solver.design_matrix import DesignMatrix
from probes.solver.folds import Targets
from probes.solver.losses import Softmax
from probes.solver.objective import Logits, bend
from probes.solver.rows import Features

SECONDS, ROWS = 0.3, 4096  # of one measurement, and the rows that it multiplies
# Of a path with its choice and of a refit, how often all features are multiplied by the Hessian, for a gradient or a
# line search, and (in float64) for a certificate: with few classes, and with many, whose paths are rough. Counted with
# 10 and 300 classes on 2x2 averages of 128 random filters (20,000 + 2,000 images of CIFAR-10). Features and images
# decide it, so a real path may well take half or twice as many.
FEW, MANY = ((270, 100, 14), (35, 10, 2)), ((145, 40, 1), (90, 10, 2))
Timer = Callable[[Work, float], float]


@dataclass(frozen=True, kw_only=True)
class LinearForecast:
    """What the probes of one depth that read the same features take: so many fits of a path with its refit.

    pooling: side of the average A, 0 for raw pixels. nbytes: read from the file, of features that are streamed in
    every pass.
    """

    depth: int
    pooling: int
    n_features: int
    fitted: int
    operations: int
    nbytes: int
    seconds: float


def forecast_sweep(
    family: LinearFamily, left: Mapping[int, Sequence[ProbeName]], timer: Timer = seconds_per_batch
) -> list[LinearForecast]:
    """Forecast what is left of a sweep; only products of random features are computed, and nothing is kept."""
    family.prepare(left)
    found = []
    for depth, names in left.items():
        for side in dict.fromkeys(name.pooling for name in names):
            found.append(_at_depth(family, depth, side, sum(name.pooling == side for name in names), timer))
    return found


def _at_depth(family: LinearFamily, depth: int, side: int, count: int, timer: Timer) -> LinearForecast:
    run, classes = family.run, len(family.task.classes)
    counts = {split: len(family.task.rows(split)) for split in run.splits}
    d, is_rotation = family.fitted_width(depth, side)
    costs = [_cost(n, d, classes, family.max_memory, counted) for n, counted in _fits(counts, classes)]
    scored = sum(counts.values())
    operations = sum(cost[0] for cost in costs) + 2 * len(costs) * scored * d * classes
    read = sum(cost[1] for cost in costs) + scored
    fits = 1 if is_rotation else count
    rate = 4 * ROWS * d * classes / timer(_work(d, classes, family.device), SECONDS)
    return LinearForecast(
        depth=depth, pooling=side, n_features=d, fitted=count, operations=fits * operations,
        nbytes=fits * read * _row_bytes(family, depth, side), seconds=fits * operations / rate,
    )  # fmt: skip


def _fits(counts: Mapping[str, int], classes: int) -> list[tuple[int, tuple[int, int, int]]]:
    """Return the images that each fit is of, and what it takes; without a fold one fit, of a fixed penalty."""
    path, refit = MANY if classes >= MANY_CLASSES else FEW
    if "validation" not in counts:
        return [(counts["train"], refit)]
    return [(counts["train"], path), (counts["train"] + counts["validation"], refit)]


def _cost(n: int, d: int, classes: int, max_memory: int | None, counted: tuple[int, int, int]) -> tuple[int, int]:
    """Return operations, and how many rows of features are read."""
    bends, slopes, proofs = counted
    room = 0 if max_memory is None else max_memory - 8 * n * d
    # Two products of n d K each for a Hessian, one for a gradient; one more where logits are made anew.
    again = 0 if room >= 0 and DesignMatrix.columns(n, d, room) >= classes else 2
    operations = n * d * classes * (bends * (4 + again) + slopes * (2 + again) + proofs * 12)
    return operations, n * (bends + slopes + 6 * proofs if room < 0 else 1)


def _row_bytes(family: LinearFamily, depth: int, side: int) -> int:
    stored = family.run.pooled(depth, "train") if side == POOL_SIDE else None
    if stored is not None:
        return stored.nbytes // max(1, len(stored))
    return 4 * pooled_width(family.run, depth, side)


def _work(d: int, classes: int, device: torch.device) -> Work:
    """Return the work of one product of features with a Hessian, logits kept."""

    def prepare(n: int) -> Callable[[], object]:
        design = DesignMatrix(Features(torch.randn(n, d)), device, room=1 << 40)
        label = (torch.arange(n, device=device) % classes)[None]
        row = torch.zeros(1, dtype=torch.long, device=device)
        share = torch.full((1, classes), 1 / classes, dtype=torch.float64, device=device)
        theta = torch.zeros(1, classes, d + 1, dtype=torch.float64, device=device)
        logits = Logits.of(design, Softmax(Targets(label, None, row, n), share), theta, torch.float32)
        return functools.partial(_product, logits, theta.float())

    return Work("products", ROWS, 1, prepare)


def _product(logits: Logits, direction: torch.Tensor) -> None:
    bend(logits, direction)
    if direction.is_cuda:
        torch.cuda.synchronize(direction.device)


def lines(found: Sequence[LinearForecast], family: LinearFamily) -> Iterator[str]:
    """Yield the lines that show a forecast, none wider than 80 columns."""
    yield f"{'depth':>5}  {'reads':<6} {'features':>8} {'probes':>6}  {'operations':>10}  {'read':>9}  {'time':>8}"
    for one in found:
        reads = f"{one.pooling}x{one.pooling}" if one.pooling else "whole"
        yield _line(str(one.depth), reads, str(one.n_features), one)
    fitted, operations, nbytes = (
        sum(getattr(one, name) for one in found) for name in ("fitted", "operations", "nbytes")
    )
    seconds = sum(one.seconds for one in found)
    total = LinearForecast(
        depth=0, pooling=0, n_features=0, fitted=fitted, operations=operations, nbytes=nbytes, seconds=seconds
    )
    yield _line("all", "", "", total)
    yield f"by the number of products that such a path took elsewhere; on this {family.device.type}"


def _line(depth: str, reads: str, width: str, one: LinearForecast) -> str:
    cells = f"{one.fitted:>6}  {one.operations:>10.3e}  {show_size(one.nbytes):>9}  {show_seconds(one.seconds):>8}"
    return f"{depth:>5}  {reads:<6} {width:>8} {cells}"
