"""Images of runs that hold none: the same numbers as with them, and no number from a file that is another now."""

from __future__ import annotations

import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_run
from test_layerwise_datasets_stream import config_of, mixed_folder

import layerwise
import probes
from layerwise import images
from layerwise.activations import open_activations
from layerwise.commandline import call
from layerwise.commands.corrupt import corrupt
from layerwise.commands.export import export
from layerwise.datasets import load_dataset
from layerwise.errors import UserError
from layerwise.export import write as export_write
from layerwise.images import images_if_any, images_of, reread_images
from layerwise.runfile import Rows, RunFile
from layerwise.runfile.place import Place
from layerwise.training.run import train_run

Damage = Callable[[Path], Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with images, and runs of them: kept.h5 with its images, bare.h5, in memory, and streamed.h5."""
    root = tmp_path_factory.mktemp("made")
    mixed_folder(root / "pictures", 12)
    config = config_of(**{"network.depth": 1, "training.epochs": 1})
    place = {"device": torch.device("cpu"), "data_dir": root / "pictures", "workers": 0}
    train_run(config, Place(out=root / "kept.h5", **place))
    with RunFile(root / "kept.h5") as run:
        whole = sum(nbytes for _, _, nbytes in run.storage().values())
    train_run(config, Place(out=root / "bare.h5", max_size=whole - 1, **place))
    train_run(config, Place(out=root / "streamed.h5", max_size=whole - 1, read="stream", **place))
    return root


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """Return a copy of all that, whose runs know the folder where it was, and which is not there."""
    return Path(shutil.copytree(made, tmp_path / "own"))


def bare(own: Path, name: str = "bare.h5") -> RunFile:
    return RunFile(own / name, own / "pictures")


def test_a_run_names_the_files_of_its_images_whichever_way_they_were_read(made: Path) -> None:
    with RunFile(made / "kept.h5") as kept, bare(made) as one, bare(made, "streamed.h5") as streamed:
        assert one.images("train") is None and streamed.content_digest == one.content_digest
        for split in ("train", "validation", "test"):
            found = kept.images(split)
            assert found is not None
            for run in (one, streamed):
                names, sha256 = run.files(split) or (np.empty(0), np.empty(0))
                assert len(names) == len(sha256) == len(found)
                top = b"test" if split == "test" else b"train"
                assert all(name.startswith(top) and (made / "pictures" / name.decode()).is_file() for name in names[:])
                again = images_of(run, split)
                assert not isinstance(again, Rows) and again.shape == found.shape
                np.testing.assert_array_equal(again[:], found[:])
                np.testing.assert_array_equal(again[np.array([3, 0, 3])], found[[3, 0, 3]])


def rows_of(path: Path, probe: str, **words: Any) -> pd.DataFrame:
    with RunFile(path) as run:
        table = probes.fit(run, probe, quiet=True, **words)
    return table.drop(columns=["run_id", "seconds", "digest"])


def test_probes_of_a_run_without_images_have_the_rows_of_one_with_them(made: Path, tmp_path: Path) -> None:
    for name in ("kept.h5", "bare.h5"):
        shutil.copy(made / name, tmp_path)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("cnn-1", {"widths": 4, "epochs": 1, "depths": 1}), ("ncm", {"pools": 4}),
        ("linear", {"depths": 0}), ("ncm", {"control": "teacher"}),
    ]  # fmt: skip
    for probe, words in asked:
        kept, again = (rows_of(tmp_path / name, probe, **words) for name in ("kept.h5", "bare.h5"))
        pd.testing.assert_frame_equal(kept, again)
        assert len(kept) and (probe != "linear" or 0 in set(kept["pooling"]))


def test_activations_say_where_they_come_from(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "layerwise")
    with RunFile(made / "kept.h5") as run:
        kept, again = (open_activations(run, 1, "test", source=source) for source in ("recompute", "folder"))
        assert (kept.source, again.source) == ("recompute", "folder")
        torch.testing.assert_close(kept[:], again[:], rtol=0, atol=0)
        assert again.is_contiguous and again.row_bytes == kept.row_bytes == 3 * 16 * 16
    with RunFile(made / "bare.h5") as run:
        assert open_activations(run, 1, "test").source == open_activations(run, 0, "train").source == "folder"
    assert caplog.text.count(f"images: read again from {made / 'pictures'}, checked by their digests") == 2


def test_a_folder_that_moved_is_given(own: Path) -> None:
    (own / "pictures").rename(own / "moved")
    with layerwise.open_run(own / "bare.h5", data_dir=own / "moved") as run:
        assert len(images_of(run, "test")) == 12
        with pickle.loads(pickle.dumps(run)) as elsewhere:
            assert elsewhere.data_dir == own / "moved"
    with layerwise.open_run(own / "bare.h5", data_dir=own / "nowhere") as run:
        with pytest.raises(UserError, match=r"own/nowhere does not exist. Give their folder by data_dir="):
            open_activations(run, 0, "test")
        with pytest.raises(UserError, match=r"by layerwise.open_run\(run, data_dir=...\)"):
            probes.fit(run, "cnn-1", quiet=True)


def test_other_images_are_shown_to_a_run_whose_folder_was_given(own: Path) -> None:
    (own / "pictures").rename(own / "moved")
    others = shutil.copytree(own / "moved" / "test", own / "others")
    with layerwise.open_run(own / "bare.h5", data_dir=own / "moved") as run:
        rows = probes.fit(run, "linear", evaluate=others, quiet=True)
    found = rows[rows["metric"] == "accuracy"]
    assert {"test", "others"} <= set(found["split"])
    assert 0 in set(found["pooling"])  # raw pixels, which are read from there


def test_images_are_corrupted_from_the_folder_that_was_given(own: Path) -> None:
    (own / "pictures").rename(own / "moved")
    words = ["--corruptions", "contrast", "--severities", "3", "-o"]
    assert call(corrupt, "layerwise-corrupt", [str(own / "kept.h5"), *words, str(own / "c")]) == 0
    moved = [str(own / "bare.h5"), "--data-dir", str(own / "moved"), *words, str(own / "d")]
    assert call(corrupt, "layerwise-corrupt", moved) == 0
    found = sorted((own / "c").rglob("*.png"))
    assert len(found) == 12
    assert all((own / "d" / one.relative_to(own / "c")).read_bytes() == one.read_bytes() for one in found)


def test_a_folder_that_is_not_there_is_asked_for(own: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFile, "provenance", {"data_dir": str(own / "gone"), "image_files": 36})
    monkeypatch.delenv("LAYERWISE_DATA", raising=False)
    message = (
        r"bare.h5 holds no images and no whole maps. It names the files that they were in, below .*gone, which is not "
        r"there. Give their folder by data_dir=.... Make it again .*max_size="
    )
    with RunFile(own / "bare.h5") as run:
        with pytest.raises(UserError, match=message):
            open_activations(run, 1, "test")
        assert images_if_any(run, "test", slice(0)) is None


def rewrite(path: Path) -> None:
    """Change one byte of a file's pixels, and neither its size nor its time of change."""
    content, stat = bytearray(path.read_bytes()), path.stat()
    content[-20] ^= 1
    path.write_bytes(content)
    import os

    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("name", ["bare.h5", "streamed.h5"])
def test_a_changed_file_is_named_before_a_number_is_computed_from_it(own: Path, name: str) -> None:
    rewrite(own / "pictures/test/cat/000.jpg")
    with bare(own, name) as run:
        rows = images_of(run, "test")
        assert len(rows[1:])
        message = rf"pictures/test/cat/000.jpg is not the file of which {name} was made: its SHA-256 differs. Put back"
        with pytest.raises(UserError, match=message):
            rows[:3]


def test_what_the_index_knows_to_be_changed_is_named_at_once(own: Path) -> None:
    for i in (4, 5):
        shutil.copy(own / "pictures/test/dog/003.jpg", own / f"pictures/test/dog/00{i}.jpg")
    load_dataset("imagefolder", data_dir=own / "pictures", holdout=0, image_size=16, read="stream", workers=0)
    with bare(own) as run, pytest.raises(UserError) as refused:
        images_of(run, "test")
    assert "of 12 test images 2 are changed (test/dog/004.jpg, test/dog/005.jpg). Put back" in str(refused.value)


def test_files_that_are_gone_are_named_and_added_ones_counted(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    (own / "pictures/train/cat/new.jpg").write_bytes(b"no picture, and not read")
    with bare(own) as run:
        images_of(run, "test")
    assert "pictures holds 1 image more than when bare.h5 was made: they are no part of it, and not" in caplog.text
    for path in (own / "pictures/test").rglob("*.jpg"):
        path.unlink()
    with bare(own) as run:
        with pytest.raises(UserError) as refused:
            images_of(run, "test")
        assert len(images_of(run, "validation"))
    named = ", ".join(f"test/cat/00{i}.jpg" for i in range(5))
    assert f"was made: of 12 test images 12 are not there ({named} and 7 more). Put back" in str(refused.value)


def test_a_folder_that_is_not_as_it_was_stops_only_what_it_was_given_for(
    own: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(own / "pictures/test/cat/000.jpg")
    monkeypatch.setattr(export_write.export_formats, "trace", lambda predictor, x: torch.export.export(predictor, (x,)))
    monkeypatch.setenv("LAYERWISE_DATA", str(own / "pictures"))
    monkeypatch.setattr(images, "recorded_folder", lambda run: run.data_dir or own / "pictures")
    with RunFile(own / "bare.h5") as run:
        for _ in range(2):
            assert images_if_any(run, "test", slice(3)) is None
        assert caplog.text.count("bare.h5 are not used: ") == 1
    words = [str(own / "bare.h5"), "-o", str(own / "model.pt2"), "--data-dir", str(own / "pictures")]
    assert call(export, "layerwise-export", words) == 1
    assert "000.jpg is not the file of which bare.h5 was made" in capsys.readouterr().err
    assert not (own / "model.pt2").exists()


def test_other_decoders_are_held_to_the_pixels(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "decoders", lambda: ("another",))
    with bare(own) as run:
        assert len(images_of(run, "test")) == 12
    with bare(own) as run:
        about = run.dataset | {"fingerprint": {"test": "0" * 64}}
    monkeypatch.setattr(RunFile, "dataset", about)
    with bare(own) as run, pytest.raises(UserError, match=r"the test images below .* decodes them to other pixels"):
        images_of(run, "test")


def test_a_run_that_names_no_files_is_held_to_the_fingerprints(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFile, "files", lambda run, split: None)
    with bare(own) as run, RunFile(own / "kept.h5") as kept:
        np.testing.assert_array_equal(images_of(run, "validation")[:], kept.images("validation")[:])  # type: ignore[index]
    shutil.copy(own / "pictures/test/cat/004.jpg", own / "pictures/test/cat/000.jpg")
    with (
        bare(own) as run,
        pytest.raises(UserError, match=r"imagefolder below .* is not what .*bare.h5 was made of: test"),
    ):
        images_of(run, "validation")


def test_digits_are_read_again(tmp_path: Path, run_path: Path) -> None:
    with RunFile(make_run(tmp_path / "run.h5", max_size=300_000, **{"training.epochs": 1})) as run:
        assert run.images("test") is None
        x = open_activations(run, 0, "test")
        with RunFile(run_path) as whole:
            np.testing.assert_array_equal(reread_images(run, "test"), whole.images("test")[:])  # type: ignore[index]
            torch.testing.assert_close(x[:], open_activations(whole, 0, "test", source="recompute")[:])


def test_a_run_file_that_names_files_elsewhere_is_refused(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (b"/etc/passwd", b"train/../../x", b".."):
        given = np.array([name]), np.zeros((1, 32), np.uint8)
        monkeypatch.setattr(RunFile, "files", lambda run, split, given=given: given)
        with bare(own) as run, pytest.raises(UserError, match="names files outside of the folder of its images"):
            images_of(run, "test")
