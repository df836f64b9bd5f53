"""Owns where the networks of a study are worked on: here, one or a few at a time, or as jobs of a Slurm cluster."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread

from figures.study.definition import Study, Unit
from figures.study.work import Machine, complete
from layerwise.commandline import Terminated, prepare_process, set_verbosity, stoppable
from layerwise.errors import UsageError, UserError, missing_package

log = logging.getLogger("layerwise.study")

LAUNCHERS = ("local", "slurm")


def launch_here(folder: Path, study: Study, units: Sequence[Unit], machine: Machine) -> dict[Unit, str]:
    """Complete the networks one after the other; return what stopped each that failed. The others are not lost."""
    tally = _Tally(len(units))
    for unit in units:
        try:
            tally.completed(unit, _timed(folder, study, unit, machine))
        except Exception as error:  # whatever it is, the networks after it are not lost
            tally.failed(unit, _one_line(error))
    return tally.failures


def launch_processes(
    folder: Path, study: Study, units: Sequence[Unit], machine: Machine, count: int
) -> dict[Unit, str]:
    """Complete the networks by `count` processes, which share the cores; return what stopped each that failed.

    When this one is stopped, they stop too, and what they have done is kept.
    """
    from layerwise.hardware import thread_count

    threads = max(1, thread_count() // count)
    tally, queue = _Tally(len(units)), deque(units)
    running: dict[Future[float], Unit] = {}
    pool = ProcessPoolExecutor(count, get_context("spawn"), _begin_worker, (threads,))
    try:
        while queue or running:
            while queue and len(running) < count:  # no more, so that none waits in a process that is to stop
                unit = queue.popleft()
                running[pool.submit(_in_worker, folder, study, unit, machine)] = unit
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                _take(tally, running.pop(done), done)
    except BrokenProcessPool:
        raise UserError(
            "a process that trains was killed, as the system does where memory runs out. What is complete is kept; "
            "the same command goes on: give it a smaller --jobs."
        ) from None
    except BaseException:
        for process in active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown()
    return tally.failures


def _take(tally: _Tally, unit: Unit, done: Future[float]) -> None:
    error = done.exception()
    if error is None:
        tally.completed(unit, done.result())
    elif isinstance(error, BrokenProcessPool):
        raise error
    else:
        tally.failed(unit, _one_line(error))


def default_jobs(machine: Machine) -> int:
    """Return how many networks are worked on at a time: two on a CPU, whose cores one alone does not fill."""
    from layerwise.hardware import pick_device, thread_count

    return 1 if pick_device(machine.device).type != "cpu" else min(2, thread_count())


def _begin_worker(threads: int) -> None:
    """Prepare a process that trains: its threads, its log, and that it stops when the one that began it is gone."""
    prepare_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the whole terminal: the process that began this one stops it
    from layerwise.hardware import use_threads

    use_threads(threads)
    set_verbosity(quiet=True, verbose=False)
    Thread(target=_stop_with_parent, daemon=True).start()


def _stop_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _in_worker(folder: Path, study: Study, unit: Unit, machine: Machine) -> float:
    """Complete a network in a process that may be told to stop, and then keeps what was trained and is gone."""
    for handler in logging.getLogger("layerwise").handlers:
        handler.setFormatter(logging.Formatter(f"{unit.name}: %(message)s"))
    try:
        with stoppable():
            return _timed(folder, study, unit, machine)
    except Terminated:
        os._exit(143)


def _timed(folder: Path, study: Study, unit: Unit, machine: Machine) -> float:
    """Complete a network; return the seconds it took."""
    start = time.perf_counter()
    complete(folder, study, unit, machine)
    return time.perf_counter() - start


class _Tally:
    """Says of each network that is through how it went and how long the rest will take."""

    def __init__(self, count: int):
        self.failures: dict[Unit, str] = {}
        self._count, self._through, self._begun = count, 0, time.perf_counter()

    def completed(self, unit: Unit, seconds: float) -> None:
        from layerwise.units import show_seconds

        place = self._place()
        rest = (time.perf_counter() - self._begun) / self._through * (self._count - self._through)
        after = f", about {show_seconds(rest)} left" if rest else ""
        log.info("%s  %s in %s%s", place, unit.name, show_seconds(seconds), after)

    def failed(self, unit: Unit, error: str) -> None:
        self.failures[unit] = error
        log.error("%s  %s failed: %s", self._place(), unit.name, error)

    def _place(self) -> str:
        self._through += 1
        return f"{self._through}/{self._count}"


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
        jobs = {unit: executor.submit(_timed, folder.resolve(), study, unit, machine) for unit in units}
    log.info("%d jobs were submitted; their logs are in %s", len(jobs), folder / "jobs")
    tally = _Tally(len(jobs))
    of_job = {job.job_id: unit for unit, job in jobs.items()}
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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _last_line(error: BaseException) -> str:
    """Return the last line of a job's traceback, which names the error."""
    lines = [line for line in str(error).splitlines() if line.strip() and not set(line.strip()) <= {"-", "^", "~"}]
    return " ".join(lines[-1].split()) if lines else type(error).__name__
