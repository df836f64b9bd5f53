"""Batches: every image once an epoch, by choices that any device sees alike, also of images that stay in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import small_config
from reference import slow_crop_and_flip

from layerwise.config import TrainingConfig
from layerwise.datasets import Split
from layerwise.model.network import LayerwiseNetwork
from layerwise.training import batches
from layerwise.training.batches import DeviceSplit, cut_out, draw, fits_device, fixed_view
from layerwise.training.prefix import FrozenPrefix
from layerwise.training.stage_batches import Recomputed

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
SPLIT = Split(RNG.integers(0, 256, (50, 1, 8, 8), dtype=np.uint8), np.arange(50) % 10, np.arange(50))
AUGMENTED = TrainingConfig(epochs=1, batch_size=16, crop_padding=2, flip=True)
STILL = TrainingConfig(epochs=1, batch_size=16)


@pytest.mark.parametrize(("config", "rows"), [(AUGMENTED, 4), (STILL, 1)])
def test_an_epoch_names_every_image_once(config: TrainingConfig, rows: int) -> None:
    found = list(DeviceSplit(SPLIT, CPU).choices(config, 3))
    assert [tuple(choice.shape) for choice in found] == [(rows, 16)] * 3 + [(rows, 2)]
    assert torch.cat(found, 1)[0].sort().values.tolist() == list(range(50))
    again = list(DeviceSplit(SPLIT, CPU).choices(config, 3))
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    more = list(DeviceSplit(SPLIT, CPU).choices(config, 3, at_once=3))
    assert [choice.shape[1] for choice in more] == [48, 2]
    assert torch.equal(torch.cat(found, 1), torch.cat(more, 1))


@pytest.mark.parametrize("is_fixed", [False, True])
def test_what_is_taken_is_what_was_chosen(is_fixed: bool) -> None:
    data = DeviceSplit(SPLIT, CPU)
    view = fixed_view(50, AUGMENTED, (8, 8), 7) if is_fixed else None
    for choice in data.choices(AUGMENTED, 3, view):
        images, y = data.take(choice, AUGMENTED)
        for image, label, (row, top, left, flip) in zip(images.numpy(), y.tolist(), choice.T.tolist(), strict=True):
            assert label == SPLIT.label[row]
            assert np.array_equal(image, slow_crop_and_flip(SPLIT.images[row], top, left, bool(flip), 2))
            if view is not None:
                assert view[:, row].tolist() == [top, left, flip]


@pytest.mark.parametrize("fields", [{"training.crop_padding": 0}, {"training.crop_padding": 2, "training.flip": True}])
def test_images_that_stay_in_memory_make_the_same_batches(fields: dict[str, object]) -> None:
    config = small_config(**fields)
    net = LayerwiseNetwork(config.network, (1, 8, 8), 10, (0.5,), (0.2,), 0)
    sources = [
        Recomputed({name: DeviceSplit(SPLIT, CPU, there) for name in ("train", "validation")},
                   FrozenPrefix(net, 0, "fp32"), config, 1) for there in (True, False)
    ]  # fmt: skip
    for one, other in zip(*(source.batches(2) for source in sources), strict=True):
        for a, b in zip(sources[0].fetch(*one), sources[1].fetch(*other), strict=True):
            assert torch.equal(a, b)
    for one, other in zip(*(source.validation() for source in sources), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_gpu_takes_images_up_to_half_of_what_it_has_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches.torch.cuda, "mem_get_info", lambda device: (1000, 4000))
    assert [fits_device(n, torch.device("cuda")) for n in (500, 501)] == [True, False]
    assert fits_device(10**15, CPU)


@pytest.mark.parametrize("views", [0, 2])
def test_alternating_flips_show_each_image_both_ways_in_two_epochs(views: int) -> None:
    config = small_config(
        **{"training.crop_padding": 0, "training.flip": True, "training.alternating_flip": True,
           "training.batch_size": 16, "training.views": views}
    )  # fmt: skip
    net = LayerwiseNetwork(config.network, (1, 8, 8), 10, (0.5,), (0.2,), 0)
    source = Recomputed({"train": DeviceSplit(SPLIT, CPU)}, FrozenPrefix(net, 0, "fp32"), config, 1)
    flips = []
    for epoch in range(4):
        of_image = torch.empty(50, dtype=torch.int64)
        view = source.view(epoch % source.views)
        for rows, _, _, flip in (
            choice for choice in source.data["train"].choices(config.training, epoch, view, source.flips(epoch))
        ):
            of_image[rows] = flip
        flips.append(of_image)
    assert torch.equal(flips[0] + flips[1], torch.ones(50, dtype=torch.int64))
    assert torch.equal(flips[0], flips[2]) and torch.equal(flips[1], flips[3])
    assert 10 < int(flips[0].sum()) < 40


def test_cutout_blackens_what_of_a_square_lies_inside() -> None:
    config = TrainingConfig(epochs=1, cutout=3)
    draws = draw(200, config, (8, 6), torch.Generator().manual_seed(0))
    assert draws.shape == (5, 200)
    assert [int(draws[row].max()) for row in (0, 1, 2, 3, 4)] == [0, 0, 0, 7, 5]
    images = torch.full((200, 2, 8, 6), 9, dtype=torch.uint8)
    for image, (row, column) in zip(cut_out(images, draws[3:], 3).numpy(), draws[3:].T.tolist(), strict=True):
        expected = np.full((2, 8, 6), 9)
        expected[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = 0
        assert np.array_equal(image, expected)
    assert int(images.min()) == 9
