"""The plain task: a run's own classes, every image of each split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from layerwise.runfile import RunFile
from probes.tasks.task import Task


def test_the_plain_task_is_the_runs_own_classes(run_path: Path) -> None:
    with RunFile(run_path) as run:
        task = Task(run)
        assert task.classes == tuple("0123456789")
        for split in run.splits:
            assert np.array_equal(task.labels(split), run.labels(split))
            assert np.array_equal(task.rows(split), np.arange(len(run.labels(split))))
        assert repr(task) == "Task(class, control none, 10 classes)"
