"""The process in which a command is tried: forked from one that has loaded everything, bounded, and watched.

Loading torch takes seconds; a fork of a process that has done so begins at once, which is what makes a thousand trials
possible. A kill hits the fork alone.
"""

from __future__ import annotations

import atexit
import gc
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.torture.commands import entry, environment, fresh_words

MEMORY = 6 * 2**30  # bytes of address space that a child may take above what it began with
# Seconds after which a child is said to hang: a study with a Python of its own takes 25, beside other work above 60.
PATIENCE = 180.0
PAUSE = 0.0005  # seconds between two looks at a child: kills are as fine as this


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a child may use.

    seconds: of wall time. file_bytes: size of any file it writes, None for no limit.
    fresh: whether it is a Python of its own and no fork. redirect: shell words such as ">&-", of a fresh one.
    ascii: whether its terminal knows ASCII alone.
    """

    seconds: float = PATIENCE
    file_bytes: int | None = None
    fresh: bool = False
    redirect: str = ""
    ascii: bool = False


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a command left: its exit code (negative: the signal that ended it), texts, bytes at its peak.

    seconds: of wall time. cpu: seconds of processors, which others on the machine do not lengthen.
    """

    command: str
    words: tuple[str, ...] = ()
    code: int
    out: str
    err: str
    seconds: float
    peak: int
    hung: bool
    cpu: float = 0.0


class Pipe:
    """What a command writes to one stream: read as it comes, so that a full pipe never holds it up."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        os.set_blocking(self.read, False)
        self._text = b""

    def drain(self) -> None:
        """Take what was written since the last time."""
        with suppress(BlockingIOError):
            while data := os.read(self.read, 65536):
                self._text += data

    def close(self) -> str:
        """Return all that was written, as text."""
        self.drain()
        os.close(self.read)
        return self._text.decode("utf-8", "replace")


class Child:
    """A command that runs; `wait` ends it."""

    def __init__(self, command: str, words: Sequence[str], folder: Path, limits: Limits | None = None):
        self.command, self.words, self.limits = command, tuple(words), limits or Limits()
        self.began = time.monotonic()
        # Pipes, on which a limit of file sizes has no hold.
        self._out, self._err = Pipe(), Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            _be(command, words, folder, self.limits, self._out.write, self._err.write)
        os.close(self._out.write), os.close(self._err.write)
        self._base = _resident(self.pid)

    @property
    def elapsed(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.began

    def send(self, number: int) -> None:
        """Send a signal to the command, not to processes that it started."""
        os.kill(self.pid, number)

    def wait(self, watch: Callable[[Child], None] | None = None) -> Done:
        """Wait for its end; `watch` is called again and again meanwhile."""
        hung = False
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            self._out.drain(), self._err.drain()
            if pid:
                break
            if watch is not None:
                watch(self)
            if not hung and self.elapsed > self.limits.seconds:
                hung = True
                _end_group(self.pid)
            time.sleep(PAUSE)
        seconds = self.elapsed
        _end_group(self.pid)
        peak = max(0, usage.ru_maxrss * 1024 - (0 if self.limits.fresh else self._base))
        code, out, err = os.waitstatus_to_exitcode(status), self._out.close(), self._err.close()
        about = {"command": self.command, "words": self.words, "seconds": seconds, "peak": peak, "hung": hung}
        return Done(code=code, out=out, err=err, cpu=usage.ru_utime + usage.ru_stime, **about)


def call(
    command: str,
    words: Sequence[str],
    folder: Path,
    limits: Limits | None = None,
    watch: Callable[[Child], None] | None = None,
) -> Done:
    """Run a command in a folder and return what it left."""
    return Child(command, words, folder, limits).wait(watch)


def in_fork(work: Callable[[], str], seconds: float = PATIENCE) -> str:
    """Return the text that a function returns, called in a fork, so that nothing of it stays in this process.

    Raises RuntimeError if the fork dies or takes longer.
    """
    pipe = Pipe()
    began, pid = time.monotonic(), os.fork()
    if not pid:
        status = 1
        try:
            os.write(pipe.write, work().encode("utf-8", "replace"))
            status = 0
        finally:
            os._exit(status)
    os.close(pipe.write)
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        pipe.drain()
        if time.monotonic() - began > seconds:
            os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE)
    text = pipe.close()
    if ended[1]:
        raise RuntimeError("a fork of the torture itself did not end well")
    return text


def preload(command: str, words: Sequence[str], folder: Path) -> None:
    """Load here whatever modules a command loads when it runs, so that forks need not."""

    def loaded() -> str:
        quiet = os.open(os.devnull, os.O_RDWR)
        os.dup2(quiet, 1), os.dup2(quiet, 2)
        os.chdir(folder)
        _command(command, words)
        return "\n".join(sys.modules)

    for name in in_fork(loaded).split():
        if name not in sys.modules and not name.startswith("__"):
            try:
                __import__(name)
            except Exception:  # a name that no import gives: modules that others make
                continue
    # Forks then leave these objects alone, and share their memory.
    gc.collect()
    gc.freeze()


def _be(command: str, words: Sequence[str], folder: Path, limits: Limits, out: int, err: int) -> None:
    """Become the command; does not return."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        os.chdir(folder)
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(out, 1), os.dup2(err, 2)
        _bound(limits)
        if limits.fresh or limits.redirect:
            redirected = ["/bin/sh", "-c", f'"$@" {limits.redirect}', "sh"] if limits.redirect else []
            start = [*redirected, *fresh_words(command), *words]
            os.execve(start[0], start, environment() | ({"PYTHONIOENCODING": "ascii"} if limits.ascii else {}))
        code = _command(command, words)
    except BaseException:
        traceback.print_exc()
        code = 99
    # As an interpreter ends, but that modules and C libraries are not taken down one by one, which would take longer
    # than most trials; a fresh Python does that too.
    atexit._run_exitfuncs()
    _flush()
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _bound(limits: Limits) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    ceiling = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))


def _command(command: str, words: Sequence[str]) -> int:
    sys.argv = [command, *words]
    try:
        entry(command)()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _end_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
