"""The forecast of a sweep of CNN probes: operations, bytes read, and time at the throughput of single batches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from layerwise.forecast.rehearsal import Work, seconds_per_batch
from layerwise.model.architectures import Shape
from layerwise.runfile.layout import POOL_SIDE
from layerwise.units import show_seconds, show_size
from probes.cnn.probe import CnnFamily, trial_depths
from probes.cnn.rates import FIXED_LEARNING_RATE, LEARNING_RATES, trial_epochs
from probes.cnn.reading import fits_memory, number_type
from probes.cnn.schedule_free import ProbeProblem
from probes.cnn.training import PRODUCTS, Design, batch_size, features, new_probe, scorer
from probes.names import CNN_EPOCHS
from probes.probe import ProbeName

SECONDS = 0.3  # that each of two measurements of a depth may take, where the smallest batches are quick
SCORED = 256  # images a batch in scoring, as they are read in order (layerwise.activations.READ_BATCH)
Timer = Callable[[Work, float], float]


@dataclass(frozen=True)
class Training:
    """Designs that are trained together on so many images for so many epochs, at `rates` learning rates each.

    scored: images that are scored afterwards.
    """

    designs: tuple[Design, ...]
    images: int
    epochs: int
    scored: int
    rates: int = 1

    @property
    def halves(self) -> int:
        """How many times BatchNorm's statistics are taken: after half of the epochs, and after all of them."""
        return min(2, self.epochs)

    def operations(self, shape: Shape, n_classes: int) -> tuple[int, int]:
        """Return those of the training on maps of a shape (C, H, W), and those of passes forward after it."""
        train = (
            self.rates * self.epochs * self.images * sum(d.training_operations(shape, n_classes) for d in self.designs)
        )
        # Of a trial the half is not scored.
        passes = self.halves * self.images + self.scored * (1 if self.rates > 1 else self.halves)
        return train, self.rates * passes * sum(d.operations(shape, n_classes) for d in self.designs)


@dataclass(frozen=True, kw_only=True)
class DepthForecast:
    """What the probes left at a depth take, the trials of learning rates there included.

    source: as of `Source`. operations: of training, scoring and recomputed blocks.
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
    shape, n_classes = family.run.depth_shape(depth), len(family.task.classes)
    train, score = (sum(kind) for kind in zip(*(t.operations(shape, n_classes) for t in trainings), strict=True))
    sample = list(dict.fromkeys(Design(d.p, d.width, 0) for t in trainings for d in t.designs))
    bench = Bench(shape, n_classes, family.device, family.precision, family.epochs)
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
    probeable = [depth for depth, shape in enumerate(shapes) if min(shape[1:]) >= POOL_SIDE]
    trials = _first_and_last(probeable)
    train = score = recomputed = 0
    for depth in probeable:
        tried = [design for design in designs if design.seed == 0 and depth in trials]
        for one in _at(designs, tried, counts, epochs):
            own = one.operations(shapes[depth], n_classes)
            train, score = train + own[0], score + own[1]
        seen = counts["train"] + counts["validation"] if tried and "validation" in counts else 0
        recomputed += (sum(counts.values()) + seen) * sum(blocks[:depth])
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
    """Return what is trained at a depth."""
    return _at(
        [Design.named(name) for name in names], [Design(p, width, 0) for p, width in pairs], counts, family.epochs
    )


def _at(designs: Sequence[Design], tried: Sequence[Design], counts: Mapping[str, int], epochs: int) -> list[Training]:
    """Return what is trained at a depth where rates are tried for some designs, if there is a fold to choose on."""
    every, validation = sum(counts.values()), counts.get("validation", 0)
    found = [Training(tuple(designs), counts["train"] + validation, epochs, every)]
    if validation:
        found.insert(0, Training(tuple(tried), counts["train"], trial_epochs(epochs), validation, len(LEARNING_RATES)))
    return [training for training in found if training.designs]


def _images_read(family: CnnFamily, depth: int, trainings: Sequence[Training], counts: Mapping[str, int]) -> int:
    """Return how many images are read or recomputed: once for all that a training does where they fit the memory."""
    dtype, read = number_type(family.run, depth), 0
    for one in trainings:
        kept = fits_memory(family.run, depth, one.images, dtype, family.device)
        # Else for the standardisation, in each epoch, and for BatchNorm.
        read += one.images if kept else one.images * (1 + one.epochs + one.halves)
        read += one.scored - (one.images if kept and one.rates == 1 else 0)
    return read


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
    size = batch_size(device)
    probes = [new_probe(design, shape, n_classes, depth).to(device) for design in designs]

    def maps(n: int) -> torch.Tensor:
        x = torch.rand(n, *shape, device=device).to(PRODUCTS[precision])
        return x.contiguous(memory_format=torch.channels_last)

    def step(n: int) -> Callable[[], object]:
        x, y = maps(n), torch.zeros(n, dtype=torch.int64, device=device)
        problems = [ProbeProblem(probe, FIXED_LEARNING_RATE, bench.epochs, size, precision) for probe in probes]
        for problem in problems:
            problem.start_epoch(0, 1)
        return _waiting(device, [functools.partial(problem.step, x, y) for problem in problems])

    def score(n: int) -> Callable[[], object]:
        x, scorers = maps(n), [scorer(probe.eval()) for probe in probes]
        return _waiting(device, [functools.partial(features, one, x, precision) for one in scorers])

    train = size * sum(design.training_operations(shape, n_classes) for design in designs)
    forward = SCORED * sum(design.operations(shape, n_classes) for design in designs)
    return (
        train / timer(Work("training", size, 1, step), SECONDS),
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
        rates = ", ".join(f"{rate:g}" for rate in family.rates)
        where = ", ".join(map(str, tried))
        yield f"rates {rates}: tried for {family.trial_epochs} epochs at depths {where}, one is chosen"
    yield f"{family.epochs} epochs of {family.precision} products on this {family.device.type}"


def _line(depth: str, source: str, trained: int, operations: int, nbytes: int, seconds: float) -> str:
    cells = f"{trained:>9}  {operations:>10.3e}  {show_size(nbytes):>9}  {show_seconds(seconds):>8}"
    return f"{depth:>5}  {source:<10} {cells}"
