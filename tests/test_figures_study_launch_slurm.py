"""Jobs of several tasks, on this machine by submitit's local executor; tests/test_figures_study_definition.py has the
rest of the launcher."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import submitit

from figures.study.budgets import asked
from figures.study.definition import Unit, run_path
from figures.study.launch_slurm import launch_slurm
from figures.study.work import Machine
from layerwise.runfile import RunFile
from probes.results.table import read_rows

TINY = {"data.subset": 100, "network.depth": 2, "network.aux_width": 4, "training.epochs": 1, "precision": "fp32"}


class Job:
    """A job of two tasks, as submitit has them, that ended by errors."""

    job_id, num_tasks = "7", 2

    def __init__(self, *errors: BaseException):
        self.errors = errors

    def task(self, number: int) -> SimpleNamespace:
        return SimpleNamespace(exception=lambda: self.errors[number], paths=SimpleNamespace(stderr=f"{number}.err"))

    def done(self) -> bool:
        return True


FAILED = """Job (task=0) failed during processing with trace:
{0}
Traceback
  f(x)
    ^^^
{1}
{0}
You can check
 - a
"""
KILLED = f"""Job 7 (task: 0) with path p has not produced any output (state: OOM)
No output:
{"-" * 40}
INFO loading
"""


def test_of_the_tasks_of_a_job_the_one_that_says_why_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    killed = submitit.core.utils.UncompletedJobError(KILLED)
    said, left = (
        submitit.core.utils.FailedJobError(FAILED.format("-" * 22, f"layerwise.errors.{words}"))
        for words in ("UserError: rank 0 of 2 ended", "EndedElsewhere: rank 1 ended")
    )
    for errors, expected in (
        ((killed, said), "rank 0 of 2 ended (job 7, log 1.err)"),
        ((left, said), "rank 0 of 2 ended (job 7, log 1.err)"),
        ((killed, killed), "Job 7 (task: 0) with path p has not produced any output (state: OOM) No output: (job 7"),
    ):
        job = Job(*errors)
        monkeypatch.setattr(submitit.AutoExecutor, "submit", lambda self, *words, job=job: job)
        monkeypatch.setattr(submitit.AutoExecutor, "batch", lambda self: nullcontext())
        unit = Unit("untrained", 2, 4, 0)
        study = asked("smoke", {}, [])
        failed = launch_slurm(tmp_path, study, [unit], Machine(device="cpu"), {}, cluster="local")
        assert failed[unit].startswith(expected)


def test_a_job_of_several_tasks_works_as_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    study = replace(asked("smoke", {}, []), ks=(2,), widths=(4,), seeds=1, settings=TINY, probes=("linear",))
    unit, damaged = Unit("untrained", 2, 4, 0), Unit("untrained-kaiming", 2, 4, 0)
    path = run_path(tmp_path, damaged)
    path.parent.mkdir()
    path.write_bytes(b"not HDF5")
    options = {"timeout_min": 5, "tasks_per_node": 2}
    failed = launch_slurm(tmp_path, study, [unit, damaged], Machine(device="cpu"), options, cluster="local")
    assert list(failed) == [damaged], failed
    assert failed[damaged].startswith(f"{path} is no run file: it is not HDF5.")
    with RunFile(run_path(tmp_path, unit)) as run:
        assert run.provenance["ranks"] == 2
        assert set(read_rows(run)["depth"]) >= {0, 1, 2}
