"""How a uint8 image becomes what a network built elsewhere takes: channels, size, normalisation.

The steps, and on equal settings every value, are those of torchvision's own presets: the shorter side is resized
(antialiased, still in 8 bits), the middle square cropped, then scaled to [0, 1] and standardised a channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layerwise.datasets import Dataset
from layerwise.errors import UsageError
from layerwise.model.network import Normalisation

SHOWN = 3  # images that show what a network takes; a number that few axes have by chance
COLOURS = 3


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
    size, resize, crop, interpolation = wishes.image_size, 0, 0, "bilinear"
    if size is not None and size < 1:
        raise UsageError(f"--image-size is {size}, but must be a number of pixels of at least 1.")
    if preset is not None:
        resize, crop, interpolation = preset.resize, preset.crop, preset.interpolation
    if size is not None:
        resize = crop = size
    channels = _channels(model, dataset, resize, crop)
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
    if isinstance(wishes.mean, tuple) and (beyond := [value for value in wishes.mean if not 0 <= value <= 1]):
        raise UsageError(
            f"--mean has {beyond[0]:g}, but speaks of images scaled to [0, 1]. Divide a mean and a deviation of "
            "0 to 255 by 255."
        )
    if min(constants["std"]) <= 0:
        raise UsageError(f"--std has {min(constants['std']):g}, but each value must be above 0.")
    return Preprocessing(channels=channels, resize=resize, crop=crop, interpolation=interpolation, **constants)


def _channels(model: nn.Module, dataset: Dataset, resize: int, crop: int) -> int:
    """Return the channels that a network reads from images of a data set, as it does when it is run."""
    found = dataset.image_shape[0]
    plain = Preprocessing(
        channels=found, resize=resize, crop=crop, interpolation="bilinear", mean=(0.5,) * found, std=(0.5,) * found
    )
    wanted = channels_read(model, plain(torch.from_numpy(dataset.splits["train"].read(slice(0, SHOWN)))))
    if found not in (1, wanted):
        raise UsageError(
            f"{dataset.name} has images of {found} channels, but the network's first convolution takes {wanted}. "
            "Only grey images can be repeated to more channels."
        )
    return wanted


class _Found(Exception):
    """Ends a pass that has shown what it was to show."""


def channels_read(model: nn.Module, x: Tensor) -> int:
    """Return how many channels a network takes where x [n, C, H, W] is shown to it.

    The first layer that reads the images says it: of a convolution that takes four times the channels behind a
    space-to-depth of 2 x 2, x has the right number. The convolution that stands first in the code may be another. Where
    the network cannot be run so far, that one is believed.
    """
    asked: list[int] = []

    def listen(module: nn.Module, args: Any, kwargs: Any) -> None:
        read = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        if read is None or read.dim() < 2 or len(read) != len(x) or (taken := _taken(module)) is None:
            return
        wanted, axis = taken
        channels, rest = divmod(x.shape[1] * wanted, read.shape[axis])
        # Features of a linear layer are pixels too, and other ratios than that of grey to colour are another size.
        if not rest and (axis == 1 or channels in (x.shape[1], COLOURS * x.shape[1])):
            asked.append(channels)
        raise _Found

    parts = [part for part in model.modules() if not isinstance(part, torch.jit.ScriptModule)]  # which take no hooks
    handles = [part.register_forward_pre_hook(listen, with_kwargs=True) for part in parts]
    x = x.to(next((p.device for p in model.parameters()), x.device))
    try:
        with torch.no_grad():
            model(x)
        return x.shape[1]
    except _Found:
        return asked[0] if asked else x.shape[1]
    except Exception:  # of any kind: it is somebody else's code, and it is run again where its error is shown
        first = (part.in_channels for part in model.modules() if isinstance(part, nn.Conv2d))
        return next(first, x.shape[1])
    finally:
        for handle in handles:
            handle.remove()


def _taken(module: nn.Module) -> tuple[int, int] | None:
    """Return how many channels a layer takes, and on which axis; None for layers that take any number."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)):
        return module.in_channels, 1
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
        return module.num_features, 1
    if isinstance(module, nn.GroupNorm):
        return module.num_channels, 1
    return (module.in_features, -1) if isinstance(module, nn.Linear) else None


def _a_channel(name: str, values: object, channels: int) -> tuple[float, ...]:
    assert isinstance(values, tuple)
    if len(values) not in (1, channels):
        raise UsageError(f"--{name} has {len(values)} values, but takes one, or one for each of {channels} channels.")
    return tuple(float(v) for v in values) * (channels if len(values) == 1 else 1)
