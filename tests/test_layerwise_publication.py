"""Publication: whole or not at all, and never over another file by chance."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from layerwise.errors import UserError
from layerwise.publication import is_there, published, refuse_existing, remove_leftovers


def test_a_file_appears_when_the_block_ends_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with published(path, force=False) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "whole"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("force", [False, True])
def test_on_an_error_nothing_is_published_and_the_old_file_stays(
    tmp_path: Path, stop: type[BaseException], force: bool
) -> None:
    path = tmp_path / "a.txt"
    if force:
        path.write_text("old")
    with pytest.raises(stop), published(path, force=force) as temporary:
        temporary.write_text("half")
        raise stop
    assert os.listdir(tmp_path) == (["a.txt"] if force else [])
    assert not force or path.read_text() == "old"


def test_force_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with published(path, force=True) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with (
        pytest.raises(
            UserError,
            match=r"a.txt appeared while it was being made. Give another name, or --force.*kept beside it as a\.\w{8}",
        ),
        published(path, force=False) as temporary,
    ):
        temporary.write_text("mine")
        path.write_text("theirs")
    assert path.read_text() == "theirs"
    (kept,) = set(os.listdir(tmp_path)) - {"a.txt"}
    assert (tmp_path / kept).read_text() == "mine"


def test_a_file_system_without_links_is_served_and_still_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", no_link)
    path = tmp_path / "a.txt"
    with published(path, force=False) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    other = tmp_path / "b.txt"
    with pytest.raises(UserError, match="b.txt appeared"), published(other, force=False) as temporary:
        temporary.write_text("mine")
        other.write_text("theirs")
    assert other.read_text() == "theirs"


def test_an_existing_file_is_refused_with_the_flag_that_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(UserError, match=r"a.txt exists already. Give another name, or --force to replace it"):
        refuse_existing(path, force=False)
    refuse_existing(path, force=True)


def test_a_folder_in_the_files_place_a_missing_one_and_a_closed_one_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="is a folder, but a file is to be written there"):
        refuse_existing(tmp_path, force=True)
    with pytest.raises(UserError, match="nowhere does not exist, so a.h5 cannot be written there"):
        refuse_existing(tmp_path / "nowhere" / "a.h5", force=False)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere, so closed is pretended
    with pytest.raises(UserError, match="is closed to writing. Give an output elsewhere"):
        refuse_existing(tmp_path / "a.h5", force=False)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.EMLINK, errno.EXDEV])
def test_whatever_a_file_system_without_links_says_the_file_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_link(source: object, target: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", no_link)
    with published(tmp_path / "a.txt", force=False) as temporary:
        temporary.write_text("whole")
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_finished_file_that_cannot_have_its_name_is_kept_under_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_name(source: object, target: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", no_name)
    with (
        pytest.raises(UserError, match=rf"cannot be given its name \({os.strerror(number)}\); what was made is kept"),
        published(tmp_path / "a.txt", force=True) as temporary,
    ):
        temporary.write_text("hours of work")
    (kept,) = tmp_path.iterdir()
    assert kept.read_text() == "hours of work"


@pytest.mark.parametrize("force", [False, True])
def test_a_link_is_followed_and_stays(tmp_path: Path, force: bool) -> None:
    (tmp_path / "disk").mkdir()
    link, behind = tmp_path / "a.txt", tmp_path / "disk" / "b.txt"
    link.symlink_to(behind)
    if force:
        behind.write_text("old")
        with pytest.raises(UserError, match="b.txt exists already"):
            refuse_existing(link, force=False)
    with published(link, force=force) as temporary:
        assert temporary.parent == behind.parent  # on the same disk as the file
        temporary.write_text("new")
    assert link.is_symlink()
    assert behind.read_text() == "new"
    assert os.listdir(tmp_path / "disk") == ["b.txt"]


def test_what_is_no_regular_file_is_never_written_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path, words in {
        tmp_path / "pipe": "pipe is no regular file, so nothing is written there",
        Path(os.devnull): "is no regular file",
        tmp_path / "circle": "circle is a symbolic link in a circle of links|Too many levels of symbolic links",
    }.items():
        with pytest.raises(UserError, match=words):
            refuse_existing(path, force=True)


def test_a_folder_that_takes_no_file_is_found_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(UserError, match=r"takes no file \(No space left on device\). Give an output elsewhere"):
        refuse_existing(tmp_path / "a.txt", force=False)


@pytest.mark.parametrize("length", [230, 255])
def test_a_long_name_is_written_and_one_that_is_too_long_refused_in_time(tmp_path: Path, length: int) -> None:
    name = "ä" * (length // 2)
    with published(tmp_path / name, force=False) as temporary:
        temporary.write_text("whole")
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(UserError, match="is longer than 255 bytes|cannot be written: File name too long"):
        refuse_existing(tmp_path / ("ä" * 128), force=False)


def test_leftovers_of_this_name_alone_are_removed(tmp_path: Path) -> None:
    own, other = tmp_path / ".a[1]*.h5.0123456789ab.partial", tmp_path / ".a1b.h5.0123456789ab.partial"
    for path in (own, other):
        path.write_text("half")
    remove_leftovers(tmp_path / "a[1]*.h5")
    assert list(tmp_path.iterdir()) == [other]


def test_leftovers_of_a_longer_name_stay(tmp_path: Path) -> None:
    other = tmp_path / ".run.h5.h5.0123456789ab.partial"
    other.write_text("of run.h5.h5, being written")
    remove_leftovers(tmp_path / "run.h5")
    assert list(tmp_path.iterdir()) == [other]


def test_a_link_to_nothing_is_followed_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    link = tmp_path / "run.probes.csv"
    assert not is_there(link) and caplog.messages == []
    link.symlink_to("unmounted/run.probes.csv")
    assert not is_there(link)
    assert caplog.messages == [
        f"{link} is a symbolic link to unmounted/run.probes.csv, which is not there: it is made there anew"
    ]
    (tmp_path / "unmounted").mkdir()
    (tmp_path / "unmounted/run.probes.csv").touch()
    assert is_there(link)


def test_tries_of_killed_processes_do_not_pile_up(tmp_path: Path) -> None:
    (tmp_path / ".run.h5.trial").write_bytes(b"\0")
    refuse_existing(tmp_path / "run.h5", force=False)
    assert os.listdir(tmp_path) == []


def test_the_temporary_name_of_a_published_file_goes_and_that_of_another_stays(tmp_path: Path) -> None:
    path, twin, other = (
        tmp_path / "a.csv",
        tmp_path / ".a.csv.0123456789ab.partial",
        tmp_path / ".a.csv.ba9876543210.partial",
    )
    path.write_text("whole")
    os.link(path, twin)
    other.write_text("being written by another process")
    with pytest.raises(UserError, match="exists already"):
        refuse_existing(path, force=False)
    assert path.exists() and other.exists() and not twin.exists()
