"""The CNN-p probes of a run as one family: their learning rates, chosen once for all depths, and their fits.

1. `prepare` tries every rate with seed 0 at two depths of the run, and chooses one for each p and width.
2. `fit` trains every seed on train + validation (refit 1) at one depth, from one read of its activations, and only then
   reads the test split.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from layerwise import ranks
from layerwise.errors import UserError
from layerwise.hardware import pick_precision
from layerwise.runfile import RunFile
from layerwise.runfile.layout import POOL_SIDE
from probes.cnn.depth import CnnKind, Train
from probes.cnn.rates import (
    FIXED_LEARNING_RATE,
    LEARNING_RATES,
    Setting,
    chosen_rate,
    read_candidates,
    save_candidates,
    trial_epochs,
)
from probes.cnn.reading import Labelled, number_type
from probes.cnn.source import Source, choose_source, describe
from probes.cnn.training import (
    Candidate,
    Design,
    batch_size,
    predict,
    require_probeable,
    scaled,
    train_together,
)
from probes.names import CNN_EPOCHS, CNN_SEEDS, QUICK_EPOCHS
from probes.probe import Family, Played, ProbeName
from probes.protocol import Fit, Predictions, play
from probes.tasks.task import Task

log = logging.getLogger("layerwise.probes")


class CnnFamily(Family):
    """The CNN-p probes of a run and a task: every p, width and seed.

    Args:
        source: where maps come from, as in layerwise.activations.
        precision: of products, "fp32" or "bf16"; "auto" is bf16 where the device has it in silicon.
    """

    batch_size: int

    def __init__(
        self,
        run: RunFile,
        task: Task,
        *,
        ps: Sequence[int],
        widths: Sequence[int],
        seeds: int = CNN_SEEDS,
        epochs: int = CNN_EPOCHS,
        source: str = "auto",
        device: torch.device,
        precision: str = "auto",
    ):
        self.run, self.task, self.source, self.device = run, task, source, device
        self.ps, self.widths, self.seeds = tuple(ps), tuple(widths), seeds
        self.epochs = self.iterations = epochs
        self.trial_epochs = trial_epochs(epochs)
        self.batch_size = batch_size(device)
        self.rates = [scaled(rate, self.batch_size) for rate in LEARNING_RATES]
        self.precision = pick_precision(precision, device)
        self.title = (
            "CNN probes" if epochs > QUICK_EPOCHS else f"CNN probes, quick: {epochs} epochs are far from enough"
        )
        self._depths = _depths_with_maps(run)
        self._rates: dict[tuple[int, int], float] = {}
        self._sources: dict[int, Source] = {}

    def depths(self) -> list[int]:
        """Return the depths whose maps can be averaged; a network built elsewhere may also have vectors."""
        return self._depths

    def check(self, depths: Sequence[int]) -> None:
        for depth in depths:
            require_probeable(self.run, depth)

    def names(self, depth: int) -> list[ProbeName]:
        return [
            ProbeName(
                depth=depth, probe=f"cnn-{p}", probe_width=width, probe_seed=seed, control=self.task.control,
                pooling=0, target=self.task.target, precision=self.precision,
            )
            for p in self.ps for width in self.widths for seed in range(self.seeds)
        ]  # fmt: skip

    def prepare(self, missing: Mapping[int, Sequence[ProbeName]]) -> None:
        """Choose the rate of each p and width of which a probe is missing, and where maps come from; once is enough.

        Raises:
            UserError: maps too small for these probes; what the source needs is not in the file.
        """
        pairs = _pairs(missing)
        if all(depth in self._sources for depth in missing) and all(pair in self._rates for pair in pairs):
            return
        self.check(list(missing))
        trials = ranks.by_first(lambda: self.trials(missing))
        self._sources |= ranks.by_first(lambda: {depth: self.source_of(depth) for depth in (*missing, *trials)})
        n = sum(len(self.task.rows(split)) for split in self.run.splits)
        log.info("%s: %s", self.run.path, describe([self.source_of(depth) for depth in missing], n))
        for depth, tried in ranks.dealt(list(trials), lambda depth: self._try(depth, trials[depth])):
            save_candidates(self.run.path, depth, tried)
        table = ranks.by_first(lambda: read_candidates(self.run.path))
        for pair in pairs:
            rate = chosen_rate(table, self._setting(*pair), self.rates, trial_depths(self.run))
            assert rate is not None or self.selection == "seen"
            self._rates[pair] = rate or scaled(FIXED_LEARNING_RATE, self.batch_size)

    def trials(self, missing: Mapping[int, Sequence[ProbeName]]) -> dict[int, list[tuple[int, int]]]:
        """Return the pairs (p, width), by depth, for which rates are still to be tried; none where none is chosen."""
        if self.selection == "seen":
            return {}
        table = read_candidates(self.run.path)

        def is_tried(pair: tuple[int, int], depth: int) -> bool:
            return chosen_rate(table, self._setting(*pair), self.rates, [depth]) is not None

        pairs = _pairs(missing)
        untried = {depth: [pair for pair in pairs if not is_tried(pair, depth)] for depth in trial_depths(self.run)}
        return {depth: pairs for depth, pairs in untried.items() if pairs}

    def source_of(self, depth: int) -> Source:
        """Return where the maps of a depth come from, and what they cost."""
        if depth not in self._sources:
            self._sources[depth] = choose_source(self.run, depth, self.source, self.device)
        return self._sources[depth]

    def fit(self, depth: int, wanted: Sequence[ProbeName]) -> list[tuple[ProbeName, list[Fit]]]:
        """Train the wanted probes of a depth by the protocol, all of them from one read of its activations."""
        ((kind, open_splits, _),) = self.again(depth, wanted)
        fits = play(kind, open_splits, self.run.splits, self.fitted)
        return [(name, fits[name]) for name in wanted]

    def again(self, depth: int, names: Sequence[ProbeName]) -> Iterator[Played]:
        self.prepare({depth: names})  # rates that were tried stand in run.candidates.csv
        candidates = {name: self._candidate(Design.named(name)) for name in names}
        kind = CnnKind(
            self._trainer(depth, self.epochs), candidates, selection=self.selection, precision=self.precision
        )

        def open_splits(splits: Sequence[str]) -> Labelled:
            # Maps are read again in every epoch of training, those that are only scored once.
            return self._data(self.task, depth, splits, keep="train" in splits)

        yield kind, open_splits, names

    def _trainer(self, depth: int, epochs: int) -> Train:
        return functools.partial(
            train_together, depth=depth, shape=self.run.depth_shape(depth), n_classes=len(self.task.classes),
            epochs=epochs, precision=self.precision,
        )  # fmt: skip

    def _try(self, depth: int, pairs: Sequence[tuple[int, int]]) -> list[tuple[Setting, float, Predictions]]:
        """Train seed 0 of each (p, width) at every rate on the train fold of a depth; return what each scores."""
        data = self._data(self.task.chooser, depth, ["train"])
        designs = [Design(p, width, 0) for p, width in pairs]
        candidates = [Candidate(design, rate) for design in designs for rate in self.rates]
        trained = self._trainer(depth, self.trial_epochs)(data, len(data), candidates)
        validation = self._data(self.task.chooser, depth, ["validation"], keep=False)
        scores = predict([replace(one, half=None) for one in trained.values()], validation, self.precision)
        settings = [self._setting(c.design.p, c.design.width) for c in trained]
        return list(zip(settings, [c.learning_rate for c in trained], scores, strict=True))

    def _data(self, task: Task, depth: int, splits: Sequence[str], keep: bool = True) -> Labelled:
        source = self.source_of(depth).name
        if splits[0] not in self.run.splits:  # of images that are shown to a run nothing is stored
            source = "recompute"
        dtype = number_type(self.run, depth)
        return Labelled(task, depth, splits, source=source, device=self.device, dtype=dtype, keep=keep)

    def _candidate(self, design: Design) -> Candidate:
        return Candidate(design, self._rates[design.p, design.width])

    def _setting(self, p: int, width: int) -> Setting:
        task = self.task.chooser
        return Setting(
            self.run.run_id, f"cnn-{p}", width, task.control, task.target, self.trial_epochs, self.batch_size,
            self.precision,
        )  # fmt: skip


def trial_depths(run: RunFile) -> list[int]:
    """Return the depths at which rates are tried: the first and the last block whose maps a CNN probe can read."""
    probeable = [depth for depth in run.depths if min(run.depth_shape(depth)[1:]) >= POOL_SIDE]
    blocks = [depth for depth in probeable if depth > 0] or probeable
    return sorted({blocks[0], blocks[-1]})


def _depths_with_maps(run: RunFile) -> list[int]:
    found = [depth for depth in run.depths if min(run.depth_shape(depth)[1:]) >= POOL_SIDE]
    if not found:
        raise UserError(f"{run.path} has no depth with maps of at least 2x2, as CNN probes need. Use --probe linear.")
    if left_out := [str(depth) for depth in run.depths if depth not in found]:
        log.warning("no CNN probe is fitted at depth %s, whose maps are smaller than 2x2", ", ".join(left_out))
    return found


def _pairs(missing: Mapping[int, Sequence[ProbeName]]) -> list[tuple[int, int]]:
    """Return the (p, width) of the probes to be fitted."""
    return sorted({(design.p, design.width) for names in missing.values() for design in map(Design.named, names)})
