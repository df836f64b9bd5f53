"""Images of a finished run, decoded again from the files that they came from; each is compared with its SHA-256.

What cannot be trusted is found as early as can be: files that are gone when the split is opened, with those that the
folder's index knows to be others; any other change when the file is read, which is before a number is computed from it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from layerwise.commandline import progress
from layerwise.datasets.filling import NAMED
from layerwise.datasets.folder import count_images
from layerwise.datasets.index import known_index, places_of, stats_of
from layerwise.datasets.pictures import Form, sha256_of
from layerwise.datasets.split import SplitFiles, fingerprint, histogram_of
from layerwise.datasets.stream import Decoder
from layerwise.datasets.survey import Survey, key_of, recall, remember
from layerwise.datasets.workers import cores
from layerwise.errors import UserError

log = logging.getLogger("layerwise.imagefolder")

PIECE = 8  # images that a thread decodes at once, few enough that all cores share a batch of 64
ADVICE = "Put back what was there, or give the folder as it was by --data-dir."


class RereadImages:
    """Images uint8 [n, C, H, W] of a split, decoded from their files whenever rows are asked for, on all cores.

    Memory is that of the rows that are asked for. whose: the run that was made of them, for messages.
    """

    dtype = np.dtype(np.uint8)
    is_contiguous = True  # rows may be read by a thread of its own

    def __init__(self, files: SplitFiles, whose: str):
        self.files, self.shape = files, (len(files.names), *files.image)
        channels, height, width = files.image
        form = Form(channels, height, width, whose, bool(files.resize), files.resize)
        self._decoder = _CheckedDecoder(files, form, whose)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all images, decoded."""
        return prod(self.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Return some images by any subscript of the first axis; raise UserError for a file that is another now."""
        numbers = np.arange(len(self))[key]
        rows = np.ravel(numbers)
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        pieces = [rows[first : first + PIECE] for first in range(0, len(rows), PIECE)]
        with ThreadPoolExecutor(min(cores(), max(1, len(pieces)))) as pool:
            for i, found in enumerate(pool.map(self._decoder.__getitems__, pieces)):
                if isinstance(found, UserError):
                    pool.shutdown(cancel_futures=True)
                    raise found
                images[i * PIECE : (i + 1) * PIECE] = found.numpy()
        return images.reshape(*np.shape(numbers), *self.shape[1:])


class _CheckedDecoder(Decoder):
    """Decodes files whose digests are as they were."""

    def __init__(self, files: SplitFiles, form: Form, whose: str):
        super().__init__(files, form)
        self.whose = whose

    def pixels(self, path: str, row: int, box: list[int] | None) -> np.ndarray:
        try:
            is_same = np.array_equal(sha256_of(path), self.files.sha256[row])
        except OSError as error:
            raise UserError(
                f"{path}, of which {self.whose} was made, cannot be read ({error.strerror}). {ADVICE}"
            ) from None
        if not is_same:
            raise UserError(f"{path} is not the file of which {self.whose} was made: its SHA-256 differs. {ADVICE}")
        return super().pixels(path, row, box)


def require_same(files: SplitFiles, split: str, whose: str) -> None:
    """Raise UserError for all files of a split that are gone, or that the folder's index knows to be others now.

    No file is opened: what the index does not know is seen when it is read.
    """
    stats = stats_of(files.root, files.names)
    gone, changed = stats[:, 0] < 0, np.zeros(len(stats), dtype=bool)
    if (index := known_index(files.root)) is not None:
        places = places_of(index.files.names, files.names)
        records = index.records[places]
        before = np.stack([records["bytes"], records["changed"]], axis=1)
        is_known = (places >= 0) & ~gone & (before == stats).all(axis=1)
        changed = is_known & (records["sha256"] != files.sha256).any(axis=1)
    parts = [_named(files, which, word) for which, word in ((gone, "not there"), (changed, "changed")) if which.any()]
    if parts:
        raise UserError(
            f"{files.root} is not as it was when {whose} was made: of {len(stats)} {split} images {'; '.join(parts)}. "
            f"{ADVICE}"
        )


def _named(files: SplitFiles, which: np.ndarray, word: str) -> str:
    names = [os.fsdecode(name) for name in files.names[which][:NAMED]]
    count = int(which.sum())
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return f"{count} {'is' if count == 1 else 'are'} {word} ({', '.join(names)}{more})"


def say_added(root: Path, first: Iterable[bytes], found: int, whose: str) -> None:
    """Say in one line that a folder holds more images than it did; they are no part of the run.

    first: the first name of each split. found: how many images the folder held.
    """
    tops = {os.fsdecode(name.split(b"/")[0]) for name in first}
    added = count_images([root / top for top in tops] if "train" in tops else [root]) - found
    if added > 0:
        log.warning(
            "%s holds %s than when %s was made: they are no part of it, and not read",
            root, "1 image more" if added == 1 else f"{added} images more", whose,
        )  # fmt: skip


def require_pixels(
    images: RereadImages, label: np.ndarray, index: np.ndarray, fingerprint_then: str, split: str, whose: str
) -> None:
    """Raise UserError where files that are the same are decoded to other pixels here, as by another Pillow.

    Takes a pass over the images, whose finding is remembered beside them.
    """
    files = images.files
    key = key_of(files.image, files.resize, files.sha256, label, index)
    if (found := recall(files.root, key)) is None:
        found = _surveyed(images, label, index)
        remember(files.root, key, found)
    if found.fingerprint != fingerprint_then:
        import PIL

        raise UserError(
            f"the {split} images below {files.root} are the files of which {whose} was made, but Pillow "
            f"{PIL.__version__} decodes them to other pixels than then. Install the versions that `layerwise-inspect "
            "--json` shows as decoders."
        )


def _surveyed(images: RereadImages, label: np.ndarray, index: np.ndarray) -> Survey:
    histogram, size = np.zeros((images.shape[1], 256), np.int64), 32 * PIECE

    def parts() -> Iterator[np.ndarray]:
        with progress() as bar:
            task = bar.add_task("comparing images", total=len(images))
            for first in range(0, len(images), size):
                some = images[first : first + size]
                histogram[:] += histogram_of(some)
                yield some
                bar.update(task, advance=len(some))

    return Survey(fingerprint(images.files.image, parts(), label, index), histogram)
