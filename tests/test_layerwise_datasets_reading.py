"""Memory or stream: who decides, what is said, and what is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_layerwise_datasets_stream import config_of, load, mixed_folder

from layerwise import hardware
from layerwise.commandline import call, set_verbosity
from layerwise.commands.train import train
from layerwise.datasets import stream, survey
from layerwise.datasets.dataset import load_sizes
from layerwise.errors import UsageError, UserError
from layerwise.runfile import RunFile
from layerwise.runfile.place import Place
from layerwise.training.run import train_run

SIZE = 60 * 3 * 16 * 16  # bytes of all images at 16 pixels


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    set_verbosity(quiet=False, verbose=False)
    return mixed_folder(tmp_path / "pictures")


def give_room(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    monkeypatch.setattr(hardware, "memory_room", lambda: room)


@pytest.mark.parametrize(("room", "kept"), [(2 * SIZE, "memory"), (2 * SIZE - 1, "files"), (0, "memory")])
def test_images_are_held_where_they_take_at_most_half_of_what_is_free(
    room: int, kept: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give_room(monkeypatch, room)
    assert load(folder, "auto").kept == kept
    *_, line = capsys.readouterr().err.splitlines()
    how = "held in memory" if kept == "memory" else "decoded anew in each epoch by 1 process: about "
    assert line.startswith(f"{folder}: 60 images of 2 classes, 40 for train and 20 for test; 46.1 KB, {how}")
    assert line.endswith(" is free)") == (room > 0)


def test_what_does_not_fit_is_refused_with_its_parts_and_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_room(monkeypatch, SIZE)
    assert load(folder, "memory").kept == "memory"
    give_room(monkeypatch, SIZE - 1)
    with pytest.raises(UserError) as caught:
        load(folder, "memory")
    assert str(caught.value) == (
        "the images do not fit into memory: train 24.6 KB, validation 6.1 KB, test 15.4 KB, and 46.1 KB is free. "
        "read='stream' decodes them anew in each epoch instead; image_size or subset makes less of them."
    )


def test_other_words_and_other_data_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="unknown way of reading images .* 'stram'. Did you mean 'stream'?"):
        load(folder, "stram")
    from layerwise.datasets import load_dataset

    with pytest.raises(UsageError, match="read='stream' is of a folder of image files, and digits is read whole"):
        load_dataset("digits", holdout=0.1, read="stream")
    with pytest.raises(UsageError, match="skip_broken=True is of a folder of image files"):
        load_dataset("digits", holdout=0.1, skip_broken=True)


def break_files(folder: Path) -> list[Path]:
    paths = [folder / "train/cat/004.jpg", folder / "test/dog/005.jpg"]
    for path in paths:
        path.write_bytes(path.read_bytes()[:200])
    return paths


@pytest.mark.parametrize("read", ["memory", "stream"])
def test_broken_files_are_named_before_anything_is_trained(
    read: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = break_files(folder)
    monkeypatch.setattr("layerwise.training.run.train", lambda *words: pytest.fail("a training began"))
    with pytest.raises(UserError, match=f"^2 images cannot be read: {first} [(].*, {second} [(].*Replace or remove"):
        train_run(config_of(), Place(out=tmp_path / "run.h5", data_dir=folder, read=read, workers=0))


def test_skipped_they_are_counted_and_both_ways_read_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (first, _), whole = break_files(folder), load(mixed_folder(folder.with_name("whole")), "memory", holdout=0)
    held, streamed = (load(folder, read, holdout=0, skip_broken=True) for read in ("memory", "stream"))
    assert f"2 files cannot be read and are skipped (first {first}: " in capsys.readouterr().err
    assert held.counts == {"train": 39, "test": 19}
    for name, split in held.splits.items():
        assert streamed.splits[name].fingerprint() == split.fingerprint()
        assert np.array_equal(whole.splits[name].images[split.index], split.images)  # positions count all files


def test_a_class_of_broken_files_alone_is_refused(folder: Path) -> None:
    for path in (folder / "test/dog").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="no image of class dog in test can be read"):
        load(folder, "memory", skip_broken=True)


def test_a_file_that_changes_while_it_is_streamed_is_named(folder: Path) -> None:
    for workers in (0, 2):
        split = load(folder, "stream", holdout=0, workers=workers).splits["train"]
        (folder / "train/dog/019.jpg").write_bytes(b"no image any more")
        with pytest.raises(UserError, match="train/dog/019.jpg cannot be read as an image"):
            split.read(slice(None))
        mixed_folder(folder.with_name(f"again{workers}"))
        (folder / "train/dog/019.jpg").write_bytes(
            (folder.with_name(f"again{workers}") / "train/dog/019.jpg").read_bytes()
        )


def test_images_of_several_sizes_are_refused_by_the_index_too(folder: Path) -> None:
    for read in ("memory", "stream"):
        with pytest.raises(UserError, match="images of different sizes: .* Bring them to one by image_size=32"):
            load(folder, read, image_size=0)


def test_grey_images_have_one_channel_unless_one_in_colour_is_left_out_by_a_subset(folder: Path) -> None:
    from PIL import Image

    for path in folder.rglob("*.jpg"):
        with Image.open(path) as image:
            grey = image.convert("L")
        grey.save(path, "JPEG")
    assert [load(folder, read).image_shape[0] for read in ("memory", "stream")] == [1, 1]
    held = load(folder, "memory", holdout=0, subset=4)
    left = next(i for i in range(20) if i not in held.splits["train"].index)
    Image.new("RGB", (20, 20)).save(folder / f"train/cat/{left:03}.jpg")
    found = [load(folder, read, holdout=0, subset=4) for read in ("memory", "stream")]
    assert [data.image_shape[0] for data in found] == [3, 3]
    assert found[0].splits["train"].fingerprint() == found[1].splits["train"].fingerprint()


def test_a_survey_is_made_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load(folder, "stream")
    prints = [split.fingerprint() for split in expected.splits.values()]
    monkeypatch.setattr(stream.StreamedSplit, "read", lambda *words: None)  # which times some images
    monkeypatch.setattr(stream, "read_by", lambda *words: pytest.fail("images were decoded"))
    again = load(folder, "stream")
    assert [split.fingerprint() for split in again.splits.values()] == prints and again.mean == expected.mean
    monkeypatch.setattr(survey, "decoders", lambda: ("another",))
    with pytest.raises(pytest.fail.Exception, match="images were decoded"):
        load(folder, "stream")


def test_a_damaged_survey_is_made_again(folder: Path) -> None:
    expected = load(folder, "stream").splits["train"].fingerprint()
    path = folder / survey.NAME
    path.write_text(path.read_text().replace(expected, "0" * 64))
    assert load(folder, "stream").splits["train"].fingerprint() == expected


@pytest.mark.parametrize("has_index", [False, True])
def test_sizes_are_known_without_decoding(
    has_index: bool, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = load(folder, "memory").sizes
    if has_index:
        load(folder, "stream")
        for path in folder.rglob("*.jpg"):
            path.unlink()
    capsys.readouterr()
    assert load_sizes(config_of().data, folder) == expected
    assert ("by its index of" in capsys.readouterr().err) == has_index


def test_the_command_streams_and_says_so(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "digits --dataset imagefolder --image-size 16 --holdout 0.2 --k 1 --depth 1 --width 2 --epochs 1 --read stream"
    )
    out = tmp_path / "run.h5"
    assert call(train, "layerwise-train", [*words.split(), "--data-dir", str(folder), "--out", str(out)]) == 0
    with RunFile(out) as run:
        assert run.provenance["images"] == "files"
    said = capsys.readouterr()
    assert "of it waiting for images" in said.err and f"wrote {out}" in said.out
    capsys.readouterr()
    forecast = [*words.split(), "--data-dir", str(folder), "--dry-run"]
    assert call(train, "layerwise-train", forecast) == 0
    said = capsys.readouterr().out
    assert "imagefolder: train 32, validation 8, test 20 images" in said
    assert "images       46.1 KB, decoded anew in each epoch (" in said
