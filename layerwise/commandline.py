"""How every command starts and ends: exit codes, one-line errors, signals, logging, progress.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 stopped by SIGINT and SIGTERM. The answer to
`--help` must not load torch, pandas, h5py or matplotlib, so nothing of that kind is imported here.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import io
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO, cast

import typer

from layerwise import __version__, launch
from layerwise.errors import EndedElsewhere, UsageError, UserError, said
from layerwise.hidden import hidden
from layerwise.notebook import notebook_bar, notebook_line

if TYPE_CHECKING:
    from rich.progress import Progress

log = logging.getLogger("layerwise")

# typer ships its own copy of click from 0.26 on; the base of its usage errors is the same in both.
_ClickException: type[Exception] = typer.BadParameter.__mro__[2]


# The groups of --help, in their order. What every command takes alike, such as --version, stands before them.
INPUT, NETWORK, TRAINING, OUTPUT, MACHINE = "Input", "Network", "Training", "Output", "Machine"
FITTED, SHOWN, EXPORTED = "What to fit", "What to show", "What to export"
_GROUPS = (INPUT, NETWORK, TRAINING, FITTED, SHOWN, EXPORTED, OUTPUT, MACHINE)


class Terminated(BaseException):
    """Raised in the main thread by SIGTERM, so that temporary files are removed on the way out."""


# Seconds after a signal in which further ones are not heard: Ctrl-C pressed twice, or the SIGTERM of a scheduler that
# sent SIGINT first, would else stop the removal of temporary files.
_DEAF = 2.0


def run(command: Callable[..., Any], prog: str) -> NoReturn:
    """Run `command` with the arguments of the command line and exit the process with its code.

    Args:
        command: a function whose annotated signature is the command line (typer's grammar).
        prog: the command's name, which begins every error line.
    """
    prepare_process()
    open_standard_streams()
    for line in hidden():  # here, where every command has its name, and not at the import of what may not be needed
        _say(f"{prog}: {line}")
    with stoppable():
        code = call(command, prog, sys.argv[1:])
    for signum in (signal.SIGINT, signal.SIGTERM):  # what is said is done: the end of Python's own takes 0.1 s and more
        signal.signal(signum, signal.SIG_IGN)
    _let_go(sys.stdout, sys.stderr)
    sys.exit(code)


def open_standard_streams() -> None:
    """Let every standard stream be there and take any letter, whatever the caller closed and the terminal can show.

    A number of a closed stream (`>&-`) would go to the next file opened, and what a library prints into run.h5.
    Letters that an encoding lacks are escaped: a label in another alphabet stops no work.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            setattr(sys, name, nowhere)
        elif isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # a pipe under a number where a file was when Python started cannot be sought
                stream.reconfigure(errors="backslashreplace")


def prepare_process() -> None:
    """Prepare a process for training: how its threads wait, and that it keeps freed memory."""
    # Must be set before torch loads OpenMP. Threads that wait by spinning fall far behind as soon as another
    # program wants a core: small networks then took 2 to 5 times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGINT raise KeyboardInterrupt in the block and SIGTERM raise Terminated; only the main thread can do that.

    Python drops what is raised inside a destructor or a callback of the collector; it is then raised again after it. A
    SIGINT that is ignored, as of what a shell starts in the background, stays so.
    """
    raised: dict[int, type[BaseException]] = {signal.SIGTERM: Terminated}
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        raised[signal.SIGINT] = KeyboardInterrupt
    deaf_until = 0.0

    def stop(signum: int, frame: object) -> None:
        nonlocal deaf_until
        if time.monotonic() >= deaf_until:
            deaf_until = time.monotonic() + _DEAF
            raise raised[signum]

    def dropped(unraisable: Any) -> None:
        nonlocal deaf_until
        signum = next((number for number, kind in raised.items() if unraisable.exc_type is kind), None)
        if signum is None:
            hook(unraisable)
        else:
            deaf_until = 0.0
            # By another thread and a moment later: here it would be dropped once more.
            threading.Timer(0.01, signal.pthread_kill, [threading.main_thread().ident, signum]).start()

    before, hook = {signum: signal.signal(signum, stop) for signum in raised}, sys.unraisablehook
    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def if_stopped(words: Callable[[], str]) -> Iterator[None]:
    """Say what is kept where a signal stops the block, and whether the same command goes on; the outermost is heard."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as error:
        error.add_note(words())
        raise


def call(command: Callable[..., Any], prog: str, words: list[str]) -> int:
    """Run `command` with the given arguments and return its exit code; errors become one line on stderr."""

    begun = False

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> int:
        nonlocal begun
        begun = True
        kwargs.pop(_VERSION)
        # Caught here, since typer would turn interrupts, broken pipes and ends of files into exits of its own.
        try:
            _refuse_several(prog)
            with _plain_output():
                command(*args, **kwargs)
                sys.stdout.flush()
        except (Exception, KeyboardInterrupt, Terminated) as error:
            return _answer(error, prog)
        return 0

    guarded.__signature__ = _with_version(command, prog)  # type: ignore[attr-defined]
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command(context_settings={"help_option_names": ["-h", "--help"]})(guarded)
    try:
        if {"--install-completion", "--show-completion"}.intersection(words):
            _require_shell()
        code: int = app(args=words, prog_name=prog, standalone_mode=False)
        sys.stdout.flush()
        if code == 130 and not begun:  # typer's own silent answer to a SIGINT before the command
            raise KeyboardInterrupt
    except (Exception, KeyboardInterrupt, Terminated) as error:
        return _answer(error.__cause__ if isinstance(error.__cause__, KeyboardInterrupt) else error, prog)
    return code


# Seconds in which the first of several processes comes to say what is wrong with its words, also on a busy machine; the
# others are ended as soon as it has.
_FIRST_SAYS = 60.0
_OF_SEVERAL = ("layerwise-train", "layerwise-extract", "probe-depth")  # commands that work in several processes


def _refuse_several(prog: str) -> None:
    """Raise UsageError where torchrun started a command that works in one process."""
    if launch.several() and prog not in _OF_SEVERAL:
        raise UsageError(
            f"torchrun started {launch.count()} processes, and {prog} works in one: run it without. Of the commands "
            f"{', '.join(_OF_SEVERAL)} can share its work among several."
        )


def _require_shell() -> None:
    """Raise UserError where the shell whose completion is asked for cannot be told: typer says only "not supported"."""
    import shellingham

    try:
        shellingham.detect_shell()
    except (shellingham.ShellDetectionFailure, OSError):
        raise UserError(
            "the shell that this runs in cannot be told, so that nothing can be completed in it. Run this in bash, "
            "zsh, fish or PowerShell."
        ) from None


_VERSION = "version"


def _with_version(command: Callable[..., Any], prog: str) -> inspect.Signature:
    """Return the signature of a command with the option --version beside its own."""

    def show(asked: bool) -> None:
        if asked:
            print(f"{prog} {__version__}")
            raise typer.Exit

    option = typer.Option("--version", callback=show, is_eager=True, help="Show the version and stop.")
    own = inspect.signature(command, eval_str=True)
    kept = sorted(own.parameters.values(), key=_group)
    added = inspect.Parameter(
        _VERSION, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option]
    )
    return own.replace(parameters=[*(one.replace(kind=one.KEYWORD_ONLY) for one in kept), added])


def _group(parameter: inspect.Parameter) -> int:
    """Return the place of a parameter's group in --help: arguments, which have none, stand first."""
    panels = [getattr(word, "rich_help_panel", None) for word in getattr(parameter.annotation, "__metadata__", ())]
    return _GROUPS.index(panels[0]) if panels and panels[0] in _GROUPS else -1


def _answer(error: BaseException, prog: str) -> int:
    """Print in one line what stopped the command and return its exit code."""
    match error:
        case EndedElsewhere():
            return 1
        case UsageError() | _ClickException() if launch.number():
            time.sleep(_FIRST_SAYS)  # every process was given the same words, and this one's end would end the first
            return 2
        case KeyboardInterrupt() | Terminated() if launch.number():
            return 130 if isinstance(error, KeyboardInterrupt) else 143
        case UserError():
            _say(f"{prog}: {error}")
            return 2 if isinstance(error, UsageError) else 1
        case _ClickException():
            message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
            _say(f"{prog}: {message}. `{prog} --help` shows what it takes.")
            return 2
        case KeyboardInterrupt() | Terminated():
            name, code = ("SIGINT", 130) if isinstance(error, KeyboardInterrupt) else ("SIGTERM", 143)
            kept = getattr(error, "__notes__", ["Nothing half written is left; the same command begins anew."])[-1]
            _say(f"{prog}: stopped by {name}. {kept}")
            return code
        case BrokenPipeError():
            # The reader of our standard output is gone (as with `| head`): there is nobody to tell.
            _let_go(sys.stdout)
            return 1
        case _StdoutError():
            _say(f"{prog}: standard output takes no more ({error.strerror}). What was complete before is kept.")
            return 1
        case ImportError() if any(hidden()):  # which `run` has said
            return 1
        case MemoryError() | RuntimeError() if _is_out_of_memory(error):
            _say(
                f"{prog}: out of memory. Make less at once: a smaller width or training.batch_size (of "
                "layerwise-extract a smaller --batch-size); --dry-run of layerwise-train tells what a run needs."
            )
            return 1
        case OSError(errno=int()):
            # A full disk, a folder without permission: the system says which, and the user can mend it.
            where = f"{error.filename}: " if error.filename else ""
            _say(f"{prog}: {where}{error.strerror or error}. What was complete before is kept.")
            return 1
    _say(f"{prog}: {_report(prog, error)}")
    return 1


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is about memory, by its words: torch's own class cannot be imported here."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in words or "not enough memory" in words


def _report(prog: str, error: BaseException) -> str:
    """Write the traceback of a defect to a file and return the line that names it."""
    handle, path = tempfile.mkstemp(prefix=f"{prog}-", suffix=".traceback.txt")
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write("".join(traceback.format_exception(error)))
    return (
        f"this is a defect of {prog}, not of your input: {type(error).__name__}. "
        f"The traceback is in {path}; please report it."
    )


# What a terminal obeys instead of showing it, but for tab and line feed: names of classes, arrays and modules come from
# files of others. The last ones turn the direction of the text that follows.
_OBEYED = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}
_OBEYED |= {code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}


class _StdoutError(OSError):
    """Standard output that takes no more, as on a full disk: nothing is wrong with the files of the command."""


class _PlainStream:
    """Standard output that shows what a terminal would obey."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        with _named_stdout():
            return self._stream.write(text.translate(_OBEYED))

    def flush(self) -> None:
        with _named_stdout():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _named_stdout() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _StdoutError(error.errno, error.strerror) from None


def _plain_output() -> AbstractContextManager[Any]:
    """Let what a command prints pass a `_PlainStream`; its --help, which may be in colour, does not come here."""
    return redirect_stdout(cast(TextIO, _PlainStream(sys.stdout)))


def _let_go(*streams: TextIO) -> None:
    """Let what a stream does not take go nowhere: Python would try it again at its end, and exit with 120."""
    for stream in streams:
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say(line: str) -> None:
    _write_stderr(" ".join(line.split()))


def _write_stderr(text: str) -> None:
    """Write a line to the current stderr; one that is full or whose reader left stops no work."""
    with suppress(OSError):
        print(text.translate(_OBEYED), file=sys.stderr, flush=True)


class _LineHandler(logging.Handler):
    """Writes to the current stderr: a progress bar replaces it, to show lines above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        _write_stderr(said(self.format(record)))


def set_verbosity(quiet: bool, verbose: bool) -> None:
    """Send the package's log to stderr: warnings only (quiet), progress (default) or details (verbose)."""
    if quiet and verbose:
        raise UsageError("--quiet and --verbose exclude each other; give one of them.")
    log.handlers[:] = [_LineHandler()]
    log.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
    if launch.number():  # of several processes of a run the first speaks for all
        log.setLevel(logging.ERROR)
    log.propagate = False


@contextmanager
def heard(quiet: bool = False) -> Iterator[None]:
    """Show on stderr in the block what a command would say, where a Python session has set up no logging of its own.

    What is assumed of a network or of data, such as how its images are prepared, must not be assumed in silence. A
    level that is set keeps it quiet, as logging.getLogger("layerwise").setLevel("WARNING") does; and so does `quiet`.
    """
    if quiet:
        with _level(logging.WARNING):
            yield
        return
    if log.handlers or log.level or logging.getLogger().handlers:
        yield
        return
    handler = _LineHandler()
    log.addHandler(handler)
    try:
        with _level(logging.INFO):
            yield
    finally:
        log.removeHandler(handler)


@contextmanager
def _level(level: int) -> Iterator[None]:
    before = log.level
    log.setLevel(level)
    try:
        yield
    finally:
        log.setLevel(before)


_below_a_bar = ContextVar("below_a_bar", default=False)


@contextmanager
def progress(estimated_over: float = 30.0) -> Iterator[Progress]:
    """Yield a progress bar: on a terminal's stderr or under a notebook's cell; elsewhere, or with `--quiet`, none.

    Nor is there one for what asks for it in the block of another: a study has one bar, not those of its trainings too.

    estimated_over: seconds of which the speed is taken, and so the time left; several steps must lie in them.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    is_heard = log.isEnabledFor(logging.INFO)
    if is_heard and (line := notebook_line()) is not None:
        with notebook_bar(line) as bar:
            yield bar
        return
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
    # Not console.is_terminal, which FORCE_COLOR makes true of a pipe.
    shown = sys.stderr.isatty() and is_heard and not _below_a_bar.get()
    bar = Progress(*columns, console=console, transient=True, disable=not shown, speed_estimate_period=estimated_over)
    if not shown:  # never started: some versions of rich end a disabled bar by an empty line
        yield bar
        return
    token = _below_a_bar.set(True)
    try:
        with bar:
            yield bar
    finally:
        _below_a_bar.reset(token)


# Of mallopt(3) in the GNU C library.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let the C library reuse freed memory instead of returning it to the system; return whether it will.

    By default every array above 32 MiB is mapped anew and paged in, zeroed, at each allocation: a step of training
    with maps that large then takes 1.6 times as long (256 channels of 32x32 in bfloat16, two cores). C libraries other
    than glibc are left as they are.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
