"""Owns how a uint8 image becomes what a network built elsewhere takes: channels, size, normalisation.

The steps, and on equal settings every value, are those of torchvision's own presets: the shorter side is resized
(antialiased, still in 8 bits), the middle square cropped, then scaled to [0, 1] and standardised a channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from layerwise.datasets import Dataset
from layerwise.errors import UsageError
from layerwise.model.network import Normalisation


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From images uint8 [n, C, H, W] to x_0, float32.

    channels: channels of x_0; grey images are repeated. resize: pixels to which the shorter side is brought, 0 leaves
    it. crop: pixels of a side of the middle square that is kept, 0 keeps all. mean, std: a channel, of images scaled
    to [0, 1].
    """

    channels: int
    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Return x_0 [n, channels, H, W] of images uint8 [n, C, H, W], on their device."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.functional import center_crop, resize

        if images.shape[1] < self.channels:
            images = images.expand(-1, self.channels, -1, -1)
        if self.resize and min(images.shape[2:]) != self.resize:
            images = resize(images, [self.resize], InterpolationMode(self.interpolation), antialias=True)
        if self.crop:
            images = center_crop(images, [self.crop, self.crop])
        x: Tensor = Normalisation(self.mean, self.std).to(images.device)(images)
        return x

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Preprocessing:
        """Return the preprocessing that `facts` describes, as it stands in a run file."""
        return cls(**{**facts, "mean": tuple(facts["mean"]), "std": tuple(facts["std"])})

    def facts(self) -> dict[str, Any]:
        """Return the settings as they stand in a run file."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The preprocessing that a published network asks for; fields as in `Preprocessing`."""

    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a user asks of the preprocessing; None leaves it to the network, or else to the data.

    image_size: pixels of a side. mean, std: values a channel (one value serves all), or "data" for those of the train
    fold.
    """

    image_size: int | None = None
    mean: tuple[float, ...] | str | None = None
    std: tuple[float, ...] | str | None = None


def preprocessing_for(model: nn.Module, preset: Preset | None, dataset: Dataset, wishes: Wishes) -> Preprocessing:
    """Return the preprocessing of a data set for a network: the wishes, else the network's own, else the data as is.

    Raises UsageError for wishes that cannot be, or images whose channels the network cannot take.
    """
    channels = _channels(model, dataset)
    size, resize, crop, interpolation = wishes.image_size, 0, 0, "bilinear"
    if size is not None and size < 1:
        raise UsageError(f"--image-size is {size}, but must be a number of pixels of at least 1.")
    if preset is not None:
        resize, crop, interpolation = preset.resize, preset.crop, preset.interpolation
    if size is not None:
        resize = crop = size
    own = {"mean": preset.mean, "std": preset.std} if preset else {"mean": None, "std": None}
    data = {"mean": dataset.mean, "std": dataset.std}
    constants = {}
    for name in ("mean", "std"):
        wish = getattr(wishes, name)
        chosen = own[name] if wish is None else wish
        if wish is None and chosen is not None and len(chosen) not in (1, channels):
            raise UsageError(
                f"the network's own preprocessing has a {name} for each of {len(chosen)} channels, but it takes "
                f"{channels} here. Give others: --mean data --std data are those of the train fold."
            )
        constants[name] = _a_channel(name, data[name] if chosen in (None, "data") else chosen, channels)
    if min(constants["std"]) <= 0:
        raise UsageError(f"--std has {min(constants['std']):g}, but each value must be above 0.")
    return Preprocessing(channels=channels, resize=resize, crop=crop, interpolation=interpolation, **constants)


def _channels(model: nn.Module, dataset: Dataset) -> int:
    """Return the channels of the first convolution, or of the images where a network has none."""
    found = dataset.image_shape[0]
    wanted = next((part.in_channels for part in model.modules() if isinstance(part, nn.Conv2d)), found)
    if found not in (1, wanted):
        raise UsageError(
            f"{dataset.name} has images of {found} channels, but the network's first convolution takes {wanted}. "
            "Only grey images can be repeated to more channels."
        )
    return wanted


def _a_channel(name: str, values: object, channels: int) -> tuple[float, ...]:
    assert isinstance(values, tuple)
    if len(values) not in (1, channels):
        raise UsageError(f"--{name} has {len(values)} values, but takes one, or one for each of {channels} channels.")
    return tuple(float(v) for v in values) * (channels if len(values) == 1 else 1)
