"""Pictures in files: each decoded to 8-bit pixels as a viewer shows it; what that changes is counted.

A viewer turns a picture as its EXIF orientation says and shows something behind transparent pixels. Colours that lie
under alpha 0 are whatever the drawing program left there, so white, the paper, is put in their place.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from layerwise.commandline import progress
from layerwise.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger("layerwise.imagefolder")

GREY_MODES = ("1", "L", "LA")
FILES_IN_TASK = 64
# torchvision's list, with the other endings of those formats, .gif and .avif. Pillow knows more, and some of them
# (.eps) it hands to other programs.
ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".tif",
    ".tiff", ".webp", ".avif",
)  # fmt: skip

TURNED = "turned upright, as their EXIF orientation says"
COMPOSED = "with transparent pixels, composed on white"
FIRST_FRAME = "of several frames, of which the first is read"
_EXIF_ORIENTATION = 0x0112
# Pillow's name of the operation that makes a picture of each EXIF orientation upright.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip


class _ColourFoundError(Exception):
    """An image in colour stands among those read as grey."""


@dataclass(frozen=True)
class _Form:
    """The form of every image: channels C, height H and width W in pixels; `first` is the file that set it.

    resized: images of any size are brought to H x W; else all have that size.
    """

    channels: int
    height: int
    width: int
    first: str
    resized: bool


def decode(paths: Sequence[Sequence[str]], image_size: int) -> list[np.ndarray]:
    """Decode lists of files to uint8 arrays [n, C, H, W] of one form, which the very first file sets.

    Raises UserError for a file that is no picture of 8 bits a channel, or of another size at image_size 0.
    """
    first = paths[0][0]
    with _opened(first) as image:
        channels = 1 if image.mode in GREY_MODES else 3
        upright, _ = _turned(image)
        size = (image_size, image_size) if image_size else (upright.height, upright.width)
    form = _Form(channels, *size, first, bool(image_size))
    try:
        return _decode_all(paths, form)
    except _ColourFoundError:
        return _decode_all(paths, replace(form, channels=3))


def _decode_all(paths: Sequence[Sequence[str]], form: _Form) -> list[np.ndarray]:
    """Decode all lists, and say in one line how many pictures are not read pixel for pixel as they are stored."""
    changed: dict[str, list[str]] = {}
    arrays = [_decode_list(some, form, changed) for some in paths]
    if changed:
        log.warning("images: %s", "; ".join(f"{len(of)} {how} ({_example(of)})" for how, of in changed.items()))
    return arrays


def _example(paths: Sequence[str]) -> str:
    return paths[0] if len(paths) == 1 else f"first {paths[0]}"


def _decode_list(paths: Sequence[str], form: _Form, changed: dict[str, list[str]]) -> np.ndarray:
    """Decode files into one array [n, C, H, W]; the error is that of the first bad file in order."""
    images = np.empty((len(paths), form.channels, form.height, form.width), dtype=np.uint8)
    task = partial(_decode_some, images, paths, form)
    with progress() as bar, ThreadPoolExecutor() as pool:
        reading = bar.add_task("reading images", total=len(paths))
        for done, found in pool.map(task, range(0, len(paths), FILES_IN_TASK)):
            for how, of in found.items():
                changed.setdefault(how, []).extend(of)
            bar.update(reading, advance=done)
    return images


def _decode_some(
    images: np.ndarray, paths: Sequence[str], form: _Form, start: int
) -> tuple[int, Mapping[str, list[str]]]:
    """Decode FILES_IN_TASK files from `start` on into their rows; return how many, and which were changed how."""
    some = paths[start : start + FILES_IN_TASK]
    changed: dict[str, list[str]] = {}
    for i, path in enumerate(some, start):
        with _opened(path) as image:
            if form.channels == 1 and image.mode not in GREY_MODES:
                raise _ColourFoundError
            changes = [FIRST_FRAME] if getattr(image, "is_animated", False) else []
            upright, was_turned = _turned(image)
            flat, was_composed = _composed(upright)
            changes += [TURNED] * was_turned + [COMPOSED] * was_composed
            _require_size(path, flat, form)
            images[i] = _pixels(flat, form)
        for how in changes:
            changed.setdefault(how, []).append(path)
    return len(some), changed


@contextmanager
def _opened(path: str) -> Iterator[Image]:
    """Open an image file; what its decoder stumbles over inside the block becomes an error that names the file."""
    import PIL.Image

    try:
        if not os.path.isfile(path):  # to open a pipe would wait for whoever writes into it
            raise FileNotFoundError("no file, or a link to none")
        with PIL.Image.open(path) as image:
            if _is_deep(image):
                raise UserError(f"{path} has more than 8 bits a channel (mode {_mode(image)}): convert it to 8 bits.")
            yield image
    except (UserError, _ColourFoundError):
        raise
    except Exception as error:  # of many kinds: each decoder stumbles in its own way
        raise UserError(
            f"{path} cannot be read as an image ({type(error).__name__}: {error}). Replace it or remove it."
        ) from error


def _is_deep(image: Image) -> bool:
    """Return whether a picture has more than 8 bits a channel, of which Pillow would drop the lower ones in silence."""
    return image.mode.startswith(("I", "F")) or _mode(image) != image.mode


def _mode(image: Image) -> str:
    """Return how the pixels lie in the file where that is 16 bits a channel (RGB;16B), else the mode of the image."""
    if image.mode.startswith(("I", "F")):
        return image.mode
    for tile in getattr(image, "tile", ()):
        stored, *rest = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if re.search(";16[BLN]", str(stored)):  # not BGR;16, which is five and six bits
            return str(stored)
        if image.format == "PPM" and rest and rest[0] > 255:  # of a .ppm the largest value stands there
            return f"{stored};16B"
    return image.mode


def _turned(image: Image) -> tuple[Image, bool]:
    """Return the picture upright, and whether it had to be turned for that."""
    import PIL.Image

    image.load()  # of a TIFF this turns it, and takes the orientation away
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # of many kinds: EXIF that cannot be read turns nothing, and the pixels are whole
        return image, False
    if orientation not in _UPRIGHT:
        return image, False
    return image.transpose(PIL.Image.Transpose[_UPRIGHT[orientation]]), True


def _composed(image: Image) -> tuple[Image, bool]:
    """Return the picture without alpha, and whether any of it was transparent."""
    import PIL.Image

    if not image.has_transparency_data:
        return image, False
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema() == (255, 255):
        return image, False
    paper = PIL.Image.new("RGBA", image.size, "white")
    return PIL.Image.alpha_composite(paper, image), True


def _require_size(path: str, image: Image, form: _Form) -> None:
    if not form.resized and (image.height, image.width) != (form.height, form.width):
        raise UserError(
            f"images of different sizes: {form.first} has {form.width}x{form.height} pixels, "
            f"{path} has {image.width}x{image.height}. "
            "Bring them to one by --set data.image_size=32 (or another number of pixels)."
        )


def _pixels(image: Image, form: _Form) -> np.ndarray:
    """Return an opaque picture as uint8 [C, H, W]."""
    from torchvision.transforms.functional import center_crop, resize

    image = image.convert("L" if form.channels == 1 else "RGB")
    if form.resized:
        image = center_crop(resize(image, form.height), form.height)
    pixels = np.asarray(image)
    return pixels[None] if form.channels == 1 else pixels.transpose(2, 0, 1)
