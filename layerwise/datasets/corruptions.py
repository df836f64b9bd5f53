"""Corruptions of images in five severities: a stated recipe for a shifted test set.

The ten corruptions here and their constants are those of CIFAR-10-C (Hendrycks and Dietterich 2019), which are meant
for 32 x 32 pixels and are used as they stand for any size. The noise is drawn anew, from a seed, so that the images are
of that recipe and not those published; a JPEG is what the decoder at hand makes of it.

Not made, since they need other libraries or pictures: NOT_MADE.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from layerwise.errors import unknown

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

NOT_MADE = (
    "glass_blur", "motion_blur", "zoom_blur", "snow", "frost", "fog", "spatter", "saturate", "elastic_transform",
)  # fmt: skip
SEVERITIES = (1, 2, 3, 4, 5)
# The constant of each severity.
_GAUSSIAN, _SHOT = (0.04, 0.06, 0.08, 0.09, 0.10), (500, 250, 100, 75, 50)
_IMPULSE, _SPECKLE = (0.01, 0.02, 0.03, 0.05, 0.07), (0.06, 0.1, 0.12, 0.16, 0.2)
_BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)
_DISK = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))  # radius, and the blur of its edge
_BRIGHTER, _CONTRAST = (0.05, 0.1, 0.15, 0.2, 0.3), (0.75, 0.5, 0.4, 0.3, 0.15)
_QUALITY, _PIXELS = (80, 65, 58, 50, 40), (0.95, 0.9, 0.85, 0.75, 0.65)

Image = NDArray[np.float64]  # [H, W, C] in [0, 1]


def corrupted(images: np.ndarray, corruption: str, severity: int, rng: Generator) -> np.ndarray:
    """Return images uint8 [n, C, H, W], each corrupted; fractions of a grey level are cut, as the published code does.

    Raises UsageError for a corruption or a severity that there is not.
    """
    if corruption not in CORRUPTIONS:
        raise unknown("corruption", corruption, CORRUPTIONS)
    if severity not in SEVERITIES:
        raise unknown("severity", severity, SEVERITIES)
    make = CORRUPTIONS[corruption]
    found = np.empty_like(images)
    for i, image in enumerate(images):
        x = make(image.transpose(1, 2, 0) / 255.0, severity - 1, rng)
        found[i] = (np.clip(x, 0, 1) * 255).astype(np.uint8).transpose(2, 0, 1)
    return found


def _gaussian_noise(x: Image, s: int, rng: Generator) -> Image:
    return x + rng.normal(scale=_GAUSSIAN[s], size=x.shape)


def _shot_noise(x: Image, s: int, rng: Generator) -> Image:
    return rng.poisson(x * _SHOT[s]) / _SHOT[s]


def _impulse_noise(x: Image, s: int, rng: Generator) -> Image:
    """Set a share of all values to 0 or 1, either as often."""
    is_hit, is_salt = rng.random(x.shape) < _IMPULSE[s], rng.random(x.shape) < 0.5
    return np.where(is_hit, is_salt, x)


def _speckle_noise(x: Image, s: int, rng: Generator) -> Image:
    return x + x * rng.normal(scale=_SPECKLE[s], size=x.shape)


def _gaussian_blur(x: Image, s: int, rng: Generator) -> Image:
    from scipy.ndimage import gaussian_filter

    found: Image = gaussian_filter(x, (_BLUR[s], _BLUR[s], 0), mode="nearest", truncate=4)
    return found


def _defocus_blur(x: Image, s: int, rng: Generator) -> Image:
    from scipy.ndimage import correlate

    found: Image = correlate(x, disk(*_DISK[s])[..., None], mode="mirror")
    return found


@functools.cache
def disk(radius: float, blur: float) -> NDArray[np.float64]:
    """Return the kernel [m, m] of a lens out of focus, of sum 1: a disk whose edge is blurred over three pixels."""
    from scipy.ndimage import correlate1d

    axis = np.arange(-8, 9)
    inside = (axis[:, None] ** 2 + axis**2 <= radius**2).astype(np.float64)
    edge = np.exp(-np.array([1.0, 0.0, 1.0]) / (2 * blur**2))
    for direction in (0, 1):
        inside = correlate1d(inside, edge / edge.sum(), axis=direction, mode="mirror")
    reach = int(radius) + 1  # farther out all is 0
    kept: NDArray[np.float64] = inside[8 - reach : 9 + reach, 8 - reach : 9 + reach]
    return kept / kept.sum()


def _brightness(x: Image, s: int, rng: Generator) -> Image:
    """Raise the value of hue, saturation and value: all channels of a pixel grow by one factor, black becomes grey."""
    value = x.max(2, keepdims=True)
    raised = np.minimum(value + _BRIGHTER[s], 1)
    return np.where(value > 0, x * raised / np.where(value > 0, value, 1), raised)


def _contrast(x: Image, s: int, rng: Generator) -> Image:
    mean = x.mean((0, 1), keepdims=True)
    return (x - mean) * _CONTRAST[s] + mean


def _jpeg_compression(x: Image, s: int, rng: Generator) -> Image:
    import PIL.Image

    file = io.BytesIO()
    _picture(x).save(file, "JPEG", quality=_QUALITY[s])
    with PIL.Image.open(file) as image:
        return _of_picture(image, x)


def _pixelate(x: Image, s: int, rng: Generator) -> Image:
    import PIL.Image

    height, width = x.shape[:2]
    small = max(1, int(width * _PIXELS[s])), max(1, int(height * _PIXELS[s]))
    box = PIL.Image.Resampling.BOX
    return _of_picture(_picture(x).resize(small, box).resize((width, height), box), x)


def _picture(x: Image) -> Picture:
    import PIL.Image

    pixels = np.round(x * 255).astype(np.uint8)
    return PIL.Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _of_picture(image: Picture, like: Image) -> Image:
    # Half a grey level more, which is cut again: these pixels are whole already.
    found: Image = (np.asarray(image, np.float64).reshape(like.shape) + 0.5) / 255.0
    return found


CORRUPTIONS: dict[str, Callable[[Image, int, Generator], Image]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "speckle_noise": _speckle_noise,
    "defocus_blur": _defocus_blur,
    "gaussian_blur": _gaussian_blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "jpeg_compression": _jpeg_compression,
    "pixelate": _pixelate,
}
