"""Data sets: uint8 images of splits, and the validation fold set apart before anything is trained.

Digits: scikit-learn's 8x8 digits, split 80/20 into train and test, stratified, by seed 0. Every other data
set keeps its own train and test split; `published` and `folder` read them. A subset of the train split, where
one is asked for, is taken first. The validation fold is then a stratified share of it, drawn with a fixed seed, so
that it is the same images for every run: no weight, no BatchNorm statistic and no normalisation constant sees it.

Memory: n C H W bytes for the images of all splits, held for good (184 MB for CIFAR-10), and, of published sets alone,
as much again for the train split while the fold is set apart. A folder of images that does not fit stays in its files
(`reading`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from layerwise.config import DATASETS, DataConfig
from layerwise.datasets.folds import fold_rows, stratified_test
from layerwise.datasets.published import read_torchvision
from layerwise.datasets.reading import AUTO, ImageReading, constants_of, folder_counts, read_folder
from layerwise.datasets.split import Split, channel_statistics
from layerwise.errors import UsageError, UserError, option, unknown
from layerwise.spoken import python_call

# The name of data that a Python session gives, and of arrays of activations.
OWN = "arrays"


@dataclass(frozen=True)
class Sizes:
    """What a data set is by count: all that a run's operations, bytes and memory depend on.

    image: shape (C, H, W) of one image; counts: number of images of each split, "validation" absent at holdout 0.
    file_bytes: of the paths and digests of all their files, where they come from such.
    """

    image: tuple[int, int, int]
    n_classes: int
    counts: dict[str, int]
    file_bytes: int = 0

    @property
    def train(self) -> int:
        """Number of images of the train fold."""
        return self.counts["train"]

    @property
    def validation(self) -> int:
        """Number of images of the validation fold; 0 where there is none."""
        return self.counts.get("validation", 0)

    @property
    def total_train(self) -> int:
        """Number of images of the train split, before the fold is set apart."""
        return self.train + self.validation

    @property
    def total(self) -> int:
        """Number of images of all splits."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Dataset:
    """A data set with its validation fold set apart.

    splits: "train", "validation" (absent at holdout 0) and "test"; classes: names in label order; mean, std:
    one value a channel, of images scaled to [0, 1], computed from the train fold alone, or as configured.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {n}" for name, n in self.counts.items())
        shape = " x ".join(map(str, self.image_shape))
        return f"Dataset({self.name}: {len(self.classes)} classes, images of {shape}; {sizes})"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        return self.splits["train"].shape

    @property
    def kept(self) -> str:
        """Where the images are: "memory", or "files", from which they are decoded whenever they are used."""
        return self.splits["train"].kept

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each split."""
        return {name: len(split.label) for name, split in self.splits.items()}

    @property
    def sizes(self) -> Sizes:
        """Shape of an image, number of classes, and number of images of each split."""
        named = sum(split.files.nbytes for split in self.splits.values() if split.files is not None)
        return Sizes(self.image_shape, len(self.classes), self.counts, named)


@python_call("layerwise-train")
def load_dataset(
    name: str,
    *,
    holdout: float,
    fold_seed: int = 0,
    subset: int = 0,
    subset_is_most: bool = False,
    test_share: float = 0.0,
    image_size: int = 0,
    eval_resize: int = 0,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    label: str = "",
    data_dir: Path | str | None = None,
    download: bool = False,
    read: str = "auto",
    workers: int | None = None,
    skip_broken: bool = False,
) -> Dataset:
    """Load a data set, take a subset of its train split, and set the validation fold apart.

    Args:
        name: one of `DATASETS`.
        holdout: share of the train split (of its subset), in [0, 0.5], that becomes the validation fold.
        fold_seed: which fold of that share; 0 for the one that all runs have by default.
        subset: number of images taken from the train split by `stratified_subset`; 0 takes all. subset_is_most: a split
            of fewer images is taken whole.
        test_share: of an imagefolder of class folders alone, the share of each class that is the test split.
        image_size: pixels of a side to which an imagefolder's images are brought; 0 leaves them as they are.
        eval_resize: pixels of the shorter side before the middle of image_size is cropped; 0 for image_size.
        mean, std: constants to normalise by, one a channel; those of the train fold where none are given.
        label: the name the data go by in files and figures; empty for `name`, or that of an imagefolder's folder.
        data_dir: folder that holds the data, for data sets that are not bundled.
        download: fetch what is not there, for data sets that are published.
        read: of an imagefolder, "memory", "stream" (its images stay in their files and are decoded whenever they are
            used), or "auto": memory where they take at most half of what is free. The pixels are the same.
        workers: processes that decode what is streamed; None for one less than there are cores.
        skip_broken: leave out files of an imagefolder that cannot be read; else they are named, and nothing is loaded.

    Raises:
        UsageError: unknown name, a subset that cannot be taken, a data set that needs `data_dir` where none is
            given, or a download of what cannot be downloaded.
        UserError: the folder does not hold the data, or holds them damaged; a download failed; a class is too
            small for the fold.
    """
    config = DataConfig(
        dataset=name, holdout=holdout, fold_seed=fold_seed, subset=subset, test_share=test_share, image_size=image_size,
        eval_resize=eval_resize, mean=tuple(mean), std=tuple(std), label=label,
    )  # fmt: skip
    folder = None if data_dir is None else Path(data_dir)
    reading = ImageReading(how=read, workers=workers, skip_broken=skip_broken)
    return load_configured(config, folder, download=download, subset_is_most=subset_is_most, reading=reading)


def with_fold(
    name: str, train: Split, test: Split, classes: tuple[str, ...], *, holdout: float, fold_seed: int, subset: int
) -> Dataset:
    """Return the data set of two splits: a subset of train is taken, and the validation fold set apart from it."""
    kept, held = fold_rows(train.label, classes, holdout=holdout, fold_seed=fold_seed, subset=subset)
    splits = {"train": _take(train, kept), "validation": _take(train, held), "test": test}
    if len(held) == 0:
        del splits["validation"]
    mean, std = channel_statistics(splits["train"].images)
    return Dataset(name, classes, splits, mean, std)


def load_configured(
    config: DataConfig,
    data_dir: Path | None,
    *,
    download: bool = False,
    subset_is_most: bool = False,
    reading: ImageReading = AUTO,
) -> Dataset:
    """Load the data set that a configuration names; see `load_dataset` for what it raises."""
    _check_asked(config, download, reading)
    label = config.label or config.dataset
    if config.dataset == "imagefolder":
        classes, splits, constants = read_folder(config, data_dir, reading, is_most=subset_is_most)
        return Dataset(config.label or _folder_name(data_dir), classes, splits, *constants)
    train, test, classes = _published(config.dataset, data_dir, download)
    dataset = with_fold(
        label, train, test, classes,
        holdout=config.holdout, fold_seed=config.fold_seed,
        subset=0 if subset_is_most and len(train.label) < config.subset else config.subset,
    )  # fmt: skip
    return with_constants(dataset, config)


def with_constants(dataset: Dataset, config: DataConfig) -> Dataset:
    """Return the data set with the mean and deviation that a configuration states, where it does."""
    given = constants_of(config, dataset.image_shape[0])
    return replace(dataset, mean=given[0], std=given[1]) if given else dataset


def load_sizes(
    config: DataConfig,
    data_dir: Path | None,
    *,
    download: bool = False,
    subset_is_most: bool = False,
    reading: ImageReading = AUTO,
) -> Sizes:
    """Return what `load_configured` would load by count; of a folder of images nothing is decoded for it."""
    if config.dataset == "imagefolder":
        _check_asked(config, download, reading)
        return Sizes(*folder_counts(config, data_dir, reading, is_most=subset_is_most))
    return load_configured(config, data_dir, download=download, subset_is_most=subset_is_most, reading=reading).sizes


def _check_asked(config: DataConfig, download: bool, reading: ImageReading) -> None:
    """Raise UsageError for data that no name stands for, and for what is asked of those that cannot have it."""
    name = config.dataset
    if name == OWN:
        raise UsageError(
            "the data were given in Python, and must be given again: layerwise.train(config=..., data=...) takes them."
        )
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    if name == "imagefolder" and download:
        raise UsageError("--download fetches published data sets, but imagefolder reads a folder of your own.")
    if name != "imagefolder" and (reading.how == "stream" or reading.skip_broken):
        flag = option("skip_broken", True) if reading.skip_broken else option("read", "stream")
        raise UsageError(f"{flag} is of a folder of image files, and {name} is read whole. Leave it out.")


def _folder_name(data_dir: Path | None) -> str:
    assert data_dir is not None  # it was read
    return data_dir.resolve().name


def _take(split: Split, rows: np.ndarray) -> Split:
    if len(rows) == len(split.label):  # rows ascend, so these are all: no copy
        return split
    return Split(split.images[rows], split.label[rows], split.index[rows])


def _published(name: str, data_dir: Path | None, download: bool) -> tuple[Split, Split, tuple[str, ...]]:
    """Return train split, test split and class names, checked against each other."""
    if name == "digits":
        return _digits()
    published = read_torchvision(name, data_dir, download=download)
    train, test = (_whole(name, part, published.classes) for part in (published.train, published.test))
    return train, test, published.classes


def _whole(name: str, part: tuple[np.ndarray, np.ndarray], classes: tuple[str, ...]) -> Split:
    images, label = part[0], part[1].astype(np.int64)
    if len(images) != len(label) or len(label) == 0:
        raise UserError(
            f"{name} is damaged: a split has {len(images)} images and {len(label)} labels. Fetch its files again."
        )
    if not 0 <= label.min() <= label.max() < len(classes):
        raise UserError(
            f"{name} is damaged: its labels reach from {label.min()} to {label.max()}, but it has {len(classes)} "
            "classes, numbered from 0. Fetch its files again."
        )
    return Split(np.ascontiguousarray(images, dtype=np.uint8), label, np.arange(len(label)))


def _digits() -> tuple[Split, Split, tuple[str, ...]]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # 17 grey levels 0..16, spread over the whole range of uint8; one to one.
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    classes = tuple(str(c) for c in range(10))
    everything = _whole("digits", (images, bunch.target), classes)
    train, test = stratified_test(everything.label)
    return _take(everything, train), _take(everything, test), classes
