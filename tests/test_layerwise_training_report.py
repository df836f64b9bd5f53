"""What is seen while a run trains: a line for each stage, the bar on a terminal only, TensorBoard's events."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import make_run, small_config

from layerwise import commandline
from layerwise.errors import UserError
from layerwise.training.history import Epoch, Score
from layerwise.training.report import Report


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
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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


def test_without_its_package_tensorboard_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"--tensorboard needs the package .* pip install '.\[tensorboard\]'"):
        Report(small_config().training.epochs, tmp_path)
