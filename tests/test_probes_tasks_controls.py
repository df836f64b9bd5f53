"""Control tasks: permuted labels keep their counts, a teacher's labels are balanced, fixed and can be learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_run

from layerwise.errors import UsageError
from layerwise.runfile import RunFile
from probes.tasks.controls import Teacher, balancing_shifts, controlled
from probes.tasks.task import Task


def test_permuted_labels_keep_their_counts_and_lose_their_images(run_path: Path) -> None:
    with RunFile(run_path) as run:
        task, permuted = Task(run), controlled(Task(run), "permuted")
        for split in run.splits:
            real, other = task.labels(split), permuted.labels(split)
            assert np.array_equal(np.sort(real), np.sort(other))
            assert (real == other).mean() < 0.2
            assert np.array_equal(other, permuted.labels(split))
        assert (permuted.control, permuted.classes) == ("permuted", task.classes)


def test_a_teachers_labels_are_balanced_and_have_nothing_to_do_with_the_classes(run_path: Path) -> None:
    with RunFile(run_path) as run:
        teacher = controlled(Task(run), "teacher")
        share = np.bincount(teacher.labels("train"), minlength=10) / len(teacher.labels("train"))
        assert 0.08 < share.min() <= share.max() < 0.12
        assert len(teacher.classes) == 10
        best = max((teacher.labels("train") == (run.labels("train") + i) % 10).mean() for i in range(10))
        assert best < 0.3


def test_all_runs_on_the_same_images_have_the_same_teacher(run_path: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other.h5", mode="untrained", seed=5, **{"network.width": 3})
    with RunFile(run_path) as run, RunFile(other) as second:
        for split in run.splits:
            assert np.array_equal(Teacher(run).labels(split), Teacher(second).labels(split))


def test_shifts_balance_even_correlated_outputs_of_unequal_spread() -> None:
    rng = np.random.default_rng(0)
    outputs = torch.from_numpy(rng.normal(0, 1, (4000, 1)) + rng.normal(0, 0.3, (4000, 7)) * np.arange(1, 8))
    assert torch.bincount(outputs.argmax(1), minlength=7).min() < 0.7 * 4000 / 7
    share = torch.bincount((outputs - balancing_shifts(outputs)).argmax(1), minlength=7) / 4000
    assert share.min() > 0.9 / 7
    assert share.max() < 1.1 / 7


def test_no_control_is_the_task_itself_and_an_unknown_one_is_refused(run_path: Path) -> None:
    with RunFile(run_path) as run:
        task = Task(run)
        assert controlled(task, "none") is task
        with pytest.raises(UsageError, match="unknown control 'permute'. Did you mean 'permuted'"):
            controlled(task, "permute")
