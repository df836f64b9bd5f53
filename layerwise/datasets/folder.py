"""Data sets that are folders of image files: which files are read, and their classes by the names of their folders.

The folder holds train/CLASS/... and test/CLASS/... (or val/CLASS/..., where there is no test/), or CLASS/... alone, of
which a share becomes the test split. Nothing is opened here. Every file below these folders is read, or counted in one
line as not read.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import NoReturn
from unicodedata import normalize

import numpy as np

from layerwise.datasets.folds import stratified_test
from layerwise.datasets.pictures import ENDINGS
from layerwise.datasets.published import require_folder
from layerwise.errors import UsageError, UserError, option

log = logging.getLogger("layerwise.imagefolder")

# Folders that systems make by themselves, besides those whose names begin with a dot.
_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
# What systems put beside pictures, besides files whose names begin with a dot: not worth a word.
_SYSTEM_FILES = ("thumbs.db", "desktop.ini", "icon\r")
# What the second split is called; the first of these that is there is the test split.
_TEST_SPLITS = ("test", "val", "valid", "validation")
# What a third split is called; none of them is read.
_UNREAD_SPLITS = (*_TEST_SPLITS, "dev", "unlabeled", "unlabelled")


@dataclass
class _LeftOut:
    """What stands below the splits and is not read.

    endings: number of files by the end of their names; hidden: number of files by hidden folder; outside: images
    that stand in no class folder.
    """

    endings: Counter[str] = field(default_factory=Counter)
    hidden: Counter[str] = field(default_factory=Counter)
    outside: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """Return all of it in words, or nothing where every file is read."""
        parts = []
        if self.endings:
            often = sorted(self.endings.items(), key=lambda kind: (-kind[1], kind[0]))
            kinds = [f"{count} {ending or 'without ending'}" for ending, count in often]
            parts.append(f"files that do not end as images do: {self.endings.total()} ({some(kinds)})")
        if files := self.hidden.total():
            parts.append(f"files in hidden folders, which are no classes: {files} ({some(sorted(self.hidden))})")
        if self.outside:
            parts.append(f"images in no class folder: {len(self.outside)} ({some(sorted(self.outside), 1)})")
        return "; ".join(parts)


@dataclass(frozen=True)
class Files:
    """The image files of a folder in the order of class, then path; of train/ and test/ those of train first.

    names: bytes [n], paths below root (one array, of which the processes that decode need no copies). label: int64 [n].
    tested: bool [n], whether a file is of the test split. has_splits: whether the folder says so itself.
    """

    root: Path
    classes: tuple[str, ...]
    names: np.ndarray
    label: np.ndarray
    tested: np.ndarray
    has_splits: bool

    def paths(self, rows: np.ndarray) -> list[str]:
        """Return the paths of some files, with the folder's own."""
        return [path_of(self.root, name) for name in self.names[rows]]


def path_of(root: Path, name: bytes) -> str:
    """Return the path of a file by its name in `Files`."""
    return os.path.join(root, os.fsdecode(name))


def require_images(data_dir: Path | None) -> Path:
    """Return the folder of images; raise UsageError where none is given, UserError where it is none."""
    root = require_folder("imagefolder", "train/ and test/ (or val/), or class folders alone", data_dir)
    if not root.is_dir():
        raise UserError(
            f"{root} {'is no folder' if root.exists() else 'does not exist'}; expected the folder of the images, given "
            "by --data-dir."
        )
    return root


def find_files(root: Path, test_share: float = 0.0) -> Files:
    """Find the image files of a folder; none is opened. Classes are numbered by the names of their folders.

    Args:
        test_share: of a folder of class folders alone, the share of each class that is the test split, by a fixed seed.

    Raises:
        UserError: no train/, or neither test/ nor val/; classes that differ, are empty or fewer than two.
    """
    folders = [root] if test_share else _split_folders(root)
    left_out = _LeftOut()
    found = [_find_files(folder, left_out) for folder in folders]
    if test_share:
        _refuse_splits(root, found[0])
    files = dict(zip(folders, [found[0], *(_spelled_as(found[0], other) for other in found[1:])], strict=True))
    if words := left_out.describe():
        log.warning("%s: not read are %s", root, words)
    _check_classes(folders, files)
    classes = sorted(files[folders[0]])
    names = [name for folder in folders for name in _below(root, folder, (files[folder][c] for c in classes))]
    counts = [[len(files[folder][c]) for c in classes] for folder in folders]
    label = np.concatenate([np.repeat(np.arange(len(classes)), count) for count in counts])
    tested = np.arange(len(label)) >= sum(counts[0])
    if test_share:
        tested = tested_of(label, test_share)
    return Files(root, tuple(classes), np.array(names), label, tested, not test_share)


def class_files(folder: Path) -> tuple[dict[str, list[str]], str]:
    """Return the image files of each folder in one, by its name, and in words which files are not read."""
    left_out = _LeftOut()
    return _find_files(folder, left_out), left_out.describe()


def count_images(folders: Sequence[Path]) -> int:
    """Return how many image files stand in the class folders of some folders; those that are not there have none."""
    found = [_find_files(folder, _LeftOut()) for folder in folders if folder.is_dir()]
    return sum(len(paths) for classes in found for paths in classes.values())


def _below(root: Path, folder: Path, paths: Iterable[list[str]]) -> Iterator[bytes]:
    """Yield the paths of files in one of root's folders as they are below root."""
    skipped = len(os.path.join(folder, ""))
    above = "" if folder == root else f"{folder.name}/"
    for path in chain.from_iterable(paths):
        yield os.fsencode(above + path[skipped:])


def tested_of(label: np.ndarray, test_share: float) -> np.ndarray:
    """Return which files are of the test split, bool [n], where a share of each class is."""
    tested = np.zeros(len(label), dtype=bool)
    tested[stratified_test(label, test_share)[1]] = True
    return tested


def _split_folders(root: Path) -> list[Path]:
    held = [name for name in ("train", *_TEST_SPLITS) if (root / name).is_dir()]
    if "train" not in held or len(held) < 2:
        raise UserError(
            f"{root} holds {', '.join(f'{name}/' for name in held) or 'neither train/ nor test/ nor val/'}, but an "
            "imagefolder needs train/ and test/ (or val/), each with a folder of images for each class. Give the "
            f"folder above them by --data-dir, or, where it holds class folders alone, {option('test_share', '0.2')}."
        )
    for name in _UNREAD_SPLITS:
        if name != held[1] and (root / name).is_dir():
            log.warning("%s is not read: %s is the test split, and --holdout sets validation images apart",
                        root / name, root / held[1])  # fmt: skip
    return [root / name for name in held[:2]]


def _refuse_splits(root: Path, classes: Mapping[str, object]) -> None:
    """Raise UsageError where what are taken for classes are splits."""
    if splits := [name for name in ("train", *_TEST_SPLITS) if name in classes]:
        raise UsageError(
            f"{root} holds {', '.join(f'{name}/' for name in splits)}, but {option('test_share')} is of a folder of "
            f"class folders alone. Leave it out, or give {option('test_share', '0')} where a configuration has it."
        )


def _find_files(folder: Path, left_out: _LeftOut) -> dict[str, list[str]]:
    """Return the paths of the image files of each class folder, in torchvision's order."""
    files = {}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if not os.path.isdir(path):
            if is_image(name):
                left_out.outside.append(path)
            else:
                _count_other(name, left_out)
        elif is_hidden(name):
            left_out.hidden[path] += sum(len(names) for _, _, names in os.walk(path))
        else:
            _require_utf8(folder, name)
            files[name] = list(_files_below(path, left_out))
    return files


def _files_below(top: str, left_out: _LeftOut) -> Iterator[str]:
    """Yield the image files of a class folder, those of its folders too, ordered by folder, then name."""
    seen: dict[str, str] = {}
    held: dict[str, list[str]] = {}
    for root, folders, names in os.walk(top, followlinks=True, onerror=_refuse_folder):
        real = os.path.realpath(root)
        if real in seen:
            raise UserError(
                f"{root} leads to the same folder as {seen[real]}, whose images would be read twice. Remove that link."
            )
        seen[real], held[root] = root, names
        for name in [name for name in folders if is_hidden(name)]:
            folders.remove(name)
            path = os.path.join(root, name)
            left_out.hidden[path] += sum(len(inside) for _, _, inside in os.walk(path))
    for root in sorted(held):
        for name in sorted(held[root]):
            if is_image(name):
                yield os.path.join(root, name)
            else:
                _count_other(name, left_out)


def _refuse_folder(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename} cannot be read ({error.strerror}), nor then its images. Give it a way in.")


def is_image(name: str) -> bool:
    """Return whether a file is read as an image, by the end of its name."""
    return name.lower().endswith(ENDINGS)


def is_hidden(name: str) -> bool:
    """Return whether a folder is one that systems make, and no class."""
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def _count_other(name: str, left_out: _LeftOut) -> None:
    if not name.startswith(".") and name.lower() not in _SYSTEM_FILES:
        left_out.endings[os.path.splitext(name)[1]] += 1


def _require_utf8(folder: Path, name: str) -> None:
    """Raise UserError for a class that no table and no run file could name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{folder} has the class folder {os.fsencode(name)!r}, whose name is not UTF-8. Rename it in train and "
            "test."
        ) from None


def _spelled_as(train: Mapping[str, object], test: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the classes of test as train spells them: macOS writes an accented letter as two where others do not."""
    spelled = {normalize("NFC", name): name for name in train if name not in test}
    return {name if name in train else spelled.get(normalize("NFC", name), name): paths for name, paths in test.items()}


def _check_classes(folders: Sequence[Path], files: Mapping[Path, Mapping[str, list[str]]]) -> None:
    train, test = folders[0], folders[-1]
    if files[train].keys() != files[test].keys():
        only = [
            f"only {a} has {some(sorted(files[a].keys() - files[b].keys()))}"
            for a, b in ((train, test), (test, train))
            if files[a].keys() - files[b].keys()
        ]
        raise UserError(f"train and test have different class folders: {'; '.join(only)}. Both need the same ones.")
    if len(files[train]) < 2:
        raise UserError(
            f"{train} holds {some(sorted(files[train])) or 'no folder'}, but at least two class folders are needed."
        )
    for folder in folders:
        for name, paths in files[folder].items():
            if not paths:
                raise UserError(
                    f"the class folder {folder / name} holds no image file (.jpg, .png, .bmp, .webp and the like): "
                    "put images there, or remove the class from train and test."
                )


def some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
