"""Publication: whole or not at all, and never over another file by chance."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from layerwise.errors import UserError
from layerwise.publication import published, refuse_existing


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
        pytest.raises(UserError, match="a.txt appeared while it was being made. Give another name, or --force"),
        published(path, force=False) as temporary,
    ):
        temporary.write_text("mine")
        path.write_text("theirs")
    assert path.read_text() == "theirs"
    assert os.listdir(tmp_path) == ["a.txt"]


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
