"""A split whose images stay in their files: other processes decode them whenever they are used.

Its pixels are those that memory would hold, since one function decodes both (`pictures.decode_one`). What is drawn for
an image is drawn for the whole epoch by the process that trains (training/batches.py), so it follows from seed, stage,
epoch and image, whichever process decodes it.

A view of the original pixels, a random part that is brought to the size of all, is made where they are decoded: a piece
of work then carries the draws of each image below its row (int64 [6, n], as a `choice` of training/batches.py does).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layerwise.commandline import progress
from layerwise.datasets.folder import path_of
from layerwise.datasets.index import Index
from layerwise.datasets.pictures import ColourFoundError, Form, UnreadError, decode_one, view_one
from layerwise.datasets.split import Rows, Split, SplitFiles, fingerprint
from layerwise.datasets.survey import Survey, key_of, recall, remember
from layerwise.datasets.workers import read_by
from layerwise.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# Images that a process decodes at once: enough that handing them over costs nothing beside decoding (0.1 s at 300
# images/s), few enough that all processes share the first batch of an epoch.
PIECE = 32
SHARED_MEMORY = Path("/dev/shm")


class StreamedSplit(Split):
    """Images of one split that are decoded when they are used.

    folder: its index; rows: which of its files are the split's. waited: seconds that were spent waiting for images.
    workers: processes that decode, 0 for none beside this one.
    """

    kept = "files"
    files: SplitFiles

    def __init__(self, index: Index, rows: np.ndarray, position: np.ndarray, form: Form, workers: int):
        self.folder, self.rows = index, rows
        self.label, self.index = index.files.label[rows], position
        self.form, self.workers, self.waited = form, workers, 0.0
        names, sha256 = index.files.names[rows], index.records["sha256"][rows]
        image, resize = (form.channels, form.height, form.width), form.shorter if form.resized else 0
        self.files = SplitFiles(index.files.root, len(index.files.names), names, sha256, image, resize)
        # [2, n]: height and width of every original, upright, in pixels.
        self.sizes = np.stack([index.records[side][rows].astype(np.int64) for side in ("height", "width")])
        self._survey: Survey | None = None

    @property
    def images(self) -> np.ndarray:
        """Raise UserError: they are not in memory."""
        raise UserError(
            "the images of this split stay in their files: read(rows) returns some of them. All are in memory "
            "where the data set is loaded with read='memory'."
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        return self.form.channels, self.form.height, self.form.width

    def read(self, rows: Rows) -> np.ndarray:
        """Return some images, uint8 [rows, C, H, W]."""
        return next(self.stream([rows]))

    def stream(self, parts: Iterable[Rows]) -> Iterator[np.ndarray]:
        """Yield the images of each part, uint8 [rows, C, H, W], in the order of the parts; later ones are read ahead.

        Raises UserError for a file that cannot be read any more.
        """
        every = np.arange(len(self.label))
        yield from self._decoded([every[rows] for rows in parts])

    def views(self, choices: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield a random view of each image of each choice, uint8 [n, C, H, W].

        choices: int64 [6, n]: row, top, left, whether it is mirrored, height and width of a part of the original.
        """
        yield from self._decoded(list(choices))

    def _decoded(self, wanted: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        size, ahead = self._sizes(max((part.shape[-1] for part in wanted), default=0))
        decoder = Decoder(self.files, self.form)
        decoded = read_by(decoder, list(_pieces(wanted, size)), self.workers, ahead)
        for rows in wanted:
            start = time.perf_counter()
            images = np.empty((rows.shape[-1], *self.shape), np.uint8)
            for first in range(0, len(images), size):
                images[first : first + size] = next(decoded).numpy()
            self.waited += time.perf_counter() - start
            yield images

    def _sizes(self, largest: int) -> tuple[int, int]:
        """Return the images of a piece, and how many pieces each process reads ahead: two of the largest parts in all.

        They lie in the shared memory of the machine, of which a container may have little (64 MB with Docker).
        """
        ahead = max(2, -(-2 * largest // (PIECE * max(1, self.workers))))
        if not SHARED_MEMORY.is_dir():
            return PIECE, ahead
        most = shutil.disk_usage(SHARED_MEMORY).free // (2 * prod(self.shape) * max(1, self.workers))
        ahead = max(2, min(ahead, most // PIECE))
        return max(1, min(PIECE, most // ahead)), ahead

    @property
    def survey(self) -> Survey:
        """What one pass over all images finds; remembered beside the index."""
        if self._survey is None:
            self._survey = self._surveyed()
        return self._survey

    def _surveyed(self) -> Survey:
        key = key_of(self.shape, self.form.shorter, self.files.sha256, self.label, self.index)
        if (known := recall(self.files.root, key)) is not None:
            return known
        every = np.arange(len(self.label))
        histogram = np.zeros((self.shape[0], 256), np.int64)

        def parts() -> Iterator[np.ndarray]:
            counter = _Counter(self.files, self.form)
            pieces = list(_pieces([every], PIECE))
            with progress() as bar:
                task = bar.add_task("surveying images", total=len(every))
                for images, counts in read_by(counter, pieces, self.workers):
                    histogram[:] += counts
                    bar.update(task, advance=len(images))
                    yield images.numpy()

        found = Survey(fingerprint(self.shape, parts(), self.label, self.index), histogram)
        remember(self.files.root, key, found)
        return found

    def fingerprint(self) -> str:
        """Return the SHA-256 of shape, images, labels and indices, in hex: that of the same split in memory."""
        return self.survey.fingerprint


def _pieces(parts: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    for rows in parts:
        yield from (rows[..., first : first + size] for first in range(0, rows.shape[-1], size))


class Decoder:
    """Decodes pieces of work in any process: rows int64 [n] of a split, or choices [6, n], to uint8 [n, C, H, W]."""

    def __init__(self, files: SplitFiles, form: Form):
        self.files, self.form = files, form

    def __len__(self) -> int:
        return len(self.files.names)

    def __getitems__(self, piece: np.ndarray) -> Tensor | UserError:
        """Return the images of some rows or choices, or what is wrong with one of their files."""
        import torch

        rows, *draws = np.atleast_2d(piece)
        boxes = np.array(draws).T.tolist() if draws else [None] * len(rows)
        images = torch.empty(len(rows), self.form.channels, self.form.height, self.form.width, dtype=torch.uint8)
        try:
            for image, row, box in zip(images.numpy(), rows.tolist(), boxes, strict=True):
                image[:] = self.pixels(path_of(self.files.root, self.files.names[row]), row, box)
        except UserError as error:
            return error
        except UnreadError as error:
            return UserError(error.alone)
        return images

    def pixels(self, path: str, row: int, box: list[int] | None) -> np.ndarray:
        """Return the pixels of a file as the data set has them, or a view of it, uint8 [C, H, W]."""
        try:
            return decode_one(path, self.form)[0] if box is None else view_one(path, self.form, box)
        except ColourFoundError:
            raise UserError(f"{path} is in colour and was grey when the images were indexed. Start again.") from None


class _Counter(Decoder):
    """Decodes pieces of work, and counts their pixels: int64 [C, 256], how many of each channel have each value."""

    def __getitems__(self, rows: np.ndarray) -> Any:
        images = super().__getitems__(rows)
        if isinstance(images, UserError):
            return images
        pixels = images.numpy()
        return images, np.stack([np.bincount(pixels[:, c].ravel(), minlength=256) for c in range(pixels.shape[1])])
