"""What a network is shown: torchvision's own preset value for value, grey repeated, wishes before presets."""

from __future__ import annotations

import pytest
import torch
from foreign_networks import made_dataset
from torch import Tensor, nn
from torchvision.models import get_model_weights

from layerwise.errors import UsageError
from layerwise.extraction.preprocessing import Preprocessing, Preset, Wishes, preprocessing_for

PRESET = Preset(resize=10, crop=9, interpolation="bicubic", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
COLOUR = nn.Sequential(nn.Conv2d(3, 2, 1))
GREY = nn.Sequential(nn.Conv2d(1, 2, 1))


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_it_is_torchvisions_own_preset_value_for_value(name: str) -> None:
    own = get_model_weights(name).DEFAULT.transforms()
    images = torch.randint(0, 256, (2, 3, 32, 40), dtype=torch.uint8)
    made = Preprocessing(
        channels=3, resize=own.resize_size[0], crop=own.crop_size[0], interpolation=own.interpolation.value,
        mean=tuple(own.mean), std=tuple(own.std),
    )  # fmt: skip
    torch.testing.assert_close(made(images), own(images), rtol=0, atol=1e-6)


def test_without_a_preset_images_stay_as_they_are_and_the_train_fold_gives_the_constants() -> None:
    data = made_dataset()
    made = preprocessing_for(GREY, None, data, Wishes())
    assert (made.channels, made.resize, made.crop) == (1, 0, 0)
    images = torch.from_numpy(data.splits["train"].images)
    x = made(images)
    assert x.shape == images.shape and x.dtype == torch.float32
    assert (float(x.mean()), float(x.std())) == pytest.approx((0, 1), abs=1e-3)


def test_grey_images_are_repeated_for_a_network_of_colour() -> None:
    data = made_dataset()
    x = preprocessing_for(COLOUR, PRESET, data, Wishes(mean=(0.0,), std=(1.0,)))(
        torch.from_numpy(data.splits["test"].images)
    )
    assert x.shape == (30, 3, 9, 9)
    assert torch.equal(x[:, 0], x[:, 1]) and torch.equal(x[:, 0], x[:, 2])


def test_wishes_come_before_the_preset() -> None:
    data = made_dataset(channels=3)
    made = preprocessing_for(COLOUR, PRESET, data, Wishes(image_size=6, mean="data", std=(2.0,)))
    assert (made.resize, made.crop, made.interpolation) == (6, 6, "bicubic")
    assert (made.mean, made.std) == (data.mean, (2.0, 2.0, 2.0))
    made = preprocessing_for(COLOUR, PRESET, data, Wishes())
    assert (made.resize, made.crop, made.mean, made.std) == (10, 9, PRESET.mean, PRESET.std)


def test_a_preset_for_other_channels_is_called_the_networks_own() -> None:
    data = made_dataset()
    message = "the network's own preprocessing has a mean for each of 3 channels, but it takes 1 here.*--mean data"
    with pytest.raises(UsageError, match=message):
        preprocessing_for(GREY, PRESET, data, Wishes())
    with pytest.raises(UsageError, match="the network's own preprocessing has a std for each of 3 channels"):
        preprocessing_for(GREY, PRESET, data, Wishes(mean="data"))
    made = preprocessing_for(GREY, PRESET, data, Wishes(mean="data", std="data"))
    assert (made.mean, made.std, made.crop) == (data.mean, data.std, 9)


def test_a_network_without_convolutions_takes_the_images_channels() -> None:
    assert preprocessing_for(nn.Linear(3, 2), None, made_dataset(channels=3), Wishes()).channels == 3


class HeadFirst(nn.Module):
    """Its last layer is written down first."""

    def __init__(self, channels: int):
        super().__init__()
        self.head, self.stem = nn.Conv2d(16, 10, 1), nn.Conv2d(channels, 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x))


class Coordinates(nn.Module):
    """Calls a layer that reads no image before the one that does."""

    def __init__(self) -> None:
        super().__init__()
        self.positions, self.stem = nn.Linear(2, 8), nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.stem(x) + self.positions(torch.zeros(1, 2))[..., None, None]


class Functional(nn.Module):
    """Fails before any of its layers is called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.conv.weight)


def shuffled(channels: int) -> nn.Module:
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, 8, 1))


@pytest.mark.parametrize(
    ("model", "grey", "colour"),
    [
        (HeadFirst(1), 1, None), (HeadFirst(3), 3, 3), (shuffled(1), 1, None), (shuffled(3), 3, 3),
        (Coordinates(), 3, 3), (Functional(), 3, 3), (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)), 3, 3),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), 3, 3), (nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), 1, 3),
        (nn.Sequential(nn.Flatten(), nn.Linear(1024, 5)), 1, 3), (nn.ReLU(), 1, 3),
    ],
)  # fmt: skip
def test_the_layer_that_reads_the_image_says_how_many_channels(model: nn.Module, grey: int, colour: int | None) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert preprocessing_for(model, None, made_dataset(), Wishes()).channels == grey
    if colour is None:
        with pytest.raises(UsageError, match=f"images of 3 channels, but the network's first convolution takes {grey}"):
            preprocessing_for(model, None, made_dataset(channels=3), Wishes())
    else:
        assert preprocessing_for(model, None, made_dataset(channels=3), Wishes()).channels == colour
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert not any(part._forward_pre_hooks for part in model.modules())


@pytest.mark.parametrize(
    ("channels", "wishes", "message"),
    [
        (3, Wishes(image_size=0), "--image-size is 0, but must be a number of pixels of at least 1"),
        (3, Wishes(mean=(0.1, 0.2)), "--mean has 2 values, but takes one, or one for each of 3 channels"),
        (3, Wishes(mean=(125.0, 123.0, 114.0)), r"--mean has 125, but speaks of images scaled to \[0, 1\]. Divide"),
        (3, Wishes(mean=(-0.5,)), "--mean has -0.5, but speaks of images"),
        (3, Wishes(std=(0.1, 0.0, 1.0)), "--std has 0, but each value must be above 0"),
        (2, Wishes(), "made has images of 2 channels, but the network's first convolution takes 3"),
    ],
)
def test_wishes_that_cannot_be_are_refused(channels: int, wishes: Wishes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        preprocessing_for(COLOUR, None, made_dataset(channels=channels), wishes)
