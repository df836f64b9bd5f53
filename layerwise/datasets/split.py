"""A split: uint8 images, their labels and positions, in memory here; `stream` has those that stay in their files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain
from math import prod

import numpy as np

Rows = slice | np.ndarray


class Split:
    """Images of one split in a fixed order.

    images: uint8 [n, C, H, W]; label: int64 [n] in [0, n_classes); index: int64 [n], each image's position in
    the published split it comes from (train and validation both count from the published train split).
    """

    kept = "memory"  # where the images are, as a run file's /provenance says it
    waited = 0.0  # seconds spent waiting for images

    def __init__(self, images: np.ndarray, label: np.ndarray, index: np.ndarray):
        self._images, self.label, self.index = images, label, index

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
