"""Published data sets that torchvision reads: where their files lie, their axes, what is wrong with them.

Files are found, checked and parsed by torchvision's own classes, and fetched by them only where that is asked
for. Number of classes, channels and size come from what was read.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layerwise.errors import UsageError, UserError

Labelled = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Published:
    """A data set as its authors split it.

    train, test: uint8 images [n, C, H, W] and their labels [n]; classes: names in label order.
    """

    train: Labelled
    test: Labelled
    classes: tuple[str, ...]


@dataclass(frozen=True)
class _TorchvisionSet:
    """A class of torchvision.datasets: its name, where it looks and for what, the axes of its images.

    axes: "nhw", "nhwc" or "nchw". named_splits: the split is chosen by split="train", not train=True.
    """

    kind: str
    folder: str
    files: str
    axes: str
    named_splits: bool = False


_IDX = "train-images-idx3-ubyte and its three sisters"
TORCHVISION_SETS = {
    "fashion-mnist": _TorchvisionSet("FashionMNIST", "FashionMNIST/raw", _IDX, "nhw"),
    "mnist": _TorchvisionSet("MNIST", "MNIST/raw", _IDX, "nhw"),
    "cifar10": _TorchvisionSet("CIFAR10", "cifar-10-batches-py", "data_batch_1..5, test_batch, batches.meta", "nhwc"),
    "cifar100": _TorchvisionSet("CIFAR100", "cifar-100-python", "train, test, meta", "nhwc"),
    "svhn": _TorchvisionSet("SVHN", "", "train_32x32.mat, test_32x32.mat", "nchw", named_splits=True),
    "stl10": _TorchvisionSet("STL10", "stl10_binary", "train_X.bin, train_y.bin, test_X.bin, test_y.bin", "nchw", True),
}


def require_folder(name: str, holds: str, data_dir: Path | None) -> Path:
    """Return the folder of the data; raise UsageError, saying what it must hold, where none is given."""
    if data_dir is None:
        raise UsageError(
            f"{name} is not bundled: give the folder that holds {holds} by --data-dir, "
            "or by the environment variable LAYERWISE_DATA."
        )
    return data_dir


def read_torchvision(name: str, data_dir: Path | None, *, download: bool) -> Published:
    """Read one of `TORCHVISION_SETS` from below `data_dir`, where `download` fetches it if it is not there.

    SVHN's digit 0, labelled 10 in its files, is class 0. Of STL-10 the labelled images alone are read.

    Raises:
        UsageError: no folder given.
        UserError: files missing or damaged, or a download that failed.
    """
    source = TORCHVISION_SETS[name]
    root = require_folder(name, source.folder or source.files, data_dir)
    kind = _torchvision_class(source.kind)
    try:
        with warnings.catch_warnings():
            # CIFAR's pickles hold an integer for a boolean, which numpy 2.4.0 to 2.4.4 warns of at every file.
            warnings.filterwarnings(
                "ignore", message=r"dtype\(\): align", category=np.exceptions.VisibleDeprecationWarning
            )
            parts = [kind(root=str(root), download=download, **_chosen(source, split)) for split in ("train", "test")]
    except Exception as error:  # of many kinds: torchvision parses the files as they come
        raise UserError(_what_failed(name, source, root, download, error)) from error
    train, test = (_labelled(part, source) for part in parts)
    names = getattr(parts[0], "classes", None) or range(int(train[1].max()) + 1)
    return Published(train, test, tuple(str(c) for c in names))


def _torchvision_class(name: str) -> Any:
    import torchvision.datasets

    if name != "STL10":
        return getattr(torchvision.datasets, name)

    class LabelledSTL10(torchvision.datasets.STL10):
        """STL-10 without its 2.6 GB of unlabelled images, which then need not be there nor be checked."""

        train_list = torchvision.datasets.STL10.train_list[:2]

    return LabelledSTL10


def _chosen(source: _TorchvisionSet, split: str) -> dict[str, str | bool]:
    return {"split": split} if source.named_splits else {"train": split == "train"}


def _labelled(part: Any, source: _TorchvisionSet) -> Labelled:
    images = np.asarray(part.data)
    if source.axes == "nhw":
        images = images[:, None]
    elif source.axes == "nhwc":
        images = images.transpose(0, 3, 1, 2)
    return images, np.asarray(part.labels if source.named_splits else part.targets)


def _what_failed(name: str, source: _TorchvisionSet, root: Path, download: bool, error: Exception) -> str:
    where = root / source.folder
    reason = " ".join(str(error).split()).rstrip(".")
    if download:
        return (
            f"{name} could not be downloaded into {root}: {type(error).__name__}: {reason}. "
            f"Check the network, or put {source.files} into {where} yourself."
        )
    if "not found" in reason:
        return (
            f"{name} was not found whole: looked for {source.files} in {where}. "
            f"Give the folder {f'above {source.folder}' if source.folder else 'that holds them'} by --data-dir, "
            "or fetch the data by --download."
        )
    return (
        f"{name} cannot be read: a file of {where} is damaged ({type(error).__name__}: {reason}). "
        f"Expected {source.files} as published; remove them and fetch them again, by --download or by hand."
    )
