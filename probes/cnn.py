"""Owns the CNN-p probe of a depth: the auxiliary classifier with k = p + 1, trained on the frozen x_j.

All candidates (widths, probe seeds, learning rates) read the same batches, each with its own optimizer. The
paper gives no recipe for these probes; docs/protocol.md states this one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerwise.activations import Activations, open_activations
from layerwise.blocks import AuxiliaryClassifier
from layerwise.commandline import progress
from layerwise.config import TrainingConfig
from layerwise.errors import UserError
from layerwise.hardware import exact_float32
from layerwise.network import derive_seed, freeze, initialised
from layerwise.problem import AuxiliaryProblem
from layerwise.runfile import RunFile
from layerwise.training import Batches, solve
from probes.family import Family, ProbeName
from probes.protocol import Fit, Predictions, choose, predictions, selection
from probes.task import Task

log = logging.getLogger("layerwise.probes")

Key = TypeVar("Key", bound=Hashable)
LEARNING_RATES = (0.1, 0.02)
FIXED_LEARNING_RATE = 0.1
EPOCHS = 12
KEPT_BYTES = 2 * 10**9


@dataclass(frozen=True)
class Design:
    """One probe to report: its width M and its seed, for p hidden convolutions."""

    p: int
    width: int
    seed: int


def training_config(learning_rate: float, epochs: int) -> TrainingConfig:
    """Return the recipe of a CNN-p probe: SGD in three stages, no augmentation."""
    return TrainingConfig(epochs=epochs, learning_rate=learning_rate, lr_every=-(-epochs // 3))


class Labelled:
    """Activations of one or more splits joined end to end, with their labels, read by shuffled rows.

    They are kept in memory where all of them together take at most KEPT_BYTES; else each batch is read anew.
    """

    def __init__(self, run: RunFile, depth: int, splits: Sequence[str], source: str, device: torch.device):
        self.parts = [open_activations(run, depth, split, source=source, device=device) for split in splits]
        self.label = torch.from_numpy(np.concatenate([run.labels(split) for split in splits])).to(device)
        self.starts = np.cumsum([0] + [len(part) for part in self.parts])
        values = len(self.label) * int(np.prod(run.depth_shape(depth), dtype=np.int64))
        self._kept = torch.cat([_whole(part) for part in self.parts]) if 4 * values <= KEPT_BYTES else None

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, rows: np.ndarray) -> Tensor:
        """Return x_j [n, C, H, W] for an integer array of rows, in that order."""
        if self._kept is not None:
            return self._kept[torch.from_numpy(rows).to(self._kept.device)]
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        pieces = [part[rows[owner == i] - self.starts[i]] for i, part in enumerate(self.parts)]
        order = np.argsort(np.concatenate([np.flatnonzero(owner == i) for i in range(len(self.parts))]))
        return torch.cat(pieces)[torch.from_numpy(order).to(self.label.device)]

    def shuffled(self, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y) over all rows in the random order of `seed`."""
        order = np.random.default_rng(seed).permutation(len(self))
        for start in range(0, len(self), size):
            rows = order[start : start + size]
            yield self[rows], self.label[torch.from_numpy(rows).to(self.label.device)]


def _whole(part: Activations) -> Tensor:
    return torch.cat(list(part.batches()))


class CnnFamily(Family):
    """The CNN-p probes of a run, for every p, width and seed; those of a depth are trained from the same batches."""

    def __init__(
        self,
        run: RunFile,
        task: Task,
        *,
        ps: Sequence[int],
        widths: Sequence[int],
        seeds: int,
        epochs: int,
        source: str,
        device: torch.device,
    ):
        self.run, self.task, self.ps, self.widths, self.seeds = run, task, ps, widths, seeds
        self.epochs = self.iterations = epochs
        self.source, self.device = source, device
        self.title = "CNN probe, whole maps x_j"
        self._depths = _depths_with_maps(run)

    def depths(self) -> list[int]:
        """Return the depths with maps of at least 2x2."""
        return self._depths

    def names(self, depth: int) -> list[ProbeName]:
        """Return a name for each p, width and seed."""
        return [
            ProbeName(depth=depth, probe=f"cnn-{p}", probe_width=width, probe_seed=seed, pooling=0)
            for p in self.ps
            for width in self.widths
            for seed in range(self.seeds)
        ]

    def fit(self, depth: int, wanted: Sequence[ProbeName]) -> list[tuple[ProbeName, list[Fit]]]:
        """Train the wanted probes of a depth by the protocol."""
        designs = [Design(int(name.probe[4:]), name.probe_width, name.probe_seed) for name in wanted]
        found = probe_cnn(self.run, depth, designs, epochs=self.epochs, source=self.source, device=self.device)
        return [(name, found[design]) for name, design in zip(wanted, designs, strict=True)]


def _depths_with_maps(run: RunFile) -> list[int]:
    """Return the depths whose maps can be averaged to 2x2; a network built elsewhere may also have vectors."""
    found = [depth for depth in run.depths if min(run.depth_shape(depth)[1:]) >= 2]
    if not found:
        raise UserError(f"{run.path} has no depth with maps of at least 2x2, as CNN probes need. Use --probe linear.")
    if left_out := [str(depth) for depth in run.depths if depth not in found]:
        log.warning("no CNN probe is fitted at depth %s, whose maps are smaller than 2x2", ", ".join(left_out))
    return found


def probe_cnn(
    run: RunFile,
    depth: int,
    designs: Sequence[Design],
    *,
    epochs: int = EPOCHS,
    source: str = "auto",
    device: torch.device,
) -> dict[Design, list[Fit]]:
    """Train the CNN-p probes of one depth by the protocol, all of them from the same batches.

    Returns for each design the fit on the train fold and, where the run has a validation fold, the refit.
    """
    with exact_float32():
        return _probe(run, depth, designs, epochs, source, device)


def _probe(
    run: RunFile, depth: int, designs: Sequence[Design], epochs: int, source: str, device: torch.device
) -> dict[Design, list[Fit]]:
    how = selection(run)
    rates = LEARNING_RATES if how == "validation" else (FIXED_LEARNING_RATE,)
    trainer = _Trainer(run, depth, epochs, source, device)
    pairs = [(design, rate) for design in designs for rate in rates]
    trained = trainer.train(("train",), pairs)
    held = trainer.predict(trained, "validation") if how == "validation" else {}
    chosen = {}
    for design in designs:
        own = [pair for pair in pairs if pair[0] == design]
        chosen[design] = own[choose(own, lambda pair: held[pair])] if held else own[0]
    fits = [_Fits(("train",), {pair: trained[pair] for pair in chosen.values()})]
    if how == "validation":
        both = ("train", "validation")
        fits.append(_Fits(both, trainer.train(both, list(chosen.values()))))
    # The choice is made and the refits are done; only now is the test split read, in one pass for all of them.
    tested = trainer.predict({(i, pair): p for i, f in enumerate(fits) for pair, p in f.probes.items()}, "test")
    scores = [trainer.predict(f.probes, *f.splits) for f in fits]
    results: dict[Design, list[Fit]] = {design: [] for design in designs}
    for design, pair in chosen.items():
        for refit, f in enumerate(fits):
            scored = {"train": scores[refit][pair], "test": tested[refit, pair]}
            if held and not refit:
                scored["validation"] = held[pair]
            results[design].append(trainer.report(f.probes[pair], pair, refit, how, scored))
    return results


@dataclass(frozen=True)
class _Fits:
    """Probes trained on the same splits, by design and learning rate."""

    splits: tuple[str, ...]
    probes: dict[tuple[Design, float], _Trained]


class _Trained:
    def __init__(self, module: AuxiliaryClassifier, n_train: int, seconds: float):
        self.module, self.n_train, self.seconds = module, n_train, seconds


class _Trainer:
    """Trains and scores probes on one depth of one run."""

    def __init__(self, run: RunFile, depth: int, epochs: int, source: str, device: torch.device):
        self.run, self.depth, self.epochs, self.source, self.device = run, depth, epochs, source, device
        self.shape = run.depth_shape(depth)
        self.n_classes = len(run.dataset["classes"])
        if min(self.shape[1:]) < 2:
            raise UserError(
                f"depth {depth} has maps of {self.shape[1]}x{self.shape[2]}, too small for a CNN probe, which "
                "averages to 2x2. Leave this depth out by --depths, or use --probe linear."
            )

    def train(self, splits: Sequence[str], pairs: list[tuple[Design, float]]) -> dict[tuple[Design, float], _Trained]:
        """Train one probe for each (design, learning rate) on the given splits, all on the same batches."""
        data = Labelled(self.run, self.depth, splits, self.source, self.device)
        problems = [
            AuxiliaryProblem(nn.Identity(), self._new(d), training_config(rate, self.epochs)) for d, rate in pairs
        ]
        order = derive_seed(0, "probe order", self.depth)
        steps = -(-len(data) // problems[0].config.batch_size)

        def epoch_batches(epoch: int) -> Batches:
            return data.shuffled(problems[0].config.batch_size, order + epoch)

        start = time.perf_counter()
        with progress() as bar:
            task = bar.add_task(f"depth {self.depth}, {len(pairs)} probes", total=self.epochs)
            where = f"the CNN probe of depth {self.depth}"
            for _ in solve(problems, epoch_batches, range(self.epochs), steps, where):
                bar.advance(task)
        seconds = (time.perf_counter() - start) / len(pairs)
        for problem in problems:
            freeze(problem.classifier)
        return {
            pair: _Trained(problem.classifier, len(data), seconds)  # type: ignore[arg-type]
            for pair, problem in zip(pairs, problems, strict=True)
        }

    def _new(self, design: Design) -> AuxiliaryClassifier:
        seed = derive_seed(design.seed, f"probe {design.p} {design.width}", self.depth)
        channels, classes = self.shape[0], self.n_classes
        return initialised(
            seed,
            lambda: AuxiliaryClassifier(channels, classes, k=design.p + 1, width=design.width, batch_norm=True),
        ).to(self.device)

    @torch.no_grad()
    def predict(self, probes: Mapping[Key, _Trained], *splits: str) -> dict[Key, Predictions]:
        """Return the predictions of every probe over the given splits joined end to end, in one pass for all."""
        found: dict[Key, list[np.ndarray]] = {key: [] for key in probes}
        for split in splits:
            maps = open_activations(self.run, self.depth, split, source=self.source, device=self.device)
            for x in maps.batches():
                for key, probe in probes.items():
                    found[key].append(F.log_softmax(probe.module(x), 1).double().cpu().numpy())
        label = np.concatenate([self.run.labels(split) for split in splits])
        return {key: predictions(np.concatenate(parts), label) for key, parts in found.items()}

    def report(
        self, trained: _Trained, pair: tuple[Design, float], refit: int, how: str, scores: dict[str, Predictions]
    ) -> Fit:
        return Fit(
            refit=refit, selection=how, n_train=trained.n_train, n_features=int(np.prod(self.shape)),
            seconds=trained.seconds, learning_rate=pair[1], iterations=self.epochs, scores=scores,
        )  # fmt: skip
