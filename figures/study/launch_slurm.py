"""The Slurm launcher: networks of a study completed as one array of jobs on a cluster, by submitit.

A job of several tasks (`tasks_per_node`, `nodes`) works on its network as ranks do that torchrun starts.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from figures.study.definition import Study
from figures.study.grid import Piece
from figures.study.tally import Tally
from figures.study.work import Machine, complete
from layerwise.errors import UsageError, missing_package, one_line

if TYPE_CHECKING:
    from submitit import Job

log = logging.getLogger("layerwise.study")


def launch_slurm(
    folder: Path,
    study: Study,
    units: Sequence[Piece],
    machine: Machine,
    options: Mapping[str, object],
    cluster: str = "slurm",
) -> dict[Piece, str]:
    """Complete the networks as one array of jobs, wait for them, and return what stopped each that failed.

    Stopping the wait stops no job: the same command finds what is done, and a network that a job is at work on says so.

    Args:
        options: parameters of submitit's AutoExecutor, such as timeout_min, slurm_partition, nodes or tasks_per_node.
        cluster: "slurm", or "local": processes of this machine.
    """
    submitit = _submitit()
    executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=cluster)
    try:
        # A day: submitit's own limit of 5 minutes would stop a job in the middle of its first network.
        # A task that ends badly ends the others of its job, as torchrun has it: on GPUs they would wait for it.
        own = {"timeout_min": 24 * 60, "slurm_srun_args": ["--kill-on-bad-exit=1"]}
        executor.update_parameters(**{"name": "separability-study", **own, **options})
    except (TypeError, NameError, ValueError) as error:
        raise UsageError(f"--slurm: {one_line(error)}") from None
    with executor.batch():
        jobs = {unit: executor.submit(complete_as_task, folder.resolve(), study, unit, machine) for unit in units}
    log.info("%d jobs were submitted; their logs are in %s", len(jobs), folder / "jobs")
    of_job = {job.job_id: unit for unit, job in jobs.items()}
    with Tally(len(jobs)) as tally:
        for job in submitit.helpers.as_completed(list(jobs.values())):
            raised = [(e, task.paths.stderr) for task in _tasks(job) if (e := task.exception())]
            if raised:
                first, where = min(raised, key=lambda one: _is_aftermath(one[0]))
                tally.failed(of_job[job.job_id], f"{_last_line(first)} (job {job.job_id}, log {where})")
            else:
                tally.completed(of_job[job.job_id], job.results()[0])
    return tally.failures


def complete_as_task(folder: Path, study: Study, unit: Piece, machine: Machine) -> float:
    """Do what `complete` does as one task of a job; several are ranks."""
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    if JobEnvironment().num_tasks == 1:
        return complete(folder, study, unit, machine)
    os.environ.pop("MASTER_PORT", None)  # of the shell that submitted: all jobs of a machine would have it
    # Which of a node's GPUs a rank takes, it knows by its number.
    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    from layerwise import ranks
    from layerwise.hardware import pick_device

    with ranks.joined(pick_device(machine.device)):
        return complete(folder, study, unit, machine)


def _tasks(job: Job[float]) -> list[Job[float]]:
    return [job.task(number) for number in range(job.num_tasks)]


def _is_aftermath(error: BaseException) -> bool:
    """Return whether a task says no more than that it was killed, or that another one ended."""
    return not _has_said(error) or "EndedElsewhere" in _last_line(error)


def _has_said(error: BaseException) -> bool:
    """Return whether a task ended by an error of its own, and not without a word."""
    return isinstance(error, _submitit().core.utils.FailedJobError)


def parse_options(words: Sequence[str]) -> dict[str, object]:
    """Return the words key=value of --slurm, integers as such; raise UsageError for a word that is none."""
    options: dict[str, object] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"--slurm {word!r} is no key=value, such as timeout_min=120 or slurm_partition=gpu.")
        options[key] = int(value) if value.isdecimal() else value
    return options


def _submitit():  # type: ignore[no-untyped-def]
    try:
        import submitit
    except ImportError:
        raise missing_package("--launcher slurm", ["submitit"], "slurm") from None
    return submitit


def _last_line(error: BaseException) -> str:
    """Return the line that names an error: of a task's traceback the last, which submitit puts between two rules."""
    parts = re.split(r"^-{10,}$", str(error), flags=re.MULTILINE)
    if not _has_said(error):
        return " ".join(parts[0].split())
    lines = [line for line in parts[1].splitlines() if not set(line.strip()) <= {"^", "~"}]
    return " ".join(lines[-1].split()).removeprefix("layerwise.errors.UserError: ")
