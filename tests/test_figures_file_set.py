"""Several files appear all or none: their writer is killed at each of its steps, and then called again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from figures.file_set import remove_unfinished, write
from figures.output import outputs
from layerwise import publication
from layerwise.errors import UserError

NAMES = ("figure.pdf", "figure.svg", "figure.csv")
STEPS = ("link", "replace", "unlink", "open", "fsync")


def contents(folder: Path, text: bytes = b"new") -> dict[Path, bytes]:
    return {folder / name: text + name.encode() for name in NAMES}


def killed_at(call: int, work: Callable[[], object]) -> bool:
    """Do the work in a fork that kills itself before its call number `call` of the file system; return if it died."""
    pid = os.fork()
    if not pid:
        left = [call]

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def counting(*args: Any, **kwargs: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)

            return counting

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        work()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("force", [False, True])
def test_killed_at_any_step_the_same_call_goes_on_and_leaves_nothing_more(tmp_path: Path, force: bool) -> None:
    calls, halves = 0, 0
    while True:
        folder = tmp_path / str(calls)
        folder.mkdir()
        if force:
            for path, content in contents(folder, b"old").items():
                path.write_bytes(content)
        died = killed_at(calls, lambda folder=folder: write(contents(folder), force))  # type: ignore[misc]
        halves += 0 < sum(path.exists() and path.read_bytes().startswith(b"new") for path in contents(folder)) < 3
        if died:
            with suppress(UserError):  # all of them have their names, and are refused as of any command that ended
                outputs(folder / "figure", [], force, (".pdf", ".svg", ".csv"))
                write(contents(folder), force)
        assert {path: path.read_bytes() for path in folder.iterdir()} == contents(folder)
        if not died:
            break
        calls += 1
    assert calls > 20 and halves >= 2


def test_what_the_user_put_there_meanwhile_is_kept(tmp_path: Path) -> None:
    for calls in range(60):
        if not killed_at(calls, lambda: write(contents(tmp_path), False)):
            break
        if (tmp_path / NAMES[-1]).exists():  # named first, since contexts end in reverse
            (tmp_path / NAMES[-1]).write_bytes(b"mine")
            break
        remove_unfinished(list(contents(tmp_path)))
    with pytest.raises(UserError, match=r"figure.csv exists already. Give another name, or --force to replace it.$"):
        outputs(tmp_path / "figure", [], False, (".pdf", ".svg", ".csv"))
    assert os.listdir(tmp_path) == [NAMES[-1]] and (tmp_path / NAMES[-1]).read_bytes() == b"mine"


@pytest.mark.parametrize("journal", [b"", b"{", b"[1]", b'{"figure.pdf": 3}', b"\xff"])
def test_a_journal_that_is_none_removes_nothing(tmp_path: Path, journal: bytes) -> None:
    (tmp_path / ".figure.pdf.unfinished").write_bytes(journal)
    (tmp_path / "figure.pdf").write_bytes(b"mine")
    remove_unfinished(list(contents(tmp_path)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"figure.pdf": b"mine"}


def test_where_one_cannot_have_its_name_none_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[Path] = []
    name = publication._name

    def taken_meanwhile(temporary: Path, path: Path, force: bool) -> None:
        if len(named) == 1:
            path.write_bytes(b"mine")
        named.append(path)
        name(temporary, path, force)

    monkeypatch.setattr(publication, "_name", taken_meanwhile)
    with pytest.raises(UserError, match="appeared while it was being made"):
        write(contents(tmp_path), False)
    assert (tmp_path / "figure.svg").read_bytes() == b"mine"
    assert not (tmp_path / "figure.pdf").exists() and not (tmp_path / "figure.csv").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
