"""Data sets: the validation fold, normalisation constants, fingerprints, and data that are not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from layerwise.config import DataConfig
from layerwise.datasets import DATASETS, Split, load_configured, load_dataset
from layerwise.datasets.folds import stratified_split, stratified_subset
from layerwise.datasets.published import TORCHVISION_SETS
from layerwise.datasets.split import channel_statistics
from layerwise.errors import UsageError, UserError


def test_digits_are_the_bundled_images_split_by_class() -> None:
    data = load_dataset("digits", holdout=0.1)
    original = load_digits()
    sizes = data.counts
    assert sum(sizes.values()) == 1797
    assert abs(sizes["test"] / 1797 - 0.2) < 0.005
    assert abs(sizes["validation"] / (1797 - sizes["test"]) - 0.1) < 0.005
    test = data.splits["test"]
    assert np.array_equal(test.images[:, 0], np.round(original.images[test.index] * 255 / 16))
    assert np.array_equal(test.label, original.target[test.index])
    assert data.image_shape == (1, 8, 8)
    assert data.classes == tuple("0123456789")


def test_no_image_stands_in_two_splits() -> None:
    data = load_dataset("digits", holdout=0.1)
    indices = np.concatenate([data.splits[name].index for name in ("train", "validation", "test")])
    # Digits have one published split, so train, validation and test all count positions in it.
    assert len(np.unique(indices)) == len(indices) == 1797


def test_the_fold_takes_its_share_of_each_class_and_never_changes() -> None:
    label = np.repeat(np.arange(4), [50, 30, 20, 100])
    kept, held = stratified_split(label, 0.1)
    assert np.bincount(label[held]).tolist() == [5, 3, 2, 10]
    assert sorted([*kept, *held]) == list(range(200))
    assert np.array_equal(stratified_split(label, 0.1)[1], held)
    other = stratified_split(label, 0.1, seed=1)[1]
    assert np.bincount(label[other]).tolist() == [5, 3, 2, 10] and not np.array_equal(other, held)


def test_a_class_too_small_for_the_fold_is_an_error() -> None:
    with pytest.raises(UserError, match=r"class 1 has 3 training images, of which a holdout of 0.1 sets 0 apart"):
        stratified_split(np.array([0] * 20 + [1] * 3), 0.1)


def test_holdout_0_trains_on_everything() -> None:
    data = load_dataset("digits", holdout=0)
    assert set(data.splits) == {"train", "test"}
    assert len(data.splits["train"].label) + len(data.splits["test"].label) == 1797


def test_normalisation_sees_the_train_fold_alone() -> None:
    data = load_dataset("digits", holdout=0.1)
    scaled = data.splits["train"].images / 255
    assert data.mean == pytest.approx([scaled.mean()], rel=1e-12)
    assert data.std == pytest.approx([scaled.std()], rel=1e-12)


@pytest.mark.parametrize("n", [7, 1000, 2003])
def test_channel_statistics_of_each_channel(n: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (n, 3, 5, 5)).astype(np.uint8)
    images[:, 2] = 9
    mean, std = channel_statistics(images)
    assert mean == pytest.approx((images / 255).mean((0, 2, 3)), rel=1e-12)
    assert std[:2] == pytest.approx((images / 255).std((0, 2, 3))[:2], rel=1e-12)
    assert std[2] == 1.0


@pytest.mark.parametrize("field", ["images", "label", "index"])
def test_the_fingerprint_changes_with_every_part(field: str) -> None:
    split = Split(np.zeros((2, 1, 2, 2), np.uint8), np.array([0, 1]), np.array([3, 4]))
    changed = {name: getattr(split, name).copy() for name in ("images", "label", "index")}
    changed[field].flat[0] += 1
    assert Split(**changed).fingerprint() != split.fingerprint()


def test_fashion_mnist_is_read_whole(data_dir: Path) -> None:
    data = load_dataset("fashion-mnist", holdout=0.1, data_dir=data_dir)
    assert data.counts == {
        "train": 54_000,
        "validation": 6_000,
        "test": 10_000,
    }
    assert data.image_shape == (1, 28, 28)
    assert data.classes[9] == "Ankle boot"
    assert np.bincount(data.splits["validation"].label).tolist() == [600] * 10
    assert data.mean[0] == pytest.approx(0.286, abs=0.001)  # the published 0.2860 of all 60,000 images


def test_an_unknown_data_set_is_answered_with_the_choices() -> None:
    with pytest.raises(
        UsageError, match=r"unknown data set 'fashion'. Did you mean 'fashion-mnist'\? Choices: digits, f"
    ):
        load_dataset("fashion", holdout=0.1)


def test_all_data_sets_go_by_name() -> None:
    assert DATASETS == ("digits", "fashion-mnist", "mnist", "cifar10", "cifar100", "svhn", "stl10", "imagefolder")
    assert ("digits", *TORCHVISION_SETS, "imagefolder") == DATASETS


# The fold, the order of images and the pixels of digits are part of every published number.
def test_the_digits_have_the_fingerprints_they_always_had() -> None:
    data = load_dataset("digits", holdout=0.1)
    assert {name: split.fingerprint()[:16] for name, split in data.splits.items()} == {
        "train": "4ed4db4f11f14a83",
        "validation": "9e3c6dd523abbdda",
        "test": "f91e9db77cee4269",
    }


UNEQUAL = np.random.default_rng(5).permutation(np.repeat(np.arange(4), [500, 300, 190, 10]))


@pytest.mark.parametrize("n", [8, 9, 100, 617, 1000])
def test_a_subset_takes_each_class_in_its_share(n: int) -> None:
    rows = stratified_subset(UNEQUAL, n)
    assert len(np.unique(rows)) == n
    assert np.array_equal(rows, np.sort(rows))
    counts = np.bincount(UNEQUAL[rows], minlength=4)
    assert counts.min() >= 2
    # The smallest class may have up to two above its share, which the others then lack.
    assert np.abs(counts - n * np.array([0.5, 0.3, 0.19, 0.01])).max() <= 2


def test_a_subset_of_equal_classes_is_equal() -> None:
    label = np.tile(np.arange(10), 600)
    assert np.bincount(label[stratified_subset(label, 1000)]).tolist() == [100] * 10
    assert sorted(set(np.bincount(label[stratified_subset(label, 1004)]))) == [100, 101]


def test_a_subset_lies_inside_every_larger_one() -> None:
    inside: set[int] = set()
    for n in range(8, 1001, 16):
        rows = set(stratified_subset(UNEQUAL, n).tolist())
        assert inside < rows
        inside = rows
    assert np.array_equal(stratified_subset(UNEQUAL, 1000), np.arange(1000))


def test_a_subset_never_changes_and_is_not_the_fold() -> None:
    label = np.tile(np.arange(10), 100)
    rows = stratified_subset(label, 100)
    assert np.array_equal(stratified_subset(label, 100), rows)
    fold = stratified_split(label, 0.1)[1]
    assert 0 < len(np.intersect1d(rows, fold)) < 30  # 10 by chance, 100 if both drew alike


@pytest.mark.parametrize("n", [19, 1439, 10_000])
def test_a_subset_that_cannot_be_taken_says_what_can(n: int) -> None:
    expected = f"subset={n} cannot be taken: the train split has 1438 images of 10 classes, so give a number from 20"
    with pytest.raises(UsageError, match=expected):
        load_dataset("digits", holdout=0.1, subset=n)


def test_the_fold_of_a_subset_is_its_share_and_the_test_split_stays_whole() -> None:
    whole = load_dataset("digits", holdout=0.1)
    data = load_dataset("digits", holdout=0.1, subset=400)
    sizes = data.counts
    assert sizes == {"train": 360, "validation": 40, "test": len(whole.splits["test"].label)}
    assert data.splits["test"].fingerprint() == whole.splits["test"].fingerprint()
    original = load_digits()
    for split in data.splits.values():
        assert np.array_equal(split.label, original.target[split.index])
    taken = np.concatenate([data.splits[name].index for name in ("train", "validation")])
    assert len(np.unique(taken)) == 400


def test_a_subset_of_everything_is_everything() -> None:
    whole, subset = (load_dataset("digits", holdout=0.1, subset=n) for n in (0, 1438))
    for name, split in whole.splits.items():
        assert subset.splits[name].fingerprint() == split.fingerprint()


def test_images_of_one_channel_lie_in_memory_alike_wherever_they_come_from() -> None:
    odd = np.zeros((8, 5, 8), dtype=np.uint8).transpose(1, 0, 2).copy()[:, None]
    odd = np.lib.stride_tricks.as_strided(odd, strides=(64, 1, 8, 1))  # as numpy may leave them
    label = np.arange(5)
    for images in (odd, np.zeros((5, 1, 8, 8), dtype=np.uint8)):
        assert Split(images, label, label).images.strides == (64, 64, 8, 1)


def test_a_configuration_names_its_data() -> None:
    data = load_configured(DataConfig(dataset="digits", holdout=0.2, subset=100, label="few digits"), None)
    assert data.name == "few digits"
    assert {name: len(split.label) for name, split in data.splits.items() if name != "test"} == {
        "train": 80,
        "validation": 20,
    }
