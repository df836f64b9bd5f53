"""What is fed to a network: every image once, to its split, in an order that every pass repeats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from foreign_networks import made_dataset
from torch.utils.data import DataLoader, TensorDataset

from layerwise.errors import UserError
from layerwise.extraction.inputs import DatasetFeed, LoaderFeed
from layerwise.extraction.preprocessing import Preprocessing

CPU = torch.device("cpu")
PLAIN = Preprocessing(channels=1, resize=0, crop=0, interpolation="bilinear", mean=(0.0,), std=(1 / 255,))


def loader(n: int, size: int, start: int = 0, **words: Any) -> DataLoader[Any]:
    x = torch.arange(start, start + n).float()[:, None]
    return DataLoader(TensorDataset(x, torch.arange(n) % 3), batch_size=size, **words)


def gathered(feed: DatasetFeed | LoaderFeed, only: str | None = None) -> dict[str, np.ndarray]:
    found: dict[str, list[np.ndarray]] = {}
    for batch in feed.batches(only):
        for split, rows in batch.routes.items():
            found.setdefault(split, []).append(batch.x[rows].numpy())
    return {split: np.concatenate(parts) for split, parts in found.items()}


@pytest.mark.parametrize("size", [1, 7, 64])
def test_each_image_of_a_data_set_comes_once_in_nearly_equal_batches(size: int) -> None:
    data = made_dataset()
    feed = DatasetFeed(data, PLAIN, size, CPU)
    sizes = [len(batch.x) for batch in feed.batches("train")]
    assert max(sizes) - min(sizes) <= 1 and max(sizes) <= size
    found = gathered(feed)
    for name, split in data.splits.items():
        np.testing.assert_allclose(found[name], split.images, atol=1e-3)
        np.testing.assert_array_equal(feed.labels[name], split.label)
    assert set(gathered(feed, "train")) == {"train"}


def test_a_stratified_fold_is_set_apart_from_a_loader() -> None:
    feed = LoaderFeed({"test": loader(6, 4, 100), "train": loader(60, 7)}, 0.1, CPU)
    assert list(feed.labels) == ["train", "validation", "test"]
    assert [len(label) for label in feed.labels.values()] == [54, 6, 6]
    assert np.bincount(feed.labels["validation"]).tolist() == [2, 2, 2]
    for found in (gathered(feed), gathered(feed)):
        np.testing.assert_array_equal(found["train"][:, 0], feed.index["train"])
        np.testing.assert_array_equal(found["validation"][:, 0], feed.index["validation"])
        np.testing.assert_array_equal(found["test"][:, 0], 100 + np.arange(6))
    np.testing.assert_array_equal(feed.labels["train"], feed.index["train"] % 3)
    assert "test" not in gathered(feed, "validation")


def test_a_fold_that_is_given_is_kept_and_none_is_made_at_holdout_0() -> None:
    feed = LoaderFeed({"train": loader(9, 4), "validation": loader(5, 4), "test": loader(6, 4)}, 0.1, CPU)
    assert [len(label) for label in feed.labels.values()] == [9, 5, 6]
    assert list(LoaderFeed({"train": loader(9, 4), "test": loader(6, 4)}, 0.0, CPU).labels) == ["train", "test"]


@pytest.mark.parametrize(
    ("loaders", "message"),
    [
        ({"train": loader(9, 4)}, "the loaders are named 'train', but 'train' and 'test' are needed"),
        ({"train": loader(9, 4), "val": loader(9, 4), "test": loader(9, 4)}, "named 'train', 'val', 'test', but"),
        ({"train": [torch.zeros(2)], "test": loader(9, 4)}, r"a batch of the train loader is no pair \(x, label\)"),
        ({"train": [(torch.zeros(2, 1), torch.zeros(3))], "test": loader(9, 4)}, "has 2 inputs and 3 labels"),
        (
            {"train": [(torch.zeros(2, 1), torch.rand(2))], "test": loader(9, 4)},
            "labels of the train loader are not cl",
        ),
        (
            {"train": [], "test": loader(9, 4)},
            "labels of the train loader are not classes numbered from 0: there are none",
        ),
        (
            {"train": [(torch.zeros(3, 1), torch.tensor([-1, 0, -1]))], "test": loader(9, 4)},
            "are not classes numbered from 0: 2 are -1; leave out samples without a class",
        ),
        ({"train": [(torch.zeros(2, 1), torch.rand(2))], "test": loader(9, 4)}, "from 0, but of type float32"),
    ],
)
def test_loaders_that_cannot_be_used_are_named(loaders: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LoaderFeed(loaders, 0.1, CPU)


def test_a_loader_that_shuffles_is_found_out() -> None:
    torch.manual_seed(0)
    feed = LoaderFeed({"train": loader(60, 7, shuffle=True), "test": loader(9, 4)}, 0.1, CPU)
    with pytest.raises(UserError, match="the train loader gives its samples in another order at each pass"):
        gathered(feed)
