"""A split: uint8 images, their labels and positions, in memory here; `stream` has those that stay in their files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path

import numpy as np

Rows = slice | np.ndarray
DIGEST_BYTES = 32  # SHA-256


@dataclass(frozen=True)
class SplitFiles:
    """The files that the images of a split were decoded from, in its order; a run file tells where its images are.

    root: the folder of images, which held `found` of them. names: bytes [n], paths below it. sha256: uint8 [n, 32], of
    each file. image: shape (C, H, W) of an image. resize: pixels to which the shorter side is brought before the middle
    is cropped; 0 leaves images as they are.
    """

    root: Path
    found: int
    names: np.ndarray
    sha256: np.ndarray
    image: tuple[int, int, int]
    resize: int

    def __post_init__(self) -> None:
        # As wide as the longest of these names needs, whatever else the folder holds.
        object.__setattr__(self, "names", self.names.astype(f"S{file_bytes(self.names) - DIGEST_BYTES}"))

    @property
    def nbytes(self) -> int:
        """Bytes of all names and digests."""
        return self.names.nbytes + self.sha256.nbytes


def file_bytes(names: np.ndarray) -> int:
    """Return the bytes that name one of some files in a run file: of the longest path, and of a digest."""
    return int(np.char.str_len(names).max()) + DIGEST_BYTES


class Split:
    """Images of one split in a fixed order.

    images: uint8 [n, C, H, W]; label: int64 [n] in [0, n_classes); index: int64 [n], each image's position in
    the published split it comes from (train and validation both count from the published train split). files: of a
    folder of images, where they are; None of other data.
    """

    kept = "memory"  # where the images are, as a run file's /provenance says it
    waited = 0.0  # seconds spent waiting for images

    def __init__(self, images: np.ndarray, label: np.ndarray, index: np.ndarray, files: SplitFiles | None = None):
        # With the strides of a new array: those of an axis of one channel say nothing, but torch takes images of some
        # for channels last, and convolves them by another kernel, whose last bits differ.
        self._images = images.ravel().reshape(images.shape) if images.flags.c_contiguous else images
        self.label, self.index, self.files = label, index, files

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.shape))
        return f"Split({len(self.label)} images of {size}, {len(np.unique(self.label))} classes)"

    @property
    def images(self) -> np.ndarray:
        """All images, uint8 [n, C, H, W]; a split that is not in memory has none, and says so."""
        return self._images

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        c, h, w = self.images.shape[1:]
        return c, h, w

    @property
    def nbytes(self) -> int:
        """Bytes of all images, in memory or not."""
        return len(self.label) * prod(self.shape)

    def read(self, rows: Rows) -> np.ndarray:
        """Return some images, uint8 [rows, C, H, W]."""
        return self.images[rows]

    def stream(self, parts: Iterable[Rows]) -> Iterator[np.ndarray]:
        """Yield the images of each part, uint8 [rows, C, H, W], in the order of the parts."""
        for rows in parts:
            yield self.images[rows]

    def fingerprint(self) -> str:
        """Return the SHA-256 of shape, images, labels and indices, in hex."""
        return fingerprint(self.shape, [self.images], self.label, self.index)


def fingerprint(shape: tuple[int, int, int], parts: Iterable[np.ndarray], label: np.ndarray, index: np.ndarray) -> str:
    """Return the SHA-256 of a split whose images come in parts: of its shape, images, labels and indices, in hex."""
    digest = hashlib.sha256(repr((len(label), *shape)).encode())
    for array in chain(parts, (label, index)):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def histogram_of(images: np.ndarray) -> np.ndarray:
    """Return how many pixels of each channel have each value, int64 [C, 256], of uint8 images [n, C, H, W]."""
    # By thousands of images, since bincount makes eight bytes of each pixel.
    parts = [images[start : start + 1000] for start in range(0, len(images), 1000)]
    counted = [[np.bincount(part[:, c].ravel(), minlength=256) for part in parts] for c in range(images.shape[1])]
    return np.array([sum(counts) for counts in counted], dtype=np.int64)


def statistics_of(histogram: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation a channel of pixels scaled to [0, 1], in float64, of their histogram [C, 256].

    A constant channel gets deviation 1.
    """
    values = np.arange(256) / 255
    mean, std = [], []
    for counts in histogram:
        weight = counts / counts.sum()
        m = float(weight @ values)
        mean.append(m)
        std.append(float(np.sqrt(weight @ (values - m) ** 2)) or 1.0)
    return tuple(mean), tuple(std)


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation a channel of uint8 images [n, C, H, W], as `statistics_of`."""
    return statistics_of(histogram_of(images))
