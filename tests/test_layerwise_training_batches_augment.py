"""Augmentation against one image at a time, and against torchvision's transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reference import slow_crop_and_flip
from torchvision.transforms import RandomCrop
from torchvision.transforms import functional as tv

from layerwise.config import TrainingConfig
from layerwise.training.batches import augment, draw


def moving(padding: int, flip: bool = True) -> TrainingConfig:
    return TrainingConfig(epochs=1, crop_padding=padding, flip=flip)


@pytest.mark.parametrize("fill", ["zeros", "reflect"])
def test_equal_draws_give_the_images_that_torchvision_gives(fill: str) -> None:
    images = torch.randint(0, 256, (20, 3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    draws = draw(20, moving(2), (9, 7), torch.Generator().manual_seed(2))
    result = augment(images, draws, 2, fill)
    assert set(draws[2].tolist()) == {0, 1}
    for i in range(20):
        top, left, flip = int(draws[0, i]), int(draws[1, i]), bool(draws[2, i])
        cropped = tv.crop(tv.pad(images[i], [2], padding_mode="constant" if fill == "zeros" else fill), top, left, 9, 7)
        assert torch.equal(result[i], tv.hflip(cropped) if flip else cropped)
        if fill == "zeros":
            assert np.array_equal(result[i].numpy(), slow_crop_and_flip(images[i].numpy(), top, left, flip, 2))


def test_offsets_and_flips_are_as_likely_as_torchvisions() -> None:
    n, padding = 20_000, 1
    draws = draw(n, moving(padding), (8, 8), torch.Generator().manual_seed(0))
    ours = np.bincount((3 * draws[0] + draws[1]).numpy(), minlength=9) / n
    torch.manual_seed(0)
    theirs = np.zeros(9)
    padded = torch.zeros(1, 10, 10)
    for _ in range(n):
        top, left, _, _ = RandomCrop.get_params(padded, (8, 8))
        theirs[3 * top + left] += 1 / n
    # Each of the 9 offsets has probability 1/9; 5 standard deviations of a share over n draws.
    margin = 5 * np.sqrt(1 / 9 * 8 / 9 / n)
    assert np.abs(ours - 1 / 9).max() < margin
    assert np.abs(theirs - 1 / 9).max() < margin
    assert abs(draws[2].float().mean() - 0.5) < 5 * 0.5 / np.sqrt(n)


def test_without_padding_and_flip_nothing_moves() -> None:
    images = torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8)
    assert torch.equal(augment(images, draw(5, moving(0, flip=False), (4, 4), torch.Generator()), 0), images)


def test_a_flip_mirrors_left_to_right() -> None:
    images = torch.arange(3, dtype=torch.uint8).view(1, 1, 1, 3)
    assert augment(images, torch.tensor([[0], [0], [1]]), 0).flatten().tolist() == [2, 1, 0]
