"""Lock files: one holder, who is named; links and other files in their place keep every byte."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from layerwise import locks
from layerwise.errors import UserError
from layerwise.locks import held


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """A process that holds tmp_path/lock until its standard input ends."""
    code = (
        "import sys; from pathlib import Path; from layerwise.locks import held\n"
        "with held(Path(sys.argv[1]), 'x', wait=False): print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    yield process  # type: ignore[misc]
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()


def test_the_second_is_told_which_process_has_it(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with (
        pytest.raises(UserError, match=rf"another train is working on run.h5 \(process {holder.pid}\)\. Wait for it"),
        held(tmp_path / "lock", "train is working on run.h5", wait=False),
    ):
        pytest.fail("two hold it")


def test_a_lock_whose_holder_was_killed_is_free(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    with held(tmp_path / "lock", "x", wait=False):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_who_waits_says_so_and_comes_next(
    tmp_path: Path, holder: subprocess.Popen[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert holder.stdin is not None
    threading.Timer(3 * locks.WAIT, holder.stdin.close).start()
    with caplog.at_level(logging.INFO, "layerwise"), held(tmp_path / "lock", "probe of run.h5", wait=True):
        assert caplog.messages == [f"waiting: another probe of run.h5 (process {holder.pid})"]


def test_a_folder_that_was_moved_away_is_not_made_again(tmp_path: Path) -> None:
    gone = held(tmp_path / "gone" / "lock", "x", wait=True)
    with (
        pytest.raises(UserError, match=r"cannot be opened \(No such file or directory\). Work in another folder.$"),
        gone,
    ):
        pytest.fail("held")
    assert os.listdir(tmp_path) == []
    with held(tmp_path / "run.h5.state" / "lock", "x", wait=True, in_own_folder=True):
        assert os.listdir(tmp_path) == ["run.h5.state"]


def test_a_lock_that_its_holder_removed_meanwhile_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, flock = tmp_path / "lock", fcntl.flock

    def removed_first(handle: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", removed_first)
    with held(path, "x", wait=True):
        assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "file", "folder"])
def test_what_is_no_lock_file_is_refused_and_keeps_every_byte(tmp_path: Path, kind: str) -> None:
    path, precious = tmp_path / "lock", tmp_path / "thesis.tex"
    precious.write_text("precious")
    match kind:
        case "link":
            path.symlink_to(precious)
        case "dangling link":
            path.symlink_to(tmp_path / "nowhere")
        case "pipe":
            os.mkfifo(path)
        case "file":
            path.write_text("12 notes of mine\n")
        case "folder":
            path.mkdir()
    with (
        pytest.raises(UserError, match="lock is (a symbolic link|no lock file|a folder)"),
        held(path, "x", wait=True),
    ):
        pytest.fail("it was taken")
    assert precious.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()
    assert kind != "file" or path.read_text() == "12 notes of mine\n"


def test_a_file_system_without_locks_is_served_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with held(tmp_path / "lock", "x", wait=False):
        assert "cannot be locked (No locks available): do not run a second command" in caplog.text
