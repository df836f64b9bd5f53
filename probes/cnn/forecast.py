"""The forecast of a sweep of CNN probes: operations, bytes read, and time at the throughput of single batches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from layerwise.forecast.rehearsal import Work, seconds_per_batch
from layerwise.model.architectures import Shape
from layerwise.training.problem import AuxiliaryProblem
from layerwise.units import show_seconds, show_size
from probes.cnn.probe import CnnFamily, trial_depths
from probes.cnn.rates import FIXED_LEARNING_RATE, LEARNING_RATES
from probes.cnn.reading import fits_memory
from probes.cnn.training import BATCH, SIDE, Design, features, new_probe, recipe, scorer, steps
from probes.names import CNN_EPOCHS
from probes.probe import ProbeName

SECONDS = 0.3  # that each of two measurements of a depth may take, where the smallest batches are quick
SCORED = 256  # images a batch in scoring, as they are read in order (layerwise.activations.READ_BATCH)
Timer = Callable[[Work, float], float]


@dataclass(frozen=True)
class Training:
    """Designs that are trained together on so many images at `rates` learning rates each."""

    designs: tuple[Design, ...]
    images: int
    rates: int = 1


@dataclass(frozen=True, kw_only=True)
class DepthForecast:
    """What the probes left at a depth take, the trials of learning rates there included.

    source: "stored" or "recompute". operations: of training, scoring and recomputed blocks.
    """

    depth: int
    source: str
    trained: int
    operations: int
    nbytes: int
    seconds: float


def forecast_sweep(
    family: CnnFamily, left: Mapping[int, Sequence[ProbeName]], timer: Timer = seconds_per_batch
) -> list[DepthForecast]:
    """Forecast what is left of a sweep, by depth; only single batches are computed, and nothing is kept.

    Args:
        left: the probes still to be fitted, by depth.
        timer: gives the seconds of one full batch of a work, in the seconds that it may take.
    """
    trials = family.trials(left)
    depths = sorted({*left, *trials})
    return [_at_depth(family, depth, left.get(depth, ()), trials.get(depth, ()), timer) for depth in depths]


def _at_depth(
    family: CnnFamily, depth: int, names: Sequence[ProbeName], pairs: Sequence[tuple[int, int]], timer: Timer
) -> DepthForecast:
    counts = {split: len(family.task.rows(split)) for split in family.run.splits}
    trainings = _trainings(family, depth, names, pairs, counts)
    shape, n_classes, epochs = family.run.depth_shape(depth), len(family.task.classes), family.epochs
    train = sum(
        epochs * t.rates * t.images * d.training_operations(shape, n_classes) for t in trainings for d in t.designs
    )
    # Trials are scored on the fold, the others on everything.
    scored = [(t, counts.get("validation", 0) if t.rates > 1 else sum(counts.values())) for t in trainings]
    score = sum(t.rates * n * d.operations(shape, n_classes) for t, n in scored for d in t.designs)
    sample = list(dict.fromkeys(Design(d.p, d.width, 0) for t in trainings for d in t.designs))
    bench = Bench(shape, n_classes, family.device, family.precision, epochs)
    rates = throughput(bench, depth, sample, timer)
    source = family.source_of(depth)
    passes = _images_read(family, depth, trainings, counts)
    return DepthForecast(
        depth=depth,
        source=source.name,
        trained=sum(t.rates * len(t.designs) for t in trainings),
        operations=train + score + passes * source.operations,
        nbytes=passes * source.nbytes,
        seconds=train / rates[0] + score / rates[1] + passes * source.seconds,
    )


def planned_operations(
    shapes: Sequence[Shape],
    blocks: Sequence[int],
    counts: Mapping[str, int],
    n_classes: int,
    designs: Sequence[Design],
    epochs: int = CNN_EPOCHS,
) -> tuple[int, int, int]:
    """Return the operations of the CNN probes of a network not trained yet: training, scoring, recomputed blocks.

    They are those of `forecast_sweep` where maps are recomputed from the images and those of a depth fit the memory.

    Args:
        shapes: (C, H, W) of x_0 to x_J. blocks: operations of blocks 1 to J for one image. counts: images of splits.
        designs: every probe at each depth, by the default recipe. epochs: of each.
    """
    probeable = [depth for depth, shape in enumerate(shapes) if min(shape[1:]) >= SIDE]
    trials = _first_and_last(probeable)
    train = score = recomputed = 0
    for depth in probeable:
        seen, every = counts["train"] + counts.get("validation", 0), sum(counts.values())
        tried = [design for design in designs if design.seed == 0 and depth in trials and "validation" in counts]
        rates = len(LEARNING_RATES)
        cost = functools.partial(Design.training_operations, shape=shapes[depth], n_classes=n_classes)
        forward = functools.partial(Design.operations, shape=shapes[depth], n_classes=n_classes)
        train += epochs * (seen * sum(map(cost, designs)) + rates * counts["train"] * sum(map(cost, tried)))
        score += every * sum(map(forward, designs)) + rates * counts.get("validation", 0) * sum(map(forward, tried))
        recomputed += (every + bool(tried) * seen) * sum(blocks[:depth])
    return train, score, recomputed


def _first_and_last(probeable: Sequence[int]) -> set[int]:
    blocks = [depth for depth in probeable if depth > 0] or probeable
    return {blocks[0], blocks[-1]} if blocks else set()


def _trainings(
    family: CnnFamily,
    depth: int,
    names: Sequence[ProbeName],
    pairs: Sequence[tuple[int, int]],
    counts: Mapping[str, int],
) -> list[Training]:
    """Return what is trained at a depth; a design that tried all rates there is not trained again at the chosen one."""
    designs = [Design.named(name) for name in names]
    if "validation" not in counts:
        return [Training(tuple(designs), counts["train"])]
    tried = [Design(p, width, 0) for p, width in pairs]
    first = [d for d in designs if family.fits_fold(d, depth) and d not in tried]
    both = counts["train"] + counts["validation"]
    found = [
        Training(tuple(tried), counts["train"], len(LEARNING_RATES)),
        Training(tuple(first), counts["train"]),
        Training(tuple(designs), both),
    ]
    return [training for training in found if training.designs]


def _images_read(family: CnnFamily, depth: int, trainings: Sequence[Training], counts: Mapping[str, int]) -> int:
    """Return how many images are read or recomputed: once for all trainings where they fit the memory."""
    seen = counts["train"] + counts.get("validation", 0)
    scored = sum(counts.values()) if any(t.rates == 1 for t in trainings) else 0
    if fits_memory(family.run, depth, seen, family.dtype, family.device):
        return scored + any(t.rates > 1 for t in trainings) * seen
    return scored + sum(family.epochs * t.images for t in trainings)


@dataclass(frozen=True)
class Bench:
    """What probes are rehearsed on: maps of a shape (C, H, W), classes, device, number type of products, epochs."""

    shape: Shape
    n_classes: int
    device: torch.device
    precision: str
    epochs: int


def throughput(
    bench: Bench, depth: int, designs: Sequence[Design], timer: Timer = seconds_per_batch
) -> tuple[float, float]:
    """Return operations a second in training and in scoring, measured on random maps of the depth's shape."""
    shape, n_classes, device, precision = bench.shape, bench.n_classes, bench.device, bench.precision
    probes = [new_probe(design, shape, n_classes, depth).to(device) for design in designs]

    def maps(n: int) -> torch.Tensor:
        x = torch.rand(n, *shape, device=device).to(torch.bfloat16 if precision == "bf16" else torch.float32)
        return x.contiguous(memory_format=torch.channels_last)

    def step(n: int) -> Callable[[], object]:
        x, y = maps(n), torch.zeros(n, dtype=torch.int64, device=device)
        config = recipe(FIXED_LEARNING_RATE, bench.epochs)
        problems = [AuxiliaryProblem(nn.Identity(), probe, config, precision) for probe in probes]
        for problem in problems:
            problem.start_epoch(0, steps(BATCH))
        return _waiting(device, [functools.partial(problem.step, x, y) for problem in problems])

    def score(n: int) -> Callable[[], object]:
        x, scorers = maps(n), [scorer(probe.eval()) for probe in probes]
        return _waiting(device, [functools.partial(features, one, x, precision) for one in scorers])

    train = BATCH * sum(design.training_operations(shape, n_classes) for design in designs)
    forward = SCORED * sum(design.operations(shape, n_classes) for design in designs)
    return (
        train / timer(Work("training", BATCH, 1, step), SECONDS),
        forward / timer(Work("scoring", SCORED, 1, score), SECONDS),
    )


def _waiting(device: torch.device, calls: Sequence[Callable[[], object]]) -> Callable[[], object]:
    """Return what makes all calls and waits until the device is done with them."""

    def batch() -> None:
        for call in calls:
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return batch


def lines(found: Sequence[DepthForecast], family: CnnFamily) -> Iterator[str]:
    """Yield the lines that show a forecast, none wider than 80 columns."""
    yield f"{'depth':>5}  {'maps':<10} {'trainings':>9}  {'operations':>10}  {'read':>9}  {'time':>8}"
    for one in found:
        yield _line(str(one.depth), one.source, one.trained, one.operations, one.nbytes, one.seconds)
    totals = (sum(getattr(one, name) for one in found) for name in ("trained", "operations", "nbytes", "seconds"))
    yield _line("all", "", *totals)
    tried = trial_depths(family.run)
    if any(one.depth in tried for one in found) and family.selection != "seen":
        rates = ", ".join(f"{rate:g}" for rate in LEARNING_RATES)
        yield f"rates {rates}: tried at depths {', '.join(map(str, tried))}, one is chosen for all depths"
    yield f"{family.epochs} epochs of {family.precision} products on this {family.device.type}"


def _line(depth: str, source: str, trained: int, operations: int, nbytes: int, seconds: float) -> str:
    cells = f"{trained:>9}  {operations:>10.3e}  {show_size(nbytes):>9}  {show_seconds(seconds):>8}"
    return f"{depth:>5}  {source:<10} {cells}"
