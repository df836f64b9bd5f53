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
        (
            {"train": (np.zeros((3, 1, 4, 4)), np.zeros(3)), "test": loader(9, 4)},
            r"with a tensor x. Of arrays DataLoader\(TensorDataset\(x, labels\), 64\) makes such",
        ),
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


def typed(x: torch.Tensor, y: Any = None) -> dict[str, Any]:
    labels = torch.arange(len(x)) % 3 if y is None else y
    return {name: [(x, labels)] for name in ("train", "test")}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float32])
def test_real_numbers_of_any_precision_are_brought_to_float32(dtype: torch.dtype) -> None:
    x = torch.rand(6, 2)
    (batch, _) = LoaderFeed(typed(x.to(dtype)), 0.0, CPU).batches()
    assert batch.x.dtype == torch.float32
    torch.testing.assert_close(batch.x, x.to(dtype).float(), rtol=0, atol=0)


def test_integers_are_left_to_the_network() -> None:
    (batch, _) = LoaderFeed(typed(torch.zeros(6, 2, dtype=torch.uint8)), 0.0, CPU).batches()
    assert batch.x.dtype == torch.uint8


@pytest.mark.parametrize("x", [torch.zeros(6, 2, dtype=torch.complex64), torch.eye(6).to_sparse()])
def test_inputs_that_are_no_dense_real_numbers_are_refused(x: torch.Tensor) -> None:
    with pytest.raises(UserError, match="the train loader gives inputs of torch.* but dense real numbers are needed"):
        LoaderFeed(typed(x), 0.0, CPU)


def test_labels_come_in_any_container_of_integers() -> None:
    x = torch.rand(3, 2)
    for y in ([0, 1, 2], (0, 1, 2), np.arange(3), torch.arange(3, dtype=torch.uint8), torch.arange(3)[:, None]):
        assert LoaderFeed(typed(x, y), 0.0, CPU).labels["train"].tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="labels of the train loader are not classes numbered from 0"):
        LoaderFeed(typed(x, ["a", "b", "c"]), 0.0, CPU)
