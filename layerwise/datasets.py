"""Owns the data sets: uint8 images in memory, and the validation fold set apart before anything is trained.

Digits: scikit-learn's 8x8 digits, split 80/20 into train and test, stratified, by seed 0. Every other data
set keeps its own train and test split. The validation fold is a stratified share of the train split, drawn
with a fixed seed, so that it is the same images for every run: no weight, no BatchNorm statistic and no
normalisation constant sees it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerwise.errors import UsageError, UserError, unknown

SPLIT_SEED = 0
DIGITS_TEST_SHARE = 0.2


@dataclass(frozen=True)
class Split:
    """Images of one split in a fixed order.

    images: uint8 [n, C, H, W]; label: int64 [n] in [0, n_classes); index: int64 [n], each image's position in
    the published split it comes from (train and validation both count from the published train split).
    """

    images: np.ndarray
    label: np.ndarray
    index: np.ndarray

    def fingerprint(self) -> str:
        """Return the SHA-256 of shape, images, labels and indices, in hex."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        for array in (self.images, self.label, self.index):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A data set with its validation fold set apart.

    splits: "train", "validation" (absent at holdout 0) and "test"; classes: names in label order; mean, std:
    one value a channel, of images scaled to [0, 1], computed from the train fold alone.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        return self.splits["train"].images.shape[1:]


def load_dataset(name: str, *, holdout: float, data_dir: Path | None = None) -> Dataset:
    """Load a data set and set its validation fold apart.

    Args:
        name: one of `DATASETS`.
        holdout: share of the train split, in [0, 0.5], that becomes the validation fold.
        data_dir: folder that holds the data, for data sets that are not bundled.

    Raises:
        UsageError: unknown name, or a data set that needs `data_dir` where none is given.
        UserError: the folder does not hold the data, or a class is too small for the fold.
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    train, test, classes = DATASETS[name](data_dir)
    kept, held = stratified_split(train.label, holdout)
    splits = {"train": _take(train, kept), "validation": _take(train, held), "test": test}
    if len(held) == 0:
        del splits["validation"]
    mean, std = channel_statistics(splits["train"].images)
    return Dataset(name, classes, splits, mean, std)


def stratified_split(label: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Split positions 0..n-1 into (kept, held), with `share` of each class held, by the fixed seed.

    Both come back in ascending order. Raises UserError if a share above 0 would hold no image of some class,
    or leave none.
    """
    if share == 0:
        return np.arange(len(label)), np.arange(0)
    rng = np.random.default_rng(SPLIT_SEED)
    held = []
    for c in np.unique(label):
        members = np.flatnonzero(label == c)
        count = round(share * len(members))
        if not 0 < count < len(members):
            raise UserError(
                f"class {c} has {len(members)} training images, of which a holdout of {share} sets {count} apart; "
                "each class needs at least one on either side. Give another --holdout, or 0 for none."
            )
        held.append(rng.permutation(members)[:count])
    is_held = np.zeros(len(label), dtype=bool)
    is_held[np.concatenate(held)] = True
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation a channel of uint8 images [n, C, H, W] scaled to [0, 1].

    Exact: computed from each channel's histogram of 256 values in float64. A constant channel gets deviation 1.
    """
    values = np.arange(256) / 255
    mean, std = [], []
    for c in range(images.shape[1]):
        weight = np.bincount(images[:, c].ravel(), minlength=256) / images[:, c].size
        m = float(weight @ values)
        mean.append(m)
        std.append(float(np.sqrt(weight @ (values - m) ** 2)) or 1.0)
    return tuple(mean), tuple(std)


def _take(split: Split, rows: np.ndarray) -> Split:
    return Split(split.images[rows], split.label[rows], split.index[rows])


def _whole(images: np.ndarray, label: np.ndarray) -> Split:
    return Split(np.ascontiguousarray(images, dtype=np.uint8), label.astype(np.int64), np.arange(len(label)))


def _digits(data_dir: Path | None) -> tuple[Split, Split, tuple[str, ...]]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # 17 grey levels 0..16, spread over the whole range of uint8; one to one.
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    everything = _whole(images, bunch.target)
    train, test = stratified_split(everything.label, DIGITS_TEST_SHARE)
    return _take(everything, train), _take(everything, test), tuple(str(c) for c in range(10))


def _fashion_mnist(data_dir: Path | None) -> tuple[Split, Split, tuple[str, ...]]:
    from torchvision.datasets import FashionMNIST

    if data_dir is None:
        raise UsageError(
            "fashion-mnist is not bundled: give the folder that holds FashionMNIST/raw by --data-dir, "
            "or by the environment variable LAYERWISE_DATA."
        )
    try:
        parts = [FashionMNIST(root=str(data_dir), train=train, download=False) for train in (True, False)]
    except RuntimeError:
        raise UserError(
            f"fashion-mnist was not found: looked for train-images-idx3-ubyte and its three sisters in "
            f"{data_dir / 'FashionMNIST' / 'raw'}. Give the folder above FashionMNIST by --data-dir."
        ) from None
    train, test = (_whole(part.data.numpy()[:, None], part.targets.numpy()) for part in parts)
    return train, test, tuple(parts[0].classes)


DATASETS: dict[str, Callable[[Path | None], tuple[Split, Split, tuple[str, ...]]]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
}
