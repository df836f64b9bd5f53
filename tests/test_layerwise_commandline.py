"""Tests of layerwise.commandline: exit codes, one-line errors, signals, pipes, logging, progress."""

from __future__ import annotations

import errno
import logging
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from layerwise import commandline
from layerwise.errors import UsageError, UserError

ROOT = Path(__file__).resolve().parent.parent

# A command of its own process. SIGINT is set, since a shell starts what it puts in the background deaf to it.
PROGRAM = """
import logging, signal, sys, time
from layerwise import commandline
signal.signal(signal.SIGINT, signal.default_int_handler)
def command():
    {body}
commandline.run(command, "prog")
"""


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Give each test the log as it is when a command starts."""
    log = logging.getLogger("layerwise")
    before = (log.handlers[:], log.level, log.propagate)
    yield
    log.handlers[:], log.level, log.propagate = before


def program(body: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(body=body)]


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def options(k: Annotated[int, typer.Option(min=1, help="Hidden layers.")] = 1) -> None:
    print(f"k = {k}")


def test_done_is_0_and_says_nothing_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert commandline.call(options, "prog", ["--k", "2"]) == 0
    assert capsys.readouterr() == ("k = 2\n", "")


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_is_0_and_on_stdout(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert commandline.call(options, "prog", [word]) == 0
    out, err = capsys.readouterr()
    assert "Hidden layers." in out
    assert err == ""


@pytest.mark.parametrize(("rank", "said"), [("0", 1), ("1", 0)])
def test_a_command_of_one_process_refuses_several_once(
    rank: str, said: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commandline, "_FIRST_SAYS", 0.0)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", rank)
    assert commandline.call(options, "layerwise-export", ["--k", "2"]) == 2
    line = (
        "torchrun started 4 processes, and layerwise-export works in one: run it without. Of the commands layerwise-t"
    )
    assert capsys.readouterr().err.count(line) == said


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("no run file 'x.h5';\n  make it"), 1),
        (UsageError("no run file 'x.h5';\n  make it"), 2),
    ],
)
def test_an_error_for_people_is_one_line(error: UserError, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert commandline.call(raising(error), "prog", []) == code
    assert capsys.readouterr() == ("", "prog: no run file 'x.h5'; make it\n")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--k", "0"], "--k"),
        (["--k", "two"], "--k"),
        (["--nope"], "--nope"),
        (["--kk", "3"], "--kk"),
        (["surplus"], "surplus"),
    ],
)
def test_wrong_words_are_2_and_one_line(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert commandline.call(options, "prog", words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"prog: [^\n]*[^.\n]\. `prog --help` shows what it takes\.\n", err)
    assert named in err


def test_a_defect_is_1_and_one_line_that_names_the_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # A file name that is no UTF-8 must not hide the defect.
    assert commandline.call(raising(RuntimeError("depth \udce9")), "prog", []) == 1
    out, err = capsys.readouterr()
    (report,) = tmp_path.iterdir()
    assert out == ""
    assert err == (
        f"prog: this is a defect of prog, not of your input: RuntimeError. "
        f"The traceback is in {report}; please report it.\n"
    )
    text = report.read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" in text
    assert "in command\n    raise error" in text
    assert "RuntimeError: depth \\udce9" in text


def test_a_truncated_file_is_a_defect_and_no_signal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # typer makes "aborted by the user" of an EOFError.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert commandline.call(raising(EOFError("no data left")), "prog", []) == 1
    assert "defect of prog, not of your input: EOFError." in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_with_its_code_after_cleaning_up(kind: signal.Signals, code: int) -> None:
    body = """
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaned", flush=True)
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(program(body), cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(kind)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == "cleaned\n"
    assert err == f"prog: stopped by {kind.name}. Nothing half written is left; the same command begins anew.\n"


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_python_drops_in_a_destructor_stops_all_the_same(kind: signal.Signals, code: int) -> None:
    body = f"""
    class Dropped:
        def __del__(self):
            signal.raise_signal(signal.{kind.name})
            for _ in range(100): pass
    Dropped()
    time.sleep(60)
    """
    done = subprocess.run(program(body), cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"prog: stopped by {kind.name}. Nothing half written is left; the same command begins anew.\n"


def test_a_second_signal_does_not_stop_the_removal_of_what_is_half_done() -> None:
    body = """
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        print("cleaned")
    """
    done = subprocess.run(program(body), cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (130, "cleaned\n")
    assert done.stderr.count("\n") == 1


def test_a_signal_after_the_end_changes_nothing() -> None:
    body = "import atexit; atexit.register(signal.raise_signal, signal.SIGINT); print('done')"
    done = subprocess.run(program(body), cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_the_outermost_block_says_what_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        with commandline.if_stopped(lambda: "All of it is kept."), commandline.if_stopped(lambda: "A part is kept."):
            raise KeyboardInterrupt

    assert commandline.call(command, "prog", []) == 130
    assert capsys.readouterr().err == "prog: stopped by SIGINT. All of it is kept.\n"


def test_a_signal_between_the_words_and_the_command_is_no_defect(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(*words: Any, **how: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.core.TyperCommand.make_context", parse)
    assert commandline.call(options, "prog", []) == 130
    assert capsys.readouterr().err.startswith("prog: stopped by SIGINT.")


SAY = """
    print("r\\u00e9seau \\u6b8b \\udce9")
    logging.getLogger("layerwise").warning("w\\u6b8b")
    open("made", "w").write("whole")
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict", "utf-8"])
def test_letters_that_a_terminal_lacks_are_escaped(encoding: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program(SAY), cwd=tmp_path, capture_output=True, env=environment, timeout=30)
    codec = encoding.partition(":")[0]
    assert done.returncode == 0
    assert done.stdout == "r\u00e9seau \u6b8b \udce9\n".encode(codec, "backslashreplace")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_leaves_the_work_and_its_files_as_they_are(closed: str, tmp_path: Path) -> None:
    # What a library prints to a number of its own must not reach the file that would have been opened under it.
    body = "file = open('made', 'w'); import os; os.write(1, b'x'); os.write(2, b'x'); print('x'); file.write('whole')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = shlex.join(program(body))
    done = subprocess.run(
        f"{words} {closed}", shell=True, cwd=tmp_path, capture_output=True, env=environment, timeout=30
    )
    assert done.returncode == 0
    assert (tmp_path / "made").read_text() == "whole"


def test_a_full_stderr_stops_no_work(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = shlex.join(program(SAY))
    done = subprocess.run(
        f"{words} 2>/dev/full", shell=True, cwd=tmp_path, capture_output=True, env=environment, timeout=30
    )
    assert done.returncode == 0
    assert (tmp_path / "made").read_text() == "whole"


def test_a_full_stdout_is_one_line_and_1() -> None:
    words = shlex.join(program("print('x')"))
    done = subprocess.run(f"{words} >/dev/full", shell=True, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr == (
        "prog: standard output takes no more (No space left on device). What was complete before is kept.\n"
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [("print('short')", []), ("for line in range(100_000): print(line)", []), ("pass", ["--help"])],
)
def test_a_reader_who_left_is_told_nothing(body: str, words: list[str]) -> None:
    # Unbuffered output would hide that a short answer meets the broken pipe only at the last flush.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)
    command = [*program(body), *words]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("quiet", "verbose", "heard"),
    [(True, False, "W"), (False, False, "IW"), (False, True, "DIW")],
)
def test_verbosity(
    quiet: bool,
    verbose: bool,
    heard: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(2):  # a second command in the same process says nothing twice
        commandline.set_verbosity(quiet, verbose)
    commandline.log.debug("D")
    logging.getLogger("layerwise.training").info("I")
    commandline.log.warning("W")
    assert capsys.readouterr() == ("", "".join(f"{letter}\n" for letter in heard))
    assert caplog.records == []  # nor does a handler of the root logger say it again


def test_quiet_and_verbose_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="--quiet and --verbose exclude each other; give one of them"):
        commandline.set_verbosity(quiet=True, verbose=True)


BAR = """
    commandline.set_verbosity({quiet}, False)
    with commandline.progress() as bar:
        task = bar.add_task("block 1", total=2)
        bar.advance(task)
        bar.refresh()
        commandline.log.info("a line")
"""


def on_terminal(body: str) -> str:
    """Run a command with a terminal as stderr and return what it drew."""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    subprocess.run(program(body), cwd=ROOT, stderr=terminal, env=environment, check=True, timeout=60)
    os.close(terminal)
    drawn = b""
    try:
        while block := os.read(controller, 4096):
            drawn += block
    except OSError:  # the way Linux says that the other side has closed
        pass
    os.close(controller)
    return drawn.decode()


def test_progress_is_drawn_on_a_terminal_and_keeps_lines_of_the_log_whole() -> None:
    drawn = on_terminal(BAR.format(quiet=False))
    assert "block 1" in drawn
    assert "1/2" in drawn
    # The line stands on a line of its own: the bar was wiped before it and is drawn again below.
    assert re.search(r"\x1b\[2Ka line\r?\n", drawn)


def test_quiet_draws_nothing_on_a_terminal() -> None:
    assert on_terminal(BAR.format(quiet=True)) == ""


def test_progress_is_not_drawn_where_stderr_is_no_terminal() -> None:
    environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm"}
    command = program(BAR.format(quiet=False))
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "a line\n")


def test_what_the_system_refuses_is_one_line_and_no_defect(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "run.h5")

    assert commandline.call(full, "prog", []) == 1
    expected = "prog: run.h5: No space left on device. What was complete before is kept.\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp] not enough memory: you tried to allocate 1 byte"),
     RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")],
)  # fmt: skip
def test_out_of_memory_is_no_defect(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def grow() -> None:
        raise error

    assert commandline.call(grow, "prog", []) == 1
    assert capsys.readouterr().err.startswith("prog: out of memory. Make less at once: a smaller width or")


@pytest.mark.parametrize("where", ["stdout", "error", "log"])
def test_a_terminal_obeys_nothing_that_comes_from_a_file(where: str, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\x1b[31m\x1b]0;title\x07\x9b2J\u202eb\rc"

    def command() -> None:
        if where == "stdout":
            print(hostile)
        elif where == "log":
            logging.getLogger("layerwise.x").warning("%s", hostile)
        else:
            raise UserError(f"found {hostile}.")

    commandline.set_verbosity(quiet=False, verbose=False)
    commandline.call(command, "prog", [])
    said = "".join(capsys.readouterr())
    shown = r"a\x1b[31m\x1b]0;title\x07\x9b2J\u202eb"
    # Of an error white space becomes a blank before it is shown.
    assert shown + (" c" if where == "error" else r"\x0dc") in said
    assert all(character.isprintable() or character in "\n\t" for character in said)


def test_a_bar_within_another_is_not_drawn() -> None:
    body = BAR.format(quiet=False).replace("commandline.log.info", "NESTED\n        commandline.log.info")
    nested = 'with commandline.progress() as inner:\n            inner.add_task("inner", total=3)'
    drawn = on_terminal(body.replace("NESTED", nested))
    assert "block 1" in drawn
    assert "inner" not in drawn
