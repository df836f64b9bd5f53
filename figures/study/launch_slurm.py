"""The Slurm launcher: networks of a study completed as one array of jobs on a cluster, by submitit."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from figures.study.definition import Study
from figures.study.grid import Piece
from figures.study.tally import Tally
from figures.study.work import Machine, complete
from layerwise.errors import UsageError, missing_package, one_line

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
        options: parameters of submitit's AutoExecutor, such as timeout_min or slurm_partition.
        cluster: "slurm", or "local": processes of this machine.
    """
    submitit = _submitit()
    executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=cluster)
    try:
        # A day: submitit's own limit of 5 minutes would stop a job in the middle of its first network.
        executor.update_parameters(**{"name": "separability-study", "timeout_min": 24 * 60, **options})
    except (TypeError, NameError, ValueError) as error:
        raise UsageError(f"--slurm: {one_line(error)}") from None
    with executor.batch():
        jobs = {unit: executor.submit(complete, folder.resolve(), study, unit, machine) for unit in units}
    log.info("%d jobs were submitted; their logs are in %s", len(jobs), folder / "jobs")
    of_job = {job.job_id: unit for unit, job in jobs.items()}
    with Tally(len(jobs)) as tally:
        for job in submitit.helpers.as_completed(list(jobs.values())):
            raised = job.exception()
            if raised is None:
                tally.completed(of_job[job.job_id], job.result())
            else:
                tally.failed(of_job[job.job_id], f"{_last_line(raised)} (job {job.job_id}, log {job.paths.stderr})")
    return tally.failures


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
    """Return the last line of a job's traceback, which names the error."""
    lines = [line for line in str(error).splitlines() if line.strip() and not set(line.strip()) <= {"-", "^", "~"}]
    return " ".join(lines[-1].split()) if lines else type(error).__name__
