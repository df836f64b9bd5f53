"""Owns where the networks of a study are worked on: one after the other here, or as jobs of a Slurm cluster."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from figures.study import Study, Unit
from figures.study_run import Machine, complete
from layerwise.errors import UsageError, UserError

log = logging.getLogger("layerwise.study")

LAUNCHERS = ("local", "slurm")


def launch_here(folder: Path, study: Study, units: Sequence[Unit], machine: Machine) -> dict[Unit, str]:
    """Complete the networks one after the other; return what stopped each that failed. The others are not lost."""
    from layerwise.forecast import show_seconds

    failed: dict[Unit, str] = {}
    begun = time.perf_counter()
    for place, unit in enumerate(units, start=1):
        start = time.perf_counter()
        try:
            complete(folder, study, unit, machine)
        except Exception as error:  # whatever it is, the networks after it are not lost
            failed[unit] = _one_line(error)
            log.error("%d/%d  %s failed: %s", place, len(units), unit.name, failed[unit])
            continue
        now = time.perf_counter()
        rest = (now - begun) / place * (len(units) - place)
        after = f", about {show_seconds(rest)} left" if rest else ""
        log.info("%d/%d  %s in %s%s", place, len(units), unit.name, show_seconds(now - start), after)
    return failed


def launch_jobs(
    folder: Path,
    study: Study,
    units: Sequence[Unit],
    machine: Machine,
    options: Mapping[str, object],
    cluster: str = "slurm",
) -> dict[Unit, str]:
    """Complete the networks as one array of jobs, wait for them, and return what stopped each that failed.

    Stopping the wait stops no job: the same command finds what is done, and a network that a job is at work on says so.

    Args:
        options: parameters of submitit's AutoExecutor, such as timeout_min or slurm_partition.
        cluster: "slurm", or "local": processes of this machine.
    """
    submitit = _submitit()
    executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=cluster)
    try:
        executor.update_parameters(**{"name": "separability-study", "timeout_min": 24 * 60, **options})
    except (TypeError, NameError, ValueError) as error:
        raise UsageError(f"--slurm: {_one_line(error)}") from None
    with executor.batch():
        jobs = {unit: executor.submit(complete, folder.resolve(), study, unit, machine) for unit in units}
    log.info("%d jobs were submitted; their logs are in %s", len(jobs), folder / "jobs")
    failed: dict[Unit, str] = {}
    waiting = {job.job_id: unit for unit, job in jobs.items()}
    for job in submitit.helpers.as_completed(list(jobs.values())):
        unit = waiting.pop(job.job_id)
        raised = job.exception()
        if raised is None:
            log.info("%d/%d  %s", len(jobs) - len(waiting), len(jobs), unit.name)
            continue
        failed[unit] = f"{_last_line(raised)} (job {job.job_id}, log {job.paths.stderr})"
        log.error("%d/%d  %s failed: %s", len(jobs) - len(waiting), len(jobs), unit.name, failed[unit])
    return failed


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
        raise UserError(
            "--launcher slurm needs submitit, which is not installed: pip install 'layerwise-probes[slurm]'."
        ) from None
    return submitit


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _last_line(error: BaseException) -> str:
    """Return the last line of a job's traceback, which names the error."""
    lines = [line for line in str(error).splitlines() if line.strip() and not set(line.strip()) <= {"-", "^", "~"}]
    return " ".join(lines[-1].split()) if lines else type(error).__name__
