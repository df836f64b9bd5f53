"""Owns data sets that are folders of image files: which files, their classes from folder names, their pixels.

The folder holds train/CLASS/... and test/CLASS/... (or val/CLASS/..., where there is no test/). Every image is
decoded once, into memory. Decoded JPEG pixels can differ by a grey level between versions of libjpeg, which the
fingerprint of a split then shows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from layerwise.commandline import progress
from layerwise.datasets.published import Published, require_folder
from layerwise.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger("layerwise.imagefolder")

GREY_MODES = ("1", "L", "LA")
FILES_IN_TASK = 64


class _ColourFoundError(Exception):
    """An image in colour stands among those read as grey."""


@dataclass(frozen=True)
class _Form:
    """The form of every image: channels C, height H and width W in pixels; `first` is the file that set it.

    resized: images of any size are brought to H x W; else all have that size.
    """

    channels: int
    height: int
    width: int
    first: str
    resized: bool


def read_imagefolder(data_dir: Path | None, *, image_size: int) -> Published:
    """Decode every image of a folder, on all cores, and number the classes by the names of their folders.

    Files stand in the order of class, then path, which is what `index` counts. Images are 8-bit, with 1 channel
    where all of them, train and test, are grey, else with 3. Memory: n C H W bytes for each split.

    Args:
        image_size: 0 keeps images as they are, of one size; else the shorter side is resized to that many pixels
            (bilinear, antialiased) and the middle square cropped.

    Raises:
        UsageError: no folder given.
        UserError: no train/, or neither test/ nor val/; classes that differ, are empty or fewer than two; a file
            that is no image or has more than 8 bits a channel; images of different sizes at image_size 0.
    """
    root = require_folder("imagefolder", "train/ and test/ (or val/)", data_dir)
    folders = _split_folders(root)
    files = {folder: _find_files(folder) for folder in folders}
    classes = [sorted(files[folder]) for folder in folders]
    _check_classes(folders, files)
    paths = [[path for c in classes[0] for path in files[folder][c]] for folder in folders]
    train, test = _decode(paths, image_size)
    labels = [np.repeat(np.arange(len(classes[0])), [len(files[folder][c]) for c in classes[0]]) for folder in folders]
    return Published((train, labels[0]), (test, labels[1]), tuple(classes[0]))


def _split_folders(root: Path) -> list[Path]:
    held = [name for name in ("train", "test", "val") if (root / name).is_dir()]
    if "train" not in held or len(held) < 2:
        raise UserError(
            f"{root} holds {', '.join(f'{name}/' for name in held) or 'neither train/ nor test/ nor val/'}, but an "
            "imagefolder needs train/ and test/ (or val/), each with a folder of images for each class. "
            "Give the folder above them by --data-dir."
        )
    if len(held) == 3:
        log.warning("%s is not read: %s is the test split, and --holdout sets validation images apart",
                    root / "val", root / "test")  # fmt: skip
    return [root / name for name in held[:2]]


def _find_files(folder: Path) -> dict[str, list[str]]:
    """Return the paths of the image files of each class folder, as torchvision finds them."""
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(str(folder), allow_empty=True)
    except FileNotFoundError:  # the one complaint left with allow_empty
        return {}
    files: dict[str, list[str]] = {name: [] for name in found.classes}
    for path, label in found.samples:
        files[found.classes[label]].append(path)
    return files


def _check_classes(folders: Sequence[Path], files: dict[Path, dict[str, list[str]]]) -> None:
    train, test = folders
    if files[train].keys() != files[test].keys():
        only = [
            f"only {a} has {_some(sorted(files[a].keys() - files[b].keys()))}"
            for a, b in ((train, test), (test, train))
            if files[a].keys() - files[b].keys()
        ]
        raise UserError(f"train and test have different class folders: {'; '.join(only)}. Both need the same ones.")
    if len(files[train]) < 2:
        raise UserError(
            f"{train} holds {_some(sorted(files[train])) or 'no folder'}, but at least two class folders are needed."
        )
    for folder in folders:
        for name, paths in files[folder].items():
            if not paths:
                raise UserError(
                    f"the class folder {folder / name} holds no image file (.jpg, .png, .bmp, .webp and the like): "
                    "put images there, or remove the class from train and test."
                )


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _decode(paths: Sequence[Sequence[str]], image_size: int) -> list[np.ndarray]:
    """Decode lists of files to uint8 arrays [n, C, H, W] of one form, which the very first file sets."""
    first = paths[0][0]
    with _opened(first) as image:
        size = (image_size, image_size) if image_size else (image.height, image.width)
        channels = 1 if image.mode in GREY_MODES else 3
    try:
        return [_decode_list(some, _Form(channels, *size, first, bool(image_size))) for some in paths]
    except _ColourFoundError:
        return [_decode_list(some, _Form(3, *size, first, bool(image_size))) for some in paths]


def _decode_list(paths: Sequence[str], form: _Form) -> np.ndarray:
    """Decode files into one array [n, C, H, W]; the error is that of the first bad file in order."""
    images = np.empty((len(paths), form.channels, form.height, form.width), dtype=np.uint8)
    task = partial(_decode_some, images, paths, form)
    with progress() as bar, ThreadPoolExecutor() as pool:
        reading = bar.add_task("reading images", total=len(paths))
        for done in pool.map(task, range(0, len(paths), FILES_IN_TASK)):
            bar.update(reading, advance=done)
    return images


def _decode_some(images: np.ndarray, paths: Sequence[str], form: _Form, start: int) -> int:
    """Decode FILES_IN_TASK files from `start` on into their rows; return how many that were."""
    some = paths[start : start + FILES_IN_TASK]
    for i, path in enumerate(some, start):
        with _opened(path) as image:
            if form.channels == 1 and image.mode not in GREY_MODES:
                raise _ColourFoundError
            if not form.resized and (image.height, image.width) != (form.height, form.width):
                raise UserError(
                    f"images of different sizes: {form.first} has {form.width}x{form.height} pixels, "
                    f"{path} has {image.width}x{image.height}. "
                    "Bring them to one by --set data.image_size=32 (or another number of pixels)."
                )
            images[i] = _pixels(image, form)
    return len(some)


@contextmanager
def _opened(path: str) -> Iterator[Image]:
    """Open an image file; what its decoder stumbles over inside the block becomes an error that names the file."""
    import PIL.Image

    try:
        with PIL.Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise UserError(f"{path} has more than 8 bits a channel (mode {image.mode}): convert it to 8 bits.")
            yield image
    except (UserError, _ColourFoundError):
        raise
    except Exception as error:  # of many kinds: each decoder stumbles in its own way
        raise UserError(
            f"{path} cannot be read as an image ({type(error).__name__}: {error}). Replace it or remove it."
        ) from error


def _pixels(image: Image, form: _Form) -> np.ndarray:
    """Decode an image to uint8 [C, H, W]."""
    from torchvision.transforms.functional import center_crop, resize

    image = image.convert("L" if form.channels == 1 else "RGB")
    if form.resized:
        image = center_crop(resize(image, form.height), form.height)
    pixels = np.asarray(image)
    return pixels[None] if form.channels == 1 else pixels.transpose(2, 0, 1)
