"""The local launcher: networks of a study completed on this machine, one after the other or a few at a time."""

from __future__ import annotations

import logging
import os
import signal
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from threading import Thread

from figures.study.definition import Study
from figures.study.grid import Piece
from figures.study.tally import Tally
from figures.study.work import Machine, complete
from layerwise.commandline import Terminated, prepare_process, set_verbosity, stoppable
from layerwise.errors import UserError, one_line


def launch_local(
    folder: Path, study: Study, units: Sequence[Piece], machine: Machine, jobs: int | None = None
) -> dict[Piece, str]:
    """Complete the networks, `jobs` at a time (None: as many as suit this machine); return what stopped each."""
    count = min(jobs or default_jobs(machine), len(units))
    if count > 1:
        return launch_processes(folder, study, units, machine, count)
    return launch_here(folder, study, units, machine)


def launch_here(folder: Path, study: Study, units: Sequence[Piece], machine: Machine) -> dict[Piece, str]:
    """Complete the networks one after the other; return what stopped each that failed. The others are not lost."""
    with Tally(len(units)) as tally:
        for unit in units:
            tally.begun(unit)
            try:
                tally.completed(unit, complete(folder, study, unit, machine))
            except Exception as error:  # whatever it is, the networks after it are not lost
                tally.failed(unit, one_line(error))
    return tally.failures


def launch_processes(
    folder: Path, study: Study, units: Sequence[Piece], machine: Machine, count: int
) -> dict[Piece, str]:
    """Complete the networks by `count` processes, which share the cores; return what stopped each that failed.

    When this one is stopped, they stop too, and what they have done is kept.
    """
    from layerwise.hardware import thread_count

    threads = max(1, thread_count() // count)
    queue = deque(units)
    running: dict[Future[float], Piece] = {}
    # Spawned, since a forked process has torch's locks but not its threads, and can use no GPU that this one uses.
    pool = ProcessPoolExecutor(count, get_context("spawn"), _begin_worker, (threads,))
    try:
        with Tally(len(units)) as tally:
            while queue or running:
                while queue and len(running) < count:  # no more, so that none waits in a process that is to stop
                    unit = queue.popleft()
                    running[pool.submit(_in_worker, folder, study, unit, machine)] = unit
                    tally.begun(unit)
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


def _take(tally: Tally, unit: Piece, done: Future[float]) -> None:
    error = done.exception()
    if error is None:
        tally.completed(unit, done.result())
    elif isinstance(error, BrokenProcessPool):
        raise error
    else:
        tally.failed(unit, one_line(error))


def default_jobs(machine: Machine) -> int:
    """Return how many networks are worked on at a time: two on a CPU, whose cores one alone does not fill.

    The smallest study took 4.3 minutes in one process with two threads, and 2.4 in two with one each.
    """
    from layerwise.hardware import pick_device, thread_count

    return 1 if pick_device(machine.device).type != "cpu" else min(2, thread_count())


def _begin_worker(threads: int) -> None:
    """Prepare a process that trains: its threads, its log, and that it stops when the one that began it is gone."""
    prepare_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the whole terminal: the process that began this one stops it
    from layerwise.hardware import use_threads

    use_threads(threads)
    set_verbosity(quiet=True, verbose=False)
    # What of a folder of images is not read was said with the forecast, and would be said again of every network.
    logging.getLogger("layerwise.imagefolder").setLevel(logging.ERROR)
    Thread(target=_stop_with_parent, daemon=True).start()


def _stop_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()  # returns also where the parent was killed, and could tell nobody
    os.kill(os.getpid(), signal.SIGTERM)


def _in_worker(folder: Path, study: Study, unit: Piece, machine: Machine) -> float:
    """Complete a network in a process that may be told to stop, and then keeps what was trained and is gone."""
    for handler in logging.getLogger("layerwise").handlers:
        handler.setFormatter(logging.Formatter(f"{unit.name}: %(message)s"))
    try:
        with stoppable():
            return complete(folder, study, unit, machine)
    except Terminated:
        os._exit(143)
