"""Images that a Python session has, arrays or map-style data sets of PyTorch, as a data set of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from layerwise.config import DataConfig
from layerwise.datasets.dataset import Dataset, with_constants, with_fold
from layerwise.datasets.split import Split, channel_statistics
from layerwise.errors import UsageError, UserError

_EXPECTED = "expected uint8 [n, C, H, W] (or [n, H, W], or [n, H, W, C]), or the same divided by 255"


def own_dataset(data: Dataset | Mapping[str, Any], config: DataConfig) -> Dataset:
    """Return a data set with its validation fold, of the splits that a user gives.

    Args:
        data: {"train": ..., "test": ...} and, where it is to be another than the configured fold, "validation"; each a
            pair (images, labels), or a data set of PyTorch with such items. Images are uint8 [n, C, H, W] or such
            divided by 255; labels are whole numbers or words. A `Dataset` is taken as it is.
        config: holdout, fold and subset; the name.

    Raises UsageError for other splits, UserError for images and labels that are none.
    """
    if isinstance(data, Dataset):
        return with_constants(data, config)
    names = set(data) if isinstance(data, Mapping) else set()
    if not {"train", "test"} <= names <= {"train", "validation", "test"}:
        has = f"has {', '.join(map(str, data))}" if isinstance(data, Mapping) and data else "is empty"
        found = has if isinstance(data, Mapping) else f"is a {type(data).__name__}"
        raise UsageError(
            f'data {found}; expected {{"train": ..., "test": ...}} and, where wanted, "validation", each a pair '
            "(images, labels) or a data set of PyTorch."
        )
    parts = {split: _arrays(split, data[split]) for split in ("train", "validation", "test") if split in names}
    shapes = {split: images.shape[1:] for split, (images, _) in parts.items()}
    if len(set(shapes.values())) > 1:
        raise UserError(f"images of the splits have different shapes: {shapes}. Bring them to one.")
    classes, coded = _coded({split: labels for split, (_, labels) in parts.items()}, data["train"])
    splits: dict[str, Split] = {}
    for split, (images, _) in parts.items():
        splits[split] = Split(images, coded[split], np.arange(len(images)))
    name = config.label or config.dataset
    if "validation" in splits:
        # The positions of both count in one train split, as those of a fold do.
        own = splits["validation"]
        splits["validation"] = Split(own.images, own.label, own.index + len(splits["train"].label))
        dataset = Dataset(name, classes, splits, *channel_statistics(splits["train"].images))
    else:
        dataset = with_fold(
            name, splits["train"], splits["test"], classes,
            holdout=config.holdout, fold_seed=config.fold_seed, subset=config.subset,
        )  # fmt: skip
    return with_constants(dataset, config)


def _arrays(split: str, part: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 [n, C, H, W] and labels [n] of a split."""
    if isinstance(part, tuple | list) and len(part) == 2:
        images, labels = (np.asarray(_on_cpu(array)) for array in part)
    elif hasattr(part, "__getitem__") and hasattr(part, "__len__"):
        items = [part[i] for i in range(len(part))]
        if not items or not all(isinstance(item, tuple | list) and len(item) == 2 for item in items):
            raise UserError(f"data['{split}'] has items that are no pairs of an image and a label.")
        try:
            images = np.stack([np.asarray(_on_cpu(image)) for image, _ in items])
        except ValueError:
            raise UserError(
                f"data['{split}'] has images of different shapes; bring them to one by a transform."
            ) from None
        labels = np.asarray([_on_cpu(label) for _, label in items])
    else:
        raise UserError(
            f"data['{split}'] is a {type(part).__name__}; expected (images, labels), or a data set of PyTorch."
        )
    if len(images) != len(labels) or labels.ndim != 1 or not len(labels):
        raise UserError(
            f"data['{split}'] has {len(images)} images and labels of shape {list(labels.shape)}; expected a label for "
            f"each image{', as labels.argmax(1) gives it' if labels.ndim == 2 and len(labels) == len(images) else ''}."
        )
    return _pixels(split, images), labels


def _on_cpu(array: Any) -> Any:
    return array.detach().cpu().numpy() if hasattr(array, "detach") else array


def _pixels(split: str, images: np.ndarray) -> np.ndarray:
    """Return images as uint8 [n, C, H, W]; raise UserError where they were none before."""
    shape, kind, given = list(images.shape), images.dtype, images
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] > 4 and images.shape[3] <= 4:
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4:
        raise UserError(f"data['{split}'] has images of shape {shape}; {_EXPECTED}.")
    if kind != np.uint8:
        scaled = images.astype(np.float64) * (255 if kind.kind == "f" else 1)
        images = np.round(scaled)
        if not np.isfinite(scaled).all() or images.min() < 0 or images.max() > 255 or abs(scaled - images).max() > 1e-3:
            raise UserError(
                f"data['{split}'] has images of type {kind} and values {given.min():.4g} to {given.max():.4g} that are "
                f"no pixels; {_EXPECTED}. Of values in [0, 1], (255 * images).round().astype('uint8') makes such."
            )
    # Writable, since torch warns of arrays that are not, as np.frombuffer makes them.
    return np.require(images, np.uint8, ["C", "W"])


def _coded(labels: Mapping[str, np.ndarray], train: Any) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Return the names of the classes, and the labels as their numbers; those of a PyTorch data set, if any."""
    every = np.concatenate(list(labels.values()))
    if every.dtype.kind not in "iuUSb":
        raise UserError(f"labels are of type {every.dtype}; expected whole numbers from 0 on, or words.")
    if every.dtype.kind == "i" and every.min() < 0:
        raise UserError(
            f"labels go down to {every.min()}; expected whole numbers from 0 on, or words. Leave out what has none."
        )
    found = np.unique(every)
    named = getattr(train, "classes", None)
    if every.dtype.kind in "iu" and named is not None and found.max() < len(named):
        return tuple(map(str, named)), {split: own.astype(np.int64) for split, own in labels.items()}
    return tuple(map(str, found)), {split: np.searchsorted(found, own) for split, own in labels.items()}
