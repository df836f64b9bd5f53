"""The forecast of time: single batches of a run are timed on random images and multiplied by their number.

It leaves no trace: it has networks of its own, private random streams, and a run file in memory. Reading the data set
and writing to the disk are not included.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from layerwise.config import RunConfig
from layerwise.datasets import Dataset, Sizes, Split
from layerwise.model.narrowing import narrow_all
from layerwise.model.network import LayerwiseNetwork, freeze
from layerwise.runfile.depths import NeedsFloat32
from layerwise.runfile.plan import Plan
from layerwise.runfile.writer import RunWriter
from layerwise.training.batches import DeviceSplit, evaluation_batch
from layerwise.training.capture import UNCAPTURED, CapturedStep
from layerwise.training.dump import dump_batch, dump_depths
from layerwise.training.loop import evaluate
from layerwise.training.prefix import FrozenPrefix
from layerwise.training.problem import AuxiliaryProblem, autocast
from layerwise.training.pruning import Pruned, saliencies, score_pruning
from layerwise.training.stage_batches import Kept, Recomputed

# Somebody waits for a forecast at the terminal, so it takes seconds, and says "about".
BUDGET = 2.0  # seconds for all measurements together, where the smallest batches are quick
LEAST = 0.2  # seconds that each measurement may take at least, however many there are
SMALLEST = 4  # images of the first batch that is timed: few, for slow machines; more than one, for BatchNorm
MOST = 5  # times that a batch is timed; the fastest is taken, since other programs can only make a batch slower
CORE_BLOCK = 2**20  # bytes by which a file in memory grows

PHASES = ("training", "scoring", "dump")
Timer = Callable[["Work", float], float]


@dataclass(frozen=True)
class Work:
    """One kind of batch: the phase it belongs to, its images when it is full, and how many batches the run takes.

    prepare: gets a number of images and returns what does one batch of them.
    """

    phase: str
    size: int
    batches: int
    prepare: Callable[[int], Callable[[], object]]


def seconds_per_batch(work: Work, budget: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds of a full batch, the fastest of a few.

    Batches grow fourfold from `SMALLEST` images while the next size, run twice, fits the budget of seconds (hence 8
    times the last one's time). A full batch that would not fit is scaled up in proportion to its images; but a small
    one, which has the same fixed costs, is timed again before it stands for a full one, in case it was disturbed.
    """
    n = min(work.size, SMALLEST)
    batch = work.prepare(n)
    batch()  # the first call of every size also sets the libraries up
    taken = [_timed(batch, clock)]
    while n < work.size:
        if 8 * min(taken) >= budget:
            if len(taken) == MOST or sum(taken) >= budget:
                break
            taken.append(_timed(batch, clock))
            continue
        n = min(work.size, 4 * n)
        batch = work.prepare(n)
        batch()
        taken = [_timed(batch, clock)]
    while len(taken) < MOST and sum(taken) < budget:
        taken.append(_timed(batch, clock))
    return min(taken) * work.size / n


def _timed(batch: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    batch()
    return clock() - start


class Rehearsal:
    """Every kind of batch that a run will compute, on a network of its own and random images."""

    def __init__(
        self,
        config: RunConfig,
        sizes: Sizes,
        storage: Plan,
        device: torch.device,
    ):
        self.config, self.sizes, self.storage, self.device = config, sizes, storage, device
        self.counts = sizes.counts
        self.constants = (0.5,) * sizes.image[0]  # mean and deviation of a channel: the time does not depend on them
        self.network = LayerwiseNetwork(
            config.network, sizes.image, sizes.n_classes, self.constants, self.constants, config.seed
        ).to(device)
        self.at_once, self.dumped = evaluation_batch(self.network), dump_batch(self.network)

    def works(self) -> Iterator[Work]:
        """Yield every kind of batch in the order of the run; time each before asking for the next, which may freeze."""
        if self.config.mode == "untrained":
            if self.config.network.has_batch_norm:
                yield Work("training", self.at_once, self._batches(self.at_once, "train"), self._score)
        else:
            yield from self._training()
            scored = [*self.counts, *(name for name in self.counts if name != "train" and self.config.mirrored)]
            yield Work("scoring", self.at_once, self._batches(self.at_once, *scored), self._score)
            if self.config.network.prune_to:
                batches = self._batches(self.at_once, *self.counts)
                yield Work("scoring", self.at_once, batches, self._score_states)
        freeze(self.network)
        yield Work("dump", self.dumped, self._batches(self.dumped, *self.counts), self._dump)

    def _training(self) -> Iterator[Work]:
        size = self.config.training.batch_size
        for j in self.config.heads:
            epochs = self.config.epochs_of(j)
            first = self.config.network.first_trained if self.config.mode == "end-to-end" else j
            block, auxiliary = nn.Sequential(*self.network.blocks[first - 1 : j]), self.network.auxiliaries[j - 1]
            if self.config.training.prefix == "cache" and first > 1:
                yield self._filling(first - 1)
            step = functools.partial(self._step, block, auxiliary, first - 1)
            yield Work("training", size, epochs * self._batches(size, "train"), step)
            yield from self._validation(block, auxiliary, first - 1, epochs)
            freeze(nn.ModuleList([block, auxiliary]))
            if self.config.network.prune_to:
                yield from self._compression(j)

    def _compression(self, j: int) -> Iterator[Work]:
        """Yield the batches of block j's pruning and of the fine-tuning after it."""
        training = self.config.training
        yield Work("training", training.batch_size, self._batches(training.batch_size, "train"), self._saliency(j))
        narrow_all(self.network, [j])
        auxiliary, block = self.network.auxiliaries[j - 1].requires_grad_(True), nn.Identity()
        if training.prefix == "cache":
            yield self._filling(j)
        step = functools.partial(self._step, block, auxiliary, j)
        steps = training.finetune_epochs * self._batches(training.batch_size, "train")
        yield Work("training", training.batch_size, steps, step)
        yield from self._validation(block, auxiliary, j, training.finetune_epochs)
        freeze(self.network.blocks[j - 1])
        freeze(auxiliary)

    def _saliency(self, j: int) -> Callable[[int], Callable[[], object]]:
        def prepare(n: int) -> Callable[[], object]:
            data, block, auxiliary = self._on_device(n), self.network.blocks[j - 1], self.network.auxiliaries[j - 1]

            def batch() -> None:
                inputs = ((self.network.advance(x, 0, j - 1), y) for x, y in data.in_order(self.network.normalise))
                saliencies(block, auxiliary, inputs)

            return batch

        return prepare

    def _validation(self, block: nn.Module, auxiliary: nn.Module, below: int, epochs: int) -> Iterator[Work]:
        if self.sizes.validation:
            batches = epochs * self._batches(self.at_once, "validation")
            evaluation = functools.partial(self._evaluate, block, auxiliary, below)
            yield Work("training", self.at_once, batches, evaluation)

    def _batches(self, size: int, *splits: str) -> int:
        return sum(-(-self.counts[name] // size) for name in splits)

    def _filling(self, below: int) -> Work:
        """Return the work of computing the frozen blocks' output once, where it is kept."""

        def prepare(n: int) -> Callable[[], object]:
            prefix, images = (
                FrozenPrefix(self.network, below, self.config.precision),
                torch.from_numpy(self._images(n).images).to(self.device),
            )

            def batch() -> None:
                prefix(images)
                self._wait()

            return batch

        validation = self._batches(self.at_once, "validation") if self.sizes.validation else 0
        batches = max(1, self.config.training.views) * self._batches(self.at_once, "train") + validation
        return Work("training", self.at_once, batches, prepare)

    def _step(self, block: nn.Module, auxiliary: nn.Module, below: int, n: int) -> Callable[[], object]:
        problem = AuxiliaryProblem(block, auxiliary, self.config.training, self.config.precision)
        problem.start_epoch(0, 1)
        source = self._source(n, below)

        def descend(*choice: Tensor) -> None:
            problem.descend(*source.fetch(*choice))

        step = CapturedStep(descend, self.device)

        def batch() -> None:
            for choice in source.batches(0):
                problem.prepare()
                step(*choice)
            self._wait()

        for _ in range(UNCAPTURED if self.device.type == "cuda" else 0):
            batch()
        return batch

    def _evaluate(self, block: nn.Module, auxiliary: nn.Module, below: int, n: int) -> Callable[[], object]:
        source = self._source(n, below)

        def batch() -> None:
            with autocast(self.config.precision, self.device):
                evaluate([(block, auxiliary)], source.validation())

        return batch

    def _source(self, n: int, below: int) -> Recomputed:
        """Return the source of x_below for n images, as in the run.

        In parallel training x_{j-1} comes from the step of the block below, so it costs nothing, as if it were kept.
        """
        is_there = below > 0 and (self.config.training.prefix == "cache" or self.config.mode == "parallel")
        data = {name: self._on_device(n) for name in ("train", "validation")}
        prefix = FrozenPrefix(self.network, below, self.config.precision)
        # Parts of originals are made by other processes, and not by the one whose time is forecast.
        config = replace(self.config, training=replace(self.config.training, crop="pad"))
        if is_there:
            return Kept(data, prefix, config, 1, folder=None)
        return Recomputed(data, prefix, config, 1)

    def _on_device(self, n: int) -> DeviceSplit:
        return DeviceSplit(self._images(n), self.device)

    def _pixels(self, n: int) -> Tensor:
        return torch.from_numpy(self._images(n).images).to(self.device)

    def _score(self, n: int) -> Callable[[], object]:
        images = self._pixels(n)

        @torch.no_grad()
        def batch() -> None:
            x = self.network.normalise(images)
            for j, block in enumerate(self.network.blocks, start=1):
                x = block(x)
                if j in self.config.heads:
                    self.network.auxiliaries[j - 1](x)
            self._wait()

        return batch

    def _score_states(self, n: int) -> Callable[[], object]:
        """Return a function that scores n images as run files of pruned networks ask: before pruning and after it."""
        data = self._dataset(n)
        records = {}
        for j in self.config.heads:
            modules = {"block": self.network.new_block(j), "auxiliary": self.network.new_auxiliary(j)}
            before = {f"{p}/{name}": t.numpy() for p, m in modules.items() for name, t in m.state_dict().items()}
            records[j] = Pruned(np.arange(self.network.shapes[j][0]), np.empty(0), before)
        return lambda: score_pruning(self.network, data, records)

    def _dump(self, n: int) -> Callable[[], object]:
        dataset = self._dataset(n)

        def batch() -> None:
            # A file in memory, of which nothing ever reaches a disk.
            in_memory = h5py.File("rehearsal", "w", driver="core", backing_store=False, block_size=CORE_BLOCK)
            with in_memory as file, suppress(NeedsFloat32):  # which says only that it would be written again
                dump_depths(RunWriter(file), self.network, dataset, self.storage)

        return batch

    def _dataset(self, n: int) -> Dataset:
        classes = tuple(map(str, range(self.sizes.n_classes)))
        return Dataset("random", classes, {"train": self._images(n)}, self.constants, self.constants)

    def _images(self, n: int) -> Split:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (n, *self.network.shapes[0]), dtype=np.uint8)
        return Split(images, rng.integers(0, self.sizes.n_classes, n), np.arange(n))

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def forecast_seconds(
    rehearsal: Rehearsal, timer: Timer = seconds_per_batch, phases: Sequence[str] = PHASES
) -> dict[str, float]:
    """Return the seconds of "training", "scoring" and "dump", which takes a few seconds itself.

    Args:
        timer: gives the seconds of one full batch of a work, in the seconds that it may take.
        phases: those that are asked for; the others are neither measured nor returned.
    """
    share = max(LEAST, BUDGET / (2 * rehearsal.config.network.depth + 2))
    seconds = dict.fromkeys(phases, 0.0)
    for work in rehearsal.works():
        if work.phase in phases:
            seconds[work.phase] += work.batches * timer(work, share)
    return seconds
