"""Owns the CNN-p probes of a run as one family: their learning rates, chosen once for all depths, and their fits.

1. `prepare` tries every rate with seed 0 at two depths of the run, and chooses one for each p and width.
2. `fit` trains every seed on train + validation (refit 1) at one depth, from one read of its activations, and only then
   reads the test split. Where rates were tried, seed 0 on the train fold at the chosen rate (refit 0) is kept too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from layerwise.errors import UserError
from layerwise.hardware import pick_precision
from layerwise.runfile import RunFile
from probes.cnn.rates import FIXED_LEARNING_RATE, LEARNING_RATES, Setting, chosen_rate, read_candidates, save_candidates
from probes.cnn.reading import Labelled
from probes.cnn.source import Source, choose_source, describe
from probes.cnn.training import SIDE, Candidate, Design, Trained, predict, require_probeable, train_together
from probes.names import CNN_EPOCHS
from probes.probe import Family, ProbeName
from probes.protocol import Fit, Predictions, selection
from probes.tasks.controls import Permuted
from probes.tasks.task import Task

log = logging.getLogger("layerwise.probes")


class CnnFamily(Family):
    """The CNN-p probes of a run and a task: every p, width and seed.

    Args:
        source: where maps come from, as in layerwise.activations.
        precision: of products, "fp32" or "bf16"; "auto" is bf16 where the device has it in silicon.
    """

    def __init__(
        self,
        run: RunFile,
        task: Task,
        *,
        ps: Sequence[int],
        widths: Sequence[int],
        seeds: int = 3,
        epochs: int = CNN_EPOCHS,
        source: str = "auto",
        device: torch.device,
        precision: str = "auto",
    ):
        self.run, self.task, self.source, self.device = run, task, source, device
        self.ps, self.widths, self.seeds = tuple(ps), tuple(widths), seeds
        self.epochs = self.iterations = epochs
        self.precision = pick_precision(precision, device)
        self.title = "CNN probes"
        self._depths = _depths_with_maps(run)
        self._rates: dict[tuple[int, int], float] = {}
        self._sources: dict[int, Source] = {}
        self._tried: dict[tuple[int, Candidate], Trained] = {}

    @property
    def selection(self) -> str:
        """What chooses the learning rate: "validation", "seen" (no fold; a fixed one), "control" (the real labels')."""
        how = selection(self.run)
        return "control" if how == "validation" and isinstance(self.task, Permuted) else how

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the maps given to the probes: that in which their products are computed."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

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
        """Choose the rate of each p and width of which a probe is missing.

        Raises:
            UserError: maps too small for these probes; what the source needs is not in the file.
        """
        self.check(list(missing))
        n = sum(len(self.task.rows(split)) for split in self.run.splits)
        log.info("%s: %s", self.run.path, describe([self.source_of(depth) for depth in missing], n))
        for depth, pairs in self.trials(missing).items():
            self._try(depth, pairs)
        table = read_candidates(self.run.path)
        for pair in _pairs(missing):
            rate = chosen_rate(table, self._setting(*pair), trial_depths(self.run))
            assert rate is not None or self.selection == "seen"
            self._rates[pair] = rate or FIXED_LEARNING_RATE

    def trials(self, missing: Mapping[int, Sequence[ProbeName]]) -> dict[int, list[tuple[int, int]]]:
        """Return the pairs (p, width), by depth, for which rates are still to be tried; none where none is chosen."""
        if self.selection == "seen":
            return {}
        table = read_candidates(self.run.path)
        untried = {
            depth: [pair for pair in _pairs(missing) if chosen_rate(table, self._setting(*pair), [depth]) is None]
            for depth in trial_depths(self.run)
        }
        return {depth: pairs for depth, pairs in untried.items() if pairs}

    def source_of(self, depth: int) -> Source:
        """Return where the maps of a depth come from, and what they cost."""
        if depth not in self._sources:
            self._sources[depth] = choose_source(self.run, depth, self.source, self.device)
        return self._sources[depth]

    def fit(self, depth: int, wanted: Sequence[ProbeName]) -> list[tuple[ProbeName, list[Fit]]]:
        """Train the wanted probes of a depth on train + validation; on the train fold what chose the rate, or all.

        Without a validation fold all are fitted on the train fold; with one, seed 0 alone where rates are tried.
        """
        designs = [Design.named(name) for name in wanted]
        data = self._data(self.task, depth, [split for split in self.run.splits if split != "test"])
        has_fold = self.selection != "seen"
        fitted = {0: self._first_fits(data, depth, [d for d in designs if self.fits_fold(d, depth)])}
        if has_fold:
            fitted[1] = self._train(data, len(data), depth, [self._candidate(d) for d in designs])
        probes = {(refit, c.design): t.module for refit, found in fitted.items() for c, t in found.items()}
        seen = predict(probes, data.in_order(range(len(data))), data.label.cpu().numpy(), self.precision)
        # The choice is made and the refits are done; only now is the test split read, in one pass for all of them.
        test = self._data(self.task, depth, ["test"], keep=False)
        tested = predict(probes, test.in_order(range(len(test))), test.label.cpu().numpy(), self.precision)
        fits: dict[Design, list[Fit]] = {design: [] for design in designs}
        for refit, found in fitted.items():
            for candidate, trained in found.items():
                key = refit, candidate.design
                scores = {"test": tested[key]} | _by_split(seen[key], data, refit, has_fold)
                fits[candidate.design].append(self._report(candidate, trained, depth, refit, scores))
        return [(name, fits[Design.named(name)]) for name in wanted]

    def fits_fold(self, design: Design, depth: int) -> bool:
        """Return whether a probe is fitted on the train fold alone: where there is no other, or where it chose."""
        if self.selection != "validation":
            return self.selection == "seen"
        return design.seed == 0 and depth in trial_depths(self.run)

    def _first_fits(self, data: Labelled, depth: int, designs: Sequence[Design]) -> dict[Candidate, Trained]:
        """Return the fits on the train fold, taking those that were trained there to choose a rate as they are."""
        candidates = [self._candidate(design) for design in designs]
        found = {c: self._tried[depth, c] for c in candidates if (depth, c) in self._tried}
        missing = [c for c in candidates if c not in found]
        return found | (self._train(data, data.split(0).stop, depth, missing) if missing else {})

    def _try(self, depth: int, pairs: Sequence[tuple[int, int]]) -> None:
        """Train seed 0 of each (p, width) at every rate on the train fold of a depth, and keep what it scores."""
        data = self._data(self._chooser, depth, ["train"])
        designs = [Design(p, width, 0) for p, width in pairs]
        candidates = [Candidate(design, rate) for design in designs for rate in LEARNING_RATES]
        trained = self._train(data, len(data), depth, candidates)
        held = self._data(self._chooser, depth, ["validation"], keep=False)
        modules = {candidate: t.module for candidate, t in trained.items()}
        scores = predict(modules, held.in_order(range(len(held))), held.label.cpu().numpy(), self.precision)
        tried = [(self._setting(c.design.p, c.design.width), c.learning_rate, scores[c]) for c in candidates]
        save_candidates(self.run.path, depth, tried)
        self._tried |= {(depth, candidate): t for candidate, t in trained.items()}

    def _train(self, data: Labelled, n: int, depth: int, candidates: Sequence[Candidate]) -> dict[Candidate, Trained]:
        return train_together(
            data, n, candidates, depth=depth, shape=self.run.depth_shape(depth),
            n_classes=len(self.task.classes), epochs=self.epochs, precision=self.precision,
        )  # fmt: skip

    def _data(self, task: Task, depth: int, splits: Sequence[str], keep: bool = True) -> Labelled:
        source = self.source_of(depth).name
        return Labelled(task, depth, splits, source=source, device=self.device, dtype=self.dtype, keep=keep)

    def _candidate(self, design: Design) -> Candidate:
        return Candidate(design, self._rates[design.p, design.width])

    @property
    def _chooser(self) -> Task:
        """The task on which rates are chosen: nothing of permuted labels can be predicted, so not on them."""
        return self.task.task if isinstance(self.task, Permuted) else self.task

    def _setting(self, p: int, width: int) -> Setting:
        task = self._chooser
        return Setting(self.run.run_id, f"cnn-{p}", width, task.control, task.target, self.epochs, self.precision)

    def _report(
        self, candidate: Candidate, trained: Trained, depth: int, refit: int, scores: dict[str, Predictions]
    ) -> Fit:
        return Fit(
            refit=refit, selection=self.selection, n_train=trained.n_train,
            n_features=int(np.prod(self.run.depth_shape(depth))), seconds=trained.seconds,
            learning_rate=candidate.learning_rate, iterations=self.epochs, scores=scores,
        )  # fmt: skip


def trial_depths(run: RunFile) -> list[int]:
    """Return the depths at which rates are tried: the first and the last block whose maps a CNN probe can read."""
    probeable = [depth for depth in run.depths if min(run.depth_shape(depth)[1:]) >= SIDE]
    blocks = [depth for depth in probeable if depth > 0] or probeable
    return sorted({blocks[0], blocks[-1]})


def _depths_with_maps(run: RunFile) -> list[int]:
    found = [depth for depth in run.depths if min(run.depth_shape(depth)[1:]) >= SIDE]
    if not found:
        raise UserError(f"{run.path} has no depth with maps of at least 2x2, as CNN probes need. Use --probe linear.")
    if left_out := [str(depth) for depth in run.depths if depth not in found]:
        log.warning("no CNN probe is fitted at depth %s, whose maps are smaller than 2x2", ", ".join(left_out))
    return found


def _pairs(missing: Mapping[int, Sequence[ProbeName]]) -> list[tuple[int, int]]:
    """Return the (p, width) of the probes to be fitted."""
    return sorted({(design.p, design.width) for names in missing.values() for design in map(Design.named, names)})


def _by_split(seen: Predictions, data: Labelled, refit: int, has_fold: bool) -> dict[str, Predictions]:
    """Return the scores on train and validation; at refit 1, and without a fold, all that was read is train."""
    if refit or not has_fold:
        return {"train": seen}
    return {"train": seen.rows(data.split(0)), "validation": seen.rows(data.split(1))}
