"""Auxiliary replacement: the last auxiliary problem of a finished greedy run, solved again with another width M_f.

Block j is determined by the seed and the blocks below it. So a run that takes over blocks 1..J-1 of a finished one, and
solves problem J with another last auxiliary, equals the run trained from the start with network.last_aux_width = M_f:
the source is a shortcut, and is recorded in the provenance alone.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from layerwise.config import RunConfig
from layerwise.datasets import Dataset, Split, load_configured
from layerwise.datasets.reading import AUTO, ImageReading
from layerwise.errors import UsageError, UserError
from layerwise.images import recorded_files, recorded_folder
from layerwise.model.architectures import Shape
from layerwise.model.counts import count_problems
from layerwise.model.narrowing import narrow_all
from layerwise.model.network import LayerwiseNetwork
from layerwise.runfile import RunFile
from layerwise.training.checkpoint import Checkpoint
from layerwise.training.history import Epoch, Score
from layerwise.training.pruning import Pruned, accuracies_of
from layerwise.training.scoring import DepthScores
from layerwise.training.stages import stages

log = logging.getLogger("layerwise.replacement")

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Taken:
    """What is taken over from a finished run: its data, and the results of all problems but the last.

    weights: by (kind, j), kind "blocks" or "auxiliaries", as `RunFile.weights` returns them. scores: those of the
    source's last auxiliary, by the names of its attributes. config: the source's own.
    """

    run_id: str
    config: RunConfig
    dataset: Dataset
    weights: dict[tuple[str, int], Weights]
    history: list[Epoch]
    scores: dict[str, float]
    pruned: dict[int, Pruned] = field(default_factory=dict)

    def give(self, network: LayerwiseNetwork, checkpoint: Checkpoint) -> None:
        """Load it into a network whose training has not begun, and set the checkpoint before the last problem."""
        narrow_all(network, self.pruned)
        for (kind, j), weights in self.weights.items():
            module = (network.blocks if kind == "blocks" else network.auxiliaries)[j - 1]
            own = module.state_dict()
            module.load_state_dict({n: torch.from_numpy(v).reshape(own[n].shape) for n, v in weights.items()})
        checkpoint.history, checkpoint.pruned = list(self.history), dict(self.pruned)
        depth = self.config.network.depth
        checkpoint.stage = next(i for i, s in enumerate(stages(network, self.config)) if s.depths == (depth,))


def replaced(config: RunConfig, width: int, path: Path) -> RunConfig:
    """Return the configuration of a run with another width of its last auxiliary.

    Raises UsageError where its last auxiliary cannot be replaced alone, or has that width already.
    """
    net = config.network
    if width < 1:
        raise UsageError(f"--replace-auxiliary is {width}, but must be a number of channels, at least 1.")
    if config.mode != "greedy":
        raise UsageError(
            f"{path} was trained in mode {config.mode}, but --replace-auxiliary solves the last problem of a greedy "
            "run again: only there is it separate from the others."
        )
    if net.architecture != "plain":
        raise UsageError(f"{path} is of {net.variant}, but --replace-auxiliary is of the paper's plain networks.")
    if net.k == 1:
        raise UsageError(f"{path} was trained at k = 1, whose auxiliaries are linear: there is no width to replace.")
    if width == net.aux_width_at(net.depth):
        raise UsageError(f"the last auxiliary of {path} is {width} wide already; give another --replace-auxiliary.")
    return dataclasses.replace(config, network=dataclasses.replace(net, last_aux_width=width))


def take_over(path: Path, data_dir: Path | None, *, download: bool = False, reading: ImageReading = AUTO) -> Taken:
    """Read what is taken over from a finished run; images come from the file where it keeps them, else from the data.

    Raises UserError if the file was not trained here or lacks weights, or if the data are not those it was trained on.
    """
    with RunFile(path) as run:
        config = run.config
        if config is None:
            raise UserError(f"{path} has no configuration: it was not trained by layerwise-train, which --from needs.")
        below = range(1, config.network.depth)
        weights = {(kind, j): run.weights(kind, j) for kind in ("blocks", "auxiliaries") for j in below}
        found = {key: value for key, value in weights.items() if value is not None}
        if config.mode == "greedy" and len(found) < len(weights):
            raise UserError(f"{path} lacks weights of blocks or auxiliaries; take the whole file, as it was written.")
        dataset = _dataset(run, config, data_dir, download, reading)
        pruned = {j: record for j in below if (record := _pruned(run, j)) is not None}
        history = _history(run, config, dataset)
        return Taken(run.run_id, config, dataset, found, history, run.scores(config.network.depth), pruned)


def _dataset(run: RunFile, config: RunConfig, data_dir: Path | None, download: bool, reading: ImageReading) -> Dataset:
    about = run.dataset
    images = {split: run.images(split) for split in run.splits}
    reading = reading.of_originals(config.training.is_resized)
    if not config.training.is_resized and all(rows is not None for rows in images.values()):
        splits = {
            split: Split(rows[:], run.labels(split), run.indices(split), recorded_files(run, split))
            for split, rows in images.items()
            if rows is not None
        }
        mean, std = (tuple(about["normalisation"][name]) for name in ("mean", "std"))
        log.info("images, labels and splits are those that %s keeps", run.path)
        return Dataset(about["name"], tuple(about["classes"]), splits, mean, std)
    folder = data_dir or recorded_folder(run)
    if data_dir is None and folder is not None and config.data.dataset != "digits":
        log.info("images: read again from %s, compared by the fingerprint of each split", folder)
    dataset = load_configured(config.data, folder, download=download, reading=reading)
    others = [n for n, split in dataset.splits.items() if split.fingerprint() != about["fingerprint"].get(n)]
    if others:
        lacking = "originals" if config.training.is_resized else "images"
        raise UserError(
            f"{run.path} keeps no {lacking}, and those found for {config.data.dataset} are not the ones it was trained "
            f"on ({', '.join(others)} differ). Give the folder that was used by --data-dir."
        )
    return dataset


def _pruned(run: RunFile, j: int) -> Pruned | None:
    if (found := run.pruning(j)) is None:
        return None
    kept, saliency, accuracy = found
    return Pruned(kept, saliency, accuracy=accuracies_of(accuracy))


def _history(run: RunFile, config: RunConfig, dataset: Dataset) -> list[Epoch]:
    """Return the epochs of all problems but the last."""
    table, seconds = run.history(), run.epoch_seconds()
    counts = dataset.counts
    found = []
    for i, row in enumerate(() if table is None else table.tolist()):
        block, epoch, rate, loss, accuracy, validation_loss, validation_accuracy = row
        n = counts.get("validation")
        validation = None if n is None else Score(validation_loss, validation_accuracy, n)
        if block < config.network.depth:
            taken = 0.0 if seconds is None else float(seconds[i])
            found.append(Epoch(block, epoch, rate, Score(loss, accuracy, counts["train"]), validation, taken))
    return found


def describe_replacement(taken: Taken, config: RunConfig, scores: Sequence[DepthScores]) -> Iterator[str]:
    """Yield the table of the original and the replaced auxiliary, none of its lines wider than 80 columns.

    scores: of the run with the replaced one, by depth.
    """
    head = f"{'auxiliary':<10}{'width':>6}{'validation':>12}{'test':>9}{'ensemble test':>15}"
    yield f"{head}{'parameters':>13}{'with blocks':>14}"
    image, classes = taken.dataset.image_shape, len(taken.dataset.classes)
    yield _row("original", taken.config, taken.scores, image, classes)
    yield _row("replaced", config, scores[-1].attributes(), image, classes)


def _row(name: str, config: RunConfig, scores: Mapping[str, float], image: Shape, n_classes: int) -> str:
    net = config.network
    problems = count_problems(net, image, n_classes)
    auxiliary = problems[-1].auxiliary.parameters
    whole = auxiliary + sum(p.block.parameters for p in problems)
    keys = ("validation_accuracy", "test_accuracy", "ensemble_logits_test_accuracy")
    cells = ["-" if (value := scores.get(key)) is None else f"{value:.2%}" for key in keys]
    accuracies = "".join(f"{cell:>{size}}" for cell, size in zip(cells, (12, 9, 15), strict=True))
    return f"{name:<10}{net.aux_width_at(net.depth):>6}{accuracies}{auxiliary:>13,}{whole:>14,}"
