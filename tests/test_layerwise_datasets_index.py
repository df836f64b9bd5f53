"""The index of an image folder: what it holds, when it is made again, and what is known by it alone."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_layerwise_datasets_stream import mixed_folder

from layerwise.commandline import set_verbosity
from layerwise.datasets import index as index_module
from layerwise.datasets import load_dataset
from layerwise.datasets.folder import find_files
from layerwise.datasets.index import NAME, Index, homes, index_of, known_index
from layerwise.datasets.pictures import COMPOSED, TURNED


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    set_verbosity(quiet=False, verbose=False)
    return mixed_folder(tmp_path / "pictures", 4)


def indexed(folder: Path, workers: int = 0) -> Index:
    return index_of(find_files(folder), workers)


def refuse_to_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(path: str) -> None:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr(index_module, "examine", opened)
    monkeypatch.setattr(index_module, "sha256_of", opened)


@pytest.mark.parametrize("workers", [0, 2])
def test_it_holds_size_digest_and_kind_of_each_file(folder: Path, workers: int) -> None:
    index = indexed(folder, workers)
    assert len(index.records) == 12 and not index.broken
    for name, record in zip(index.files.names, index.records, strict=True):
        path = folder / name.decode()
        data = path.read_bytes()
        assert record["bytes"] == len(data) and record["sha256"].tobytes() == hashlib.sha256(data).digest()
        with Image.open(path) as image:
            assert (record["width"], record["height"]) == image.size
            assert record["channels"] == (1 if image.mode == "L" else 3)


def test_an_index_that_agrees_is_taken_and_no_file_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = indexed(folder)
    refuse_to_open(monkeypatch)
    again = indexed(folder)
    assert np.array_equal(again.records, first.records) and again.made == first.made
    assert again.files.classes == ("cat", "dog")


def test_a_folder_that_changed_is_said_to_have_and_only_what_changed_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    indexed(folder)
    capsys.readouterr()
    changed, gone, new = (folder / "train/cat" / name for name in ("000.jpg", "001.jpg", "zzz.png"))
    changed.write_bytes((folder / "train/dog/000.jpg").read_bytes())
    gone.unlink()
    Image.new("L", (30, 20)).save(new)
    opened, examine = [], index_module.examine
    monkeypatch.setattr(index_module, "examine", lambda path: (opened.append(path), examine(path))[1])
    index = indexed(folder)
    assert opened == [str(changed), str(new)]
    said = capsys.readouterr().err
    assert f"{folder} is not as it was when its index was made, " in said
    assert ": 1 files are changed, 1 files are new, 1 files are gone. The index is brought up to date." in said
    fresh = shutil.copytree(folder, folder.with_name("copy"))
    (fresh / NAME).unlink()
    expected = indexed(fresh)
    for name in ("bytes", "height", "width", "channels", "changes", "sha256"):
        assert np.array_equal(index.records[name], expected.records[name])
    assert indexed(folder).made == index.made and capsys.readouterr().err == ""


def test_what_is_changed_in_a_picture_stands_in_it(folder: Path) -> None:
    Image.new("RGBA", (9, 9), (1, 2, 3, 0)).save(folder / "train/cat/a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(folder / "train/cat/b.jpg", exif=exif)
    index = indexed(folder)
    account = index.account(np.arange(len(index.records)))
    assert account.changed == {
        TURNED: [str(folder / "train/cat/b.jpg")], COMPOSED: [str(folder / "train/cat/a.png")],
    }  # fmt: skip
    (row,) = np.flatnonzero(index.files.names == b"train/cat/b.jpg")
    assert (index.records["height"][row], index.records["width"][row]) == (20, 10)


def test_beside_images_that_are_closed_to_writing_it_goes_into_the_cache(folder: Path) -> None:
    (folder / NAME).mkdir()  # no file can have that name: permissions would not stop root
    first = indexed(folder)
    assert homes(folder, NAME)[1].is_file()
    assert indexed(folder).made == first.made


def test_where_it_can_be_kept_nowhere_it_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / NAME).mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "train/cat/000.jpg"))
    assert len(indexed(folder).records) == 12
    assert f"the index of {folder} is kept nowhere, and is made again by the next command" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "changed", "other"])
def test_a_damaged_index_is_said_to_be_and_made_anew(
    damage: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = indexed(folder)
    capsys.readouterr()
    data = bytearray((folder / NAME).read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "changed":
        at = data.index(b"train/cat/000.jpg")
        data[at : at + 5] = b"trein"
    else:
        data[:] = b"no HDF5"
    (folder / NAME).write_bytes(data)
    assert np.array_equal(indexed(folder).records, expected.records)
    assert "the index of the images is not read and made anew: " in capsys.readouterr().err


def test_an_index_of_a_folder_of_another_kind_is_none(folder: Path) -> None:
    indexed(folder)
    assert known_index(folder, 0.0) is not None and known_index(folder) is not None
    assert known_index(folder, 0.2) is None
    alone = folder / "train"
    index = index_of(find_files(alone, 0.25), 0)
    assert index.files.tested.sum() == 2
    other = known_index(alone, 0.5)
    assert other is not None and other.files.tested.sum() == 4
    assert known_index(alone, 0.0) is None


def test_a_link_to_nothing_is_a_broken_file(folder: Path) -> None:
    os.symlink(folder / "nowhere.jpg", folder / "train/cat/link.jpg")
    index = indexed(folder)
    ((alone, _, _),) = index.broken.values()
    assert alone.startswith(f"{folder}/train/cat/link.jpg cannot be read")
    assert indexed(folder).broken == index.broken


def test_a_relative_folder_has_the_same_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = find_files(folder).names
    monkeypatch.chdir(folder)
    assert np.array_equal(find_files(Path(".")).names, expected)
    monkeypatch.chdir(folder.parent)
    assert np.array_equal(find_files(Path("pictures")).names, expected)
    alone = find_files(Path("pictures/train"), 0.2)
    assert alone.names[0] == b"cat/000.jpg"
    data = load_dataset("imagefolder", holdout=0, data_dir="pictures", image_size=8, read="stream", workers=0)
    assert data.splits["train"].read(slice(0, 2)).shape == (2, 3, 8, 8)
