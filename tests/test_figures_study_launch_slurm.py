"""Jobs of several tasks, on this machine by submitit's local executor; tests/test_figures_study_definition.py has the
rest of the launcher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from figures.study.budgets import asked
from figures.study.definition import Unit, run_path
from figures.study.launch_slurm import launch_slurm
from figures.study.work import Machine
from layerwise.runfile import RunFile
from probes.results.table import read_rows

TINY = {"data.subset": 100, "network.depth": 2, "network.aux_width": 4, "training.epochs": 1, "precision": "fp32"}


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
