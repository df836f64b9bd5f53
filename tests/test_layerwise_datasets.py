"""Data sets: the validation fold, normalisation constants, fingerprints, and data that are not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from layerwise.datasets import Split, channel_statistics, load_dataset, stratified_split
from layerwise.errors import UsageError, UserError


def test_digits_are_the_bundled_images_split_by_class() -> None:
    data = load_dataset("digits", holdout=0.1)
    original = load_digits()
    sizes = {name: len(split.label) for name, split in data.splits.items()}
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


def test_channel_statistics_of_each_channel() -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 5, 5)).astype(np.uint8)
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
    assert {name: len(split.label) for name, split in data.splits.items()} == {
        "train": 54_000,
        "validation": 6_000,
        "test": 10_000,
    }
    assert data.image_shape == (1, 28, 28)
    assert data.classes[9] == "Ankle boot"
    assert np.bincount(data.splits["validation"].label).tolist() == [600] * 10
    assert data.mean[0] == pytest.approx(0.286, abs=0.001)  # the published 0.2860 of all 60,000 images


def test_an_unknown_data_set_is_answered_with_the_choices() -> None:
    with pytest.raises(UsageError, match=r"unknown data set 'fashion'. Did you mean 'fashion-mnist'\? Choices: digits"):
        load_dataset("fashion", holdout=0.1)


def test_data_that_are_not_bundled_need_a_folder() -> None:
    with pytest.raises(UsageError, match="fashion-mnist is not bundled: give the folder .* by --data-dir"):
        load_dataset("fashion-mnist", holdout=0.1)


def test_a_folder_without_the_data_says_what_was_looked_for_and_where(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"looked for train-images-idx3-ubyte .* in {tmp_path}/FashionMNIST/raw"):
        load_dataset("fashion-mnist", holdout=0.1, data_dir=tmp_path)
