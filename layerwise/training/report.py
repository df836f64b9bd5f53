"""The display of a training: the progress bar, a line for each stage, TensorBoard where asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from layerwise.commandline import progress
from layerwise.errors import missing_package
from layerwise.training.history import Epoch, Score

log = logging.getLogger("layerwise.training")


class Report:
    """Shows stage, epoch, loss, accuracy and time left; a context manager around a training.

    done: epochs of a training that goes on. TensorBoard's folder gets what it lacks of them, and nothing twice: a
    process that is killed has shown epochs that it could not save, or saved some that it could not show.
    """

    def __init__(self, epochs: int, tensorboard: Path | None = None, done: Sequence[Epoch] = ()):
        self.epochs = epochs
        self._writer = _summary_writer(tensorboard) if tensorboard else None
        self._shown_before = _scalars_in(tensorboard) if tensorboard and done else set()
        for row in done:
            self._write(row)
        self._progress = progress()
        self._seconds: dict[int, float] = {}

    def __enter__(self) -> Report:
        self._bar = self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        if self._writer is not None:
            self._writer.close()

    def start(self, stage: str, steps: int, last_epoch: int | None = None, *, finetunes: bool = False) -> None:
        """Begin a stage of so many steps in all; `last_epoch` is the number of its last epoch.

        finetunes: whether it trains further what an earlier stage did.
        """
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        self._stage, self._seconds, self._shown, self._finetunes = stage, {}, "", finetunes
        self._last = self.epochs - 1 if last_epoch is None else last_epoch
        self._task = self._bar.add_task(stage, total=steps)

    def step(self, score: Score | None) -> None:
        """Count a step; show the score where there is a new one."""
        if score is not None:
            self._shown = f"loss {score.loss:.3f}, accuracy {score.accuracy:.1%}"
        self._bar.update(self._task, advance=1, description=f"{self._stage} {self._shown}")

    def epoch(self, row: Epoch) -> None:
        """Record a finished epoch; log a line after the last one of a stage."""
        self._seconds[row.block] = self._seconds.get(row.block, 0.0) + row.seconds
        self._write(row)
        validation = f", validation accuracy {row.validation.accuracy:.1%}" if row.validation else ""
        scores = f"accuracy while training {row.train.accuracy:.1%}{validation}"
        log.debug("depth %d, epoch %d: %s, loss %.4f", row.block, row.epoch, scores, row.train.loss)
        if row.epoch == self._last:
            name = f"depth {row.block}" + (", fine-tuned" if self._finetunes else "")
            log.info("%s: %s, %.0f s", name, scores, self._seconds[row.block])

    def _write(self, row: Epoch) -> None:
        """Write an epoch for TensorBoard, where that is asked for, but for what its folder holds already."""
        if self._writer is None:
            return
        for name, value in _scalars(row):
            if (name, row.epoch) not in self._shown_before:
                self._writer.add_scalar(name, value, row.epoch)


def _scalars(row: Epoch) -> Iterator[tuple[str, float]]:
    scores = {"train": row.train} | ({"validation": row.validation} if row.validation else {})
    for name, score in scores.items():
        yield f"depth {row.block}/{name} loss", score.loss
        yield f"depth {row.block}/{name} accuracy", score.accuracy
    yield f"depth {row.block}/learning rate", row.learning_rate


def _scalars_in(folder: Path) -> set[tuple[str, int]]:
    """Return name and epoch of every number that TensorBoard's folder holds."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()  # 0: all of them
    return {(name, event.step) for name in events.Tags()["scalars"] for event in events.Scalars(name)}


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise missing_package("--tensorboard", ["tensorboard"], "tensorboard") from None
    return SummaryWriter(str(folder))
