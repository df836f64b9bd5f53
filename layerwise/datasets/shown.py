"""Sets of images that a trained run has not seen: folders named as its classes, read as the run reads its own images.

A set is a folder in which at least one folder has the name of a class, and images in it. Another may lead to
several: of images-c/gaussian_noise/3/CLASS/..., images-c gives the set gaussian_noise/3, beside all others below it.
Classes are told by their names alone: their numbers are those of the run, in whatever order folders come.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import normalize

import numpy as np

from layerwise.datasets.filling import decode_as
from layerwise.datasets.folder import class_files, is_hidden, is_image, some
from layerwise.datasets.pictures import ColourFoundError, Form, is_grey
from layerwise.datasets.split import fingerprint
from layerwise.errors import UserError

log = logging.getLogger("layerwise.imagefolder")

# How far below the folder that is given its sets may stand: corruption/severity is two.
DEEPEST = 3
OWN_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class ShownFolder:
    """A set that was found: its name, its folder, and the paths of its files by the number of their class."""

    name: str
    folder: Path
    files: Mapping[int, Sequence[str]] = field(repr=False)

    def __len__(self) -> int:
        return sum(map(len, self.files.values()))


@dataclass(frozen=True)
class ShownImages:
    """A set that was read: images uint8 [n, C, H, W], labels int64 [n] by the run's classes.

    digest: SHA-256 of images and labels, as they are read.
    """

    name: str
    folder: Path
    images: np.ndarray = field(repr=False)
    label: np.ndarray = field(repr=False)

    @property
    def digest(self) -> str:
        channels, height, width = self.images.shape[1:]
        return fingerprint((channels, height, width), [self.images], self.label, np.arange(len(self.label)))


def folder_name(name: str) -> str:
    """Return how the folder of a class is named: as the class, but for the slash of T-shirt/top."""
    return _key(name.replace("/", "_"))


def find_shown(folder: Path, classes: Sequence[str], run: str) -> list[ShownFolder]:
    """Return the sets of a folder; what is no class of the run, and what a set lacks, is said in a line each.

    Raises UserError for a folder that is not there, or holds no set.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} {'is no folder' if folder.exists() else 'does not exist'}; expected one of folders that are "
            "named as the classes of the run, given by --evaluate."
        )
    numbers = {folder_name(name): i for i, name in enumerate(classes)}
    if len(numbers) < len(classes):
        alike = [name for i, name in enumerate(classes) if numbers[folder_name(name)] != i]
        raise UserError(
            f"{run} has several classes whose folders would have one name ({some(alike)}), so that images in folders "
            "cannot be told apart by class."
        )
    sets = [_found(folder, at, numbers, classes) for at in _set_folders(folder, numbers, DEEPEST)]
    if not sets:
        held = sorted(name for name in os.listdir(folder) if (folder / name).is_dir())
        raise UserError(
            f"{folder} has no folder of images that is named as a class of {run} ({some(list(classes))}), nor have its "
            f"folders (found: {some(held) or 'none'}). Expected CLASS/*.png, or NAME/CLASS/*.png for several sets."
        )
    return sets


def form_of_run(shape: tuple[int, int, int], image_size: int, eval_resize: int, run: str) -> Form:
    """Return the form that a run's own images (C, H, W) set for others; they are resized if its own were."""
    return Form(
        *shape, run, resized=image_size > 0, shorter=eval_resize or image_size,
        advice="Bring them to the size of the images that the network was trained on.",
    )  # fmt: skip


def require_form(found: ShownFolder, form: Form) -> None:
    """Raise UserError, as `read_shown` would, by the first image of a set alone."""
    label, (first, *_) = next(iter(found.files.items()))
    read_shown(ShownFolder(found.name, found.folder, {label: [first]}), form)


def read_shown(found: ShownFolder, form: Form) -> ShownImages:
    """Read a set in the form of a run's own images.

    Raises UserError for images that cannot be read, that are of another size where none is resized, or in colour where
    the run's are grey.
    """
    paths = [path for files in found.files.values() for path in files]
    try:
        ((images, _),) = decode_as([paths], form)
    except ColourFoundError:
        colour = next(path for path in paths if not is_grey(path))
        raise UserError(
            f"{colour} is in colour, but the images of {form.first} are grey. Convert it to grey."
        ) from None
    label = np.concatenate([np.full(len(files), i, np.int64) for i, files in found.files.items()])
    return ShownImages(found.name, found.folder, images, label)


def _set_folders(folder: Path, numbers: Mapping[str, int], deepest: int) -> Iterator[Path]:
    inside = sorted(one for one in os.listdir(folder) if (folder / one).is_dir() and not is_hidden(one))
    # With images in it: where classes are digits, the folders of severities have their names.
    if any(_key(one) in numbers and any(map(is_image, os.listdir(folder / one))) for one in inside):
        yield folder
    elif deepest:
        for one in inside:
            yield from _set_folders(folder / one, numbers, deepest - 1)


def _key(name: str) -> str:
    return normalize("NFC", name)


def _found(top: Path, folder: Path, numbers: Mapping[str, int], classes: Sequence[str]) -> ShownFolder:
    name = _name(top, folder)
    by_folder, left_out = class_files(folder)
    files = {numbers[_key(one)]: found for one, found in by_folder.items() if found and _key(one) in numbers}
    others = [one for one in by_folder if _key(one) not in numbers]
    if others:
        log.warning("%s: not read are %d folders that are no classes of the run (%s)", name, len(others), some(others))
    if left_out:
        log.warning("%s: not read are %s", name, left_out)
    if missing := [one for i, one in enumerate(classes) if i not in files]:
        log.warning(
            "%s: no image of %d of the %d classes (%s), so that its accuracy is that of the others",
            name, len(missing), len(classes), some(missing),
        )  # fmt: skip
    return ShownFolder(name, folder, dict(sorted(files.items())))


def _name(top: Path, folder: Path) -> str:
    """Return what rows call a set: its folder below the one given, or that one's own name; no split of the run's."""
    below = folder.relative_to(top).as_posix()
    own = top.resolve().name
    name = own if below == "." else below
    if name not in OWN_SPLITS:
        return name
    return f"{own}/{name}" if below != "." else f"{top.resolve().parent.name}/{name}"
