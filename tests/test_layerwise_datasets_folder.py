"""Folders of images: files, classes, pixels, and every way in which a folder can be wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from layerwise.commandline import set_verbosity
from layerwise.datasets import Dataset, load_dataset
from layerwise.datasets.filling import FILES_IN_TASK
from layerwise.errors import UsageError, UserError


def colours(n: int, height: int = 6, width: int = 6, seed: int = 0) -> np.ndarray:
    """Return n random images [n, H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3)).astype(np.uint8)


def write(root: Path, where: str, image: np.ndarray) -> Path:
    """Write an image [H, W] or [H, W, 3] as a file of the kind its name says."""
    path = root / where
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two classes, cat and dog, of two colour images in train and one in test."""
    images = colours(6)
    for i, where in enumerate(
        ["train/cat/a.png", "train/cat/b.png", "train/dog/a.png", "train/dog/b.png", "test/cat/a.png", "test/dog/a.png"]
    ):
        write(tmp_path, where, images[i])
    return tmp_path


def load(folder: Path, image_size: int = 0) -> Dataset:
    return load_dataset("imagefolder", holdout=0, data_dir=folder, image_size=image_size)


def test_pixels_labels_and_classes_come_from_the_folders(folder: Path) -> None:
    data = load(folder)
    expected = colours(6).transpose(0, 3, 1, 2)
    assert data.name == folder.name  # it says more than "imagefolder" does
    assert data.classes == ("cat", "dog")
    assert np.array_equal(data.splits["train"].images, expected[:4])
    assert np.array_equal(data.splits["test"].images, expected[4:])
    assert data.splits["train"].images.dtype == np.uint8
    assert data.splits["train"].label.tolist() == [0, 0, 1, 1]
    assert data.splits["test"].label.tolist() == [0, 1]
    assert data.splits["train"].index.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_val_stands_for_a_test_that_is_not_there(name: str, folder: Path) -> None:
    expected = load(folder).splits["test"].fingerprint()
    (folder / "test").rename(folder / name)
    assert load(folder).splits["test"].fingerprint() == expected


def test_class_folders_alone_are_split_by_a_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = colours(30)
    for i, image in enumerate(images):
        write(tmp_path, f"{'abc'[i // 10]}/{i:02}.png", image)
    set_verbosity(quiet=False, verbose=False)
    data = load_dataset("imagefolder", holdout=0, data_dir=tmp_path, test_share=0.2)
    assert f"{tmp_path}: 30 images of 3 classes, 24 for train and 6 for test" in capsys.readouterr().err
    train, test = data.splits["train"], data.splits["test"]
    assert np.bincount(train.label).tolist() == [8, 8, 8] and np.bincount(test.label).tolist() == [2, 2, 2]
    rows = [image.tobytes() for image in np.concatenate([train.images, test.images])]
    assert sorted(rows) == sorted(image.tobytes() for image in images.transpose(0, 3, 1, 2))
    again = load_dataset("imagefolder", holdout=0, data_dir=tmp_path, test_share=0.2)
    assert again.splits["test"].fingerprint() == test.fingerprint()
    with pytest.raises(UserError, match=r"holds neither train/ nor .* class folders alone, test_share=0.2"):
        load(tmp_path)


def test_a_share_of_a_folder_that_has_splits_is_refused(folder: Path) -> None:
    with pytest.raises(
        UsageError, match="holds train/, test/, but test_share is of a folder of class folders alone"
    ) as caught:
        load_dataset("imagefolder", holdout=0, data_dir=folder, test_share=0.2)
    assert str(caught.value).endswith("Leave it out, or give test_share=0 where a configuration has it.")


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_a_folder_that_is_none_is_said_to_be_none(share: float, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no folder")
    for name, what in (("nowhere", "does not exist"), ("notes.txt", "is no folder")):
        with pytest.raises(UserError, match=f"{name} {what}; expected the folder of the images, given by data_dir=."):
            load_dataset("imagefolder", holdout=0, data_dir=tmp_path / name, test_share=share)


def test_a_subset_that_is_the_most_takes_what_there_is(folder: Path) -> None:
    whole = load_dataset("imagefolder", holdout=0, data_dir=folder)
    most = load_dataset("imagefolder", holdout=0, data_dir=folder, subset=10_000, subset_is_most=True)
    assert most.splits["train"].fingerprint() == whole.splits["train"].fingerprint()
    with pytest.raises(UsageError, match="subset=10000 cannot be taken"):
        load_dataset("imagefolder", holdout=0, data_dir=folder, subset=10_000)


def test_val_beside_test_is_not_read_and_said_not_to_be(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = load(folder).splits["test"].fingerprint()
    write(folder, "val/cat/a.png", colours(1, 9, 9)[0])
    set_verbosity(quiet=False, verbose=False)
    assert load(folder).splits["test"].fingerprint() == expected
    assert f"{folder}/val is not read: {folder}/test is the test split" in capsys.readouterr().err


def test_every_image_stands_in_its_own_row(tmp_path: Path) -> None:
    n = 2 * FILES_IN_TASK + 7
    images = colours(n, 4, 4)
    for i, image in enumerate(images):
        write(tmp_path, f"train/{'ab'[i >= n // 2]}/{i:04}.png", image)
        write(tmp_path, f"test/{'ab'[i >= n // 2]}/{i:04}.png", image)
    data = load(tmp_path)
    assert np.array_equal(data.splits["train"].images, images.transpose(0, 3, 1, 2))


def test_grey_images_keep_one_channel_where_all_are_grey(tmp_path: Path) -> None:
    grey = colours(4)[..., 0]
    for i, where in enumerate(["train/a/1.png", "train/b/1.jpg", "test/a/1.png", "test/b/1.png"]):
        write(tmp_path, where, grey[i])
    data = load(tmp_path)
    assert data.image_shape == (1, 6, 6)
    assert np.array_equal(data.splits["test"].images[:, 0], grey[2:])


@pytest.mark.parametrize("coloured", ["train/a/1.png", "train/b/1.png", "test/b/1.png"])
def test_one_image_in_colour_gives_all_three_channels(tmp_path: Path, coloured: str) -> None:
    images = colours(4)
    places = ["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png"]
    for image, where in zip(images, places, strict=True):
        write(tmp_path, where, image if where == coloured else image[..., 0])
    data = load(tmp_path)
    assert data.image_shape == (3, 6, 6)
    found = [*data.splits["train"].images, *data.splits["test"].images]
    for image, pixels, where in zip(images, found, places, strict=True):
        expected = image.transpose(2, 0, 1) if where == coloured else image[None, ..., 0].repeat(3, 0)
        assert np.array_equal(pixels, expected)


def test_images_of_different_sizes_are_named_with_what_mends_it(folder: Path) -> None:
    other = write(folder, "train/dog/b.png", colours(1, height=7, width=9)[0])
    with pytest.raises(UserError) as caught:
        load(folder)
    first = folder / "train" / "cat" / "a.png"
    assert f"different sizes: {first} has 6x6 pixels, {other} has 9x7" in str(caught.value)
    assert "one by image_size=32" in str(caught.value)
    assert load(folder, image_size=5).image_shape == (3, 5, 5)


def test_a_test_image_of_another_size_is_found_too(folder: Path) -> None:
    other = write(folder, "test/dog/a.png", colours(1, height=6, width=8)[0])
    with pytest.raises(UserError, match=f"{other} has 8x6"):
        load(folder)


def test_the_middle_is_cropped_after_the_shorter_side_is_resized(folder: Path) -> None:
    wide = colours(1, height=6, width=10)[0]
    write(folder, "train/cat/a.png", wide)
    images = load(folder, image_size=6).splits["train"].images
    assert np.array_equal(images[0], wide[:, 2:8].transpose(2, 0, 1))
    assert np.array_equal(images[1], colours(6)[1].transpose(2, 0, 1))


def test_resizing_averages_over_all_pixels(folder: Path) -> None:
    striped = np.zeros((64, 64, 3), np.uint8)
    striped[:, ::4] = 255  # a fourth of the columns: sampling without a filter gives 0 or 128
    write(folder, "train/cat/a.png", striped)
    small = load(folder, image_size=16).splits["train"].images[0]
    assert abs(small[:, :, 2:-2].astype(int) - 64).max() <= 16


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (["train"], "holds train/, but an imagefolder needs train/ and test/ [(]or val/[)]"),
        (["test"], "holds test/, but an imagefolder needs train/ and test/"),
        ([], "holds neither train/ nor test/ nor val/, but an imagefolder needs"),
    ],
)
def test_a_folder_without_its_splits_says_what_is_needed(folder: Path, kept: list[str], message: str) -> None:
    for name in {"train", "test"} - set(kept):
        (folder / name).rename(folder / f"other-{name}")
    with pytest.raises(UserError, match=f"^{folder} {message}"):
        load(folder)


def test_a_folder_must_be_given() -> None:
    with pytest.raises(UsageError, match="imagefolder is not bundled: give the folder that holds train/ and test/"):
        load_dataset("imagefolder", holdout=0)


def test_a_folder_of_ones_own_cannot_be_downloaded(folder: Path) -> None:
    with pytest.raises(UsageError, match="download=True fetches published data sets, but imagefolder reads a folder"):
        load_dataset("imagefolder", holdout=0, data_dir=folder, download=True)


def test_class_folders_that_differ_are_named(folder: Path) -> None:
    (folder / "test" / "dog").rename(folder / "test" / "dogs")
    with pytest.raises(
        UserError, match=f"only {folder}/train has dog; only {folder}/test has dogs. Both need the same"
    ):
        load(folder)


def test_many_differing_classes_are_not_all_listed(folder: Path) -> None:
    for i in range(9):
        write(folder, f"train/extra{i}/a.png", colours(1)[0])
    with pytest.raises(UserError, match=r"only .*/train has extra0, extra1, extra2, extra3, extra4 and 4 more. Both"):
        load(folder)


def test_one_class_is_too_few(folder: Path) -> None:
    for split in ("train", "test"):
        (folder / split / "dog").rename(folder / f"{split}-dog")
    with pytest.raises(UserError, match=f"{folder}/train holds cat, but at least two class folders are needed"):
        load(folder)


def test_images_without_class_folders_are_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path, f"{split}/a.png", colours(1)[0])
    with pytest.raises(UserError, match=f"{tmp_path}/train holds no folder, but at least two class folders are needed"):
        load(tmp_path)


def test_an_empty_class_is_named(folder: Path) -> None:
    (folder / "test" / "dog" / "a.png").rename(folder / "test" / "dog" / "a.txt")
    with pytest.raises(UserError, match=f"the class folder {folder}/test/dog holds no image file"):
        load(folder)


@pytest.mark.parametrize("kept", [0, 20, 0.6])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_a_corrupt_file_is_named(folder: Path, kind: str, kept: float) -> None:
    path = write(folder, f"train/dog/c.{kind}", colours(1, 6, 6)[0])
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(UserError, match=f"{path} cannot be read as an image .*Replace it or remove it"):
        load(folder)


def test_corrupt_files_of_both_splits_are_named_at_once(folder: Path) -> None:
    for where in ("test/cat/a.png", "train/dog/a.png", "train/dog/b.png"):
        (folder / where).write_bytes(b"no image")
    why = r"[(]UnidentifiedImageError: cannot identify image file[)]"
    names = f"{folder}/train/dog/a.png {why}, {folder}/train/dog/b.png {why}, {folder}/test/cat/a.png {why}"
    with pytest.raises(UserError, match=f"^3 images cannot be read: {names}. Replace or remove what is no image.$"):
        load(folder)


def test_deep_pixels_are_refused_and_not_clipped(folder: Path) -> None:
    path = write(folder, "train/cat/b.png", np.full((6, 6), 40_000, np.uint16))
    with pytest.raises(UserError, match=f"{path} has more than 8 bits a channel [(]mode I;16[)]: convert it to 8 bits"):
        load(folder)


def test_real_files_are_read_as_pillow_reads_them(some_cifar10: Path) -> None:
    data = load_dataset("imagefolder", holdout=0.1, data_dir=some_cifar10, label="cifar10", subset=200)
    sizes = {name: split.images.shape for name, split in data.splits.items()}
    assert sizes == {"train": (180, 3, 32, 32), "validation": (20, 3, 32, 32), "test": (300, 3, 32, 32)}
    assert data.name == "cifar10"
    assert data.classes[:2] == ("airplane", "automobile")
    assert np.bincount(data.splits["validation"].label).tolist() == [2] * 10
    files = sorted((some_cifar10 / "train").glob("*/*.webp"))
    split = data.splits["train"]
    for i in (0, 57, 179):
        path = files[split.index[i]]
        with Image.open(path) as image:
            assert np.array_equal(split.images[i], np.asarray(image).transpose(2, 0, 1))
        assert data.classes[split.label[i]] == path.parent.name


def loud(capsys: pytest.CaptureFixture[str], folder: Path) -> str:
    """Return what loading a folder says before the line that counts its images."""
    set_verbosity(quiet=False, verbose=False)
    load(folder)
    *lines, total = capsys.readouterr().err.splitlines(keepends=True)
    assert "images of 2 classes" in total
    return "".join(lines)


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "__MACOSX", "@eaDir"])
def test_hidden_folders_are_no_classes_and_no_images(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = load(folder)
    for where in (f"train/{name}/a.png", f"test/{name}/a.png", f"train/cat/{name}/a.png"):
        write(folder, where, colours(1)[0])
    message = loud(capsys, folder)
    assert "not read are files in hidden folders, which are no classes: 3 (" in message
    assert f"{folder}/train/cat/{name}" in message and message.count("\n") == 1
    found = load(folder)
    assert found.classes == ("cat", "dog")
    assert [s.fingerprint() for s in found.splits.values()] == [s.fingerprint() for s in expected.splits.values()]


def test_every_ending_of_a_picture_is_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat = np.full((6, 6, 3), 90, np.uint8)
    for name, kind in (("x.jfif", "JPEG"), ("x.JPE", "JPEG"), ("x.gif", "GIF"), ("x.pnm", "PPM"), ("x.dib", "BMP")):
        Image.fromarray(flat).save(folder / "train" / "dog" / name, format=kind)
    assert loud(capsys, folder) == ""
    data = load(folder).splits["train"]
    assert data.label.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert np.abs(data.images[4:].astype(int) - 90).max() <= 2


def test_files_that_are_not_read_are_counted_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.heic", "b.heic", "notes.txt", "c", ".DS_Store", "Thumbs.db"):
        (folder / "train" / "cat" / name).write_bytes(b"x")
    outside = write(folder, "test/lost.png", colours(1)[0])
    assert loud(capsys, folder) == (
        f"{folder}: not read are files that do not end as images do: 4 (2 .heic, 1 without ending, 1 .txt); "
        f"images in no class folder: 1 ({outside})\n"
    )


def test_folders_in_a_class_are_read_in_torchvisions_order(folder: Path) -> None:
    from torchvision.datasets import ImageFolder

    for i, where in enumerate(["z/1.png", "a/b/2.png", "a-b/3.png", "0.png", "B.PNG"]):
        write(folder, f"train/cat/{where}", colours(1, seed=9 + i)[0])
    (folder / "train" / "cat" / "linked").symlink_to(folder / "test" / "dog")
    expected = [np.asarray(Image.open(path).convert("RGB")) for path, _ in ImageFolder(str(folder / "train")).samples]
    assert np.array_equal(load(folder).splits["train"].images, np.stack(expected).transpose(0, 3, 1, 2))


def test_a_link_that_would_read_images_twice_is_named(folder: Path) -> None:
    (folder / "train" / "cat" / "again").symlink_to(folder / "train" / "cat")
    with pytest.raises(UserError, match=f"{folder}/train/cat/again leads to the same folder as {folder}/train/cat"):
        load(folder)


def test_a_folder_that_cannot_be_listed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed, scandir = str(folder / "train" / "dog"), os.scandir

    def listing(path: str) -> Any:
        if os.fspath(path) == closed:
            raise PermissionError(13, "Permission denied", closed)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", listing)
    with pytest.raises(UserError, match=f"{closed} cannot be read .Permission denied., nor then its images"):
        load(folder)


def test_a_class_whose_name_is_no_text_is_named(folder: Path) -> None:
    os.mkdir(os.fsencode(folder / "train") + b"/caf\xe9")
    with pytest.raises(UserError, match=r"train has the class folder b'caf\\xe9', whose name is not UTF-8. Rename it"):
        load(folder)


def test_accents_written_in_two_ways_are_one_class(folder: Path) -> None:
    (folder / "train" / "cat").rename(folder / "train" / "caf\u00e9")
    (folder / "test" / "cat").rename(folder / "test" / "cafe\u0301")
    assert load(folder).classes == ("caf\u00e9", "dog")
    assert load(folder).splits["test"].label.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["valid", "validation", "dev", "unlabeled"])
def test_other_splits_beside_test_are_said_not_to_be_read(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).mkdir()
    assert f"{folder}/{name} is not read: {folder}/test is the test split" in loud(capsys, folder)
