"""What is seen while a run trains: a line for each stage, the bar on a terminal only, TensorBoard's events."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from conftest import make_run, small_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from layerwise import commandline
from layerwise.errors import UserError
from layerwise.runfile import RunFile
from layerwise.runfile.place import Place
from layerwise.training import checkpoint as state
from layerwise.training.history import Epoch, Score
from layerwise.training.report import Report
from layerwise.training.run import train_run


def row(epoch: int, validation: Score | None = None) -> Epoch:
    return Epoch(2, epoch, 0.1, Score(0.5, 0.8, 100), validation, 3.0)


def test_a_line_at_the_end_of_each_stage_and_none_before(capsys: pytest.CaptureFixture[str]) -> None:
    commandline.set_verbosity(quiet=False, verbose=False)
    with Report(2) as report:
        report.start("block 2", 10)
        report.epoch(row(0))
        assert capsys.readouterr().err == ""
        report.epoch(row(1, Score(0.6, 0.75, 20)))
    assert capsys.readouterr().err == "depth 2: accuracy while training 80.0%, validation accuracy 75.0%, 6 s\n"


def test_only_a_stage_that_trains_further_is_called_fine_tuned(capsys: pytest.CaptureFixture[str]) -> None:
    commandline.set_verbosity(quiet=False, verbose=False)
    with Report(2) as report:
        report.start("block 2", 10, 5)  # a block of more epochs than others
        report.epoch(row(5))
        report.start("fine-tuning of auxiliary 2", 10, 3, finetunes=True)
        report.epoch(row(3))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["depth 2", "depth 2, fine-tuned"]


def test_verbose_says_every_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    commandline.set_verbosity(quiet=False, verbose=True)
    with Report(2) as report:
        report.start("block 2", 10)
        report.epoch(row(0))
    assert capsys.readouterr().err == "depth 2, epoch 0: accuracy while training 80.0%, loss 0.5000\n"


def test_the_bar_shows_stage_loss_accuracy_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    with Report(2) as report:
        report.start("block 2", 10)
        report.step(None)
        report.step(Score(0.1234, 0.9, 100))
        (task,) = report._bar.tasks
        assert task.description == "block 2 loss 0.123, accuracy 90.0%"
        assert (task.completed, task.total) == (2, 10)
        report.start("block 3", 5)
        report.step(None)
        (task,) = report._bar.tasks
        assert (task.description.strip(), task.total) == ("block 3", 5)


def test_nothing_is_drawn_where_stderr_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commandline.set_verbosity(quiet=True, verbose=False)
    make_run(tmp_path / "run.h5")
    assert capsys.readouterr() == ("", "")


def test_tensorboard_gets_every_epoch_of_every_depth(tmp_path: Path) -> None:
    with Report(2, tmp_path) as report:
        report.start("block 2", 10)
        for epoch in (0, 1):
            report.epoch(row(epoch, Score(0.6, 0.75, 20)))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == {
        f"depth 2/{name}"
        for name in ("train loss", "train accuracy", "validation loss", "validation accuracy", "learning rate")
    }
    assert [(e.step, e.value) for e in events.Scalars("depth 2/validation accuracy")] == [(0, 0.75), (1, 0.75)]


class Killed(BaseException):
    """Stands for a process that ends here and now."""


@pytest.mark.parametrize("epochs", [1, 3, 4, 6])
def test_tensorboard_gets_each_epoch_once_of_a_training_that_was_stopped(
    epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Saved after epochs 1, 4 and 8 alone, so that a process stopped elsewhere has shown epochs that are done again.
    monkeypatch.setattr(state, "SAVE_EVERY", 10**6)
    config = small_config(**{"training.epochs": 4})
    place = Place(out=tmp_path / "run.h5", device=torch.device("cpu"), tensorboard=tmp_path / "events")
    epoch = Report.epoch

    def stopped(self: Report, row: Epoch) -> None:
        epoch(self, row)
        if 4 * (row.block - 1) + row.epoch + 1 == epochs:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Report, "epoch", stopped)
        with pytest.raises(Killed):
            train_run(config, place)
    train_run(config, place)
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    with RunFile(place.out) as run:
        history = run.history()
    for block in (1, 2):
        rows = history[history["block"] == block]
        found = [(event.step, event.value) for event in events.Scalars(f"depth {block}/train loss")]
        assert [step for step, _ in found] == [0, 1, 2, 3]
        assert [value for _, value in found] == pytest.approx(rows["train_loss"].tolist())


def test_tensorboard_gets_what_was_saved_and_could_not_be_shown(tmp_path: Path) -> None:
    with Report(3, tmp_path, done=[row(0), row(1)]) as report:
        report.start("block 2", 10)
        report.epoch(row(2))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("depth 2/train loss")] == [0, 1, 2]


def test_without_its_package_tensorboard_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"--tensorboard needs the package .* pip install '.\[tensorboard\]'"):
        Report(small_config().training.epochs, tmp_path)
