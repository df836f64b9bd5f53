"""Pictures in files: each decoded to 8-bit pixels as a viewer shows it; what that changes is counted.

A viewer turns a picture as its EXIF orientation says and shows something behind transparent pixels. Colours that lie
under alpha 0 are whatever the drawing program left there, so white, the paper, is put in their place.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from layerwise.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

GREY_MODES = ("1", "L", "LA")
# torchvision's list, with the other endings of those formats, .gif and .avif. Pillow knows more, and some of them
# (.eps) it hands to other programs.
ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".tif",
    ".tiff", ".webp", ".avif",
)  # fmt: skip

TURNED = "turned upright, as their EXIF orientation says"
COMPOSED = "with transparent pixels, composed on white"
FIRST_FRAME = "of several frames, of which the first is read"
CHANGES = (FIRST_FRAME, TURNED, COMPOSED)
_EXIF_ORIENTATION = 0x0112
# Pillow's name of the operation that makes a picture of each EXIF orientation upright.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip


class ColourFoundError(Exception):
    """An image in colour stands among those read as grey."""


class UnreadError(Exception):
    """A file of which no picture is read.

    alone: the message where it is the only one. why, advice: of it among others, where its path stands before.
    """

    def __init__(self, alone: str, why: str, advice: str) -> None:
        super().__init__(alone)
        self.alone, self.why, self.advice = alone, why, advice


@dataclass(frozen=True)
class Form:
    """The form of every image: channels C, height H and width W in pixels; `first` is the file that set it.

    resized: images of any size are brought to H x W; else all have that size. shorter: pixels to which the shorter side
    is brought before the middle is cropped. advice: what to do about a picture of another size.
    """

    channels: int
    height: int
    width: int
    first: str
    resized: bool
    shorter: int = 0
    advice: str = "Bring them to one by --set data.image_size=32 (or another number of pixels)."


@dataclass(frozen=True)
class Found:
    """What a picture was found to be, by decoding it: channels (1 or 3), pixels upright, and how it is changed."""

    channels: int
    height: int
    width: int
    changes: tuple[str, ...]


def form_of(path: str, image_size: int, eval_resize: int = 0) -> Form:
    """Return the form that a picture sets for all of its data set; image_size 0 leaves it as it is.

    eval_resize: pixels of the shorter side before the middle is cropped; 0 for image_size.
    """
    with _opened(path) as image:
        channels = _channels(image)  # before it is decoded, which may change its mode
        upright, _ = _turned(image)
        size = (image_size, image_size) if image_size else (upright.height, upright.width)
        return Form(channels, *size, path, bool(image_size), eval_resize or image_size)


def is_grey(path: str) -> bool:
    """Return whether a picture is grey, which its head says: nothing is decoded."""
    with _opened(path) as image:
        return _channels(image) == 1


def examine(path: str) -> Found:
    """Decode a picture as `decode_one` does, and return what it is."""
    with _opened(path) as image:
        channels = _channels(image)
        flat, changes = _flat(image)
        return Found(channels, flat.height, flat.width, tuple(changes))


def sha256_of(path: str) -> np.ndarray:
    """Return the SHA-256 of a file's bytes, uint8 [32]; raise OSError where it cannot be read."""
    with open(path, "rb") as file:
        return np.frombuffer(hashlib.file_digest(file, "sha256").digest(), np.uint8)


def decode_one(path: str, form: Form) -> tuple[np.ndarray, list[str]]:
    """Return the pixels of a picture, uint8 [C, H, W], and how they are changed."""
    with _opened(path) as image:
        if form.channels < _channels(image):
            raise ColourFoundError
        flat, changes = _flat(image)
        _require_size(path, flat, form)
        return _pixels(flat, form), changes


def view_one(path: str, form: Form, box: Sequence[int]) -> np.ndarray:
    """Return a random part of a picture, brought to the size of its form, uint8 [C, H, W].

    box: top, left, whether it is mirrored, height and width, in pixels of the original.

    Raises UserError where the part is not inside the picture, which was another one when its size was taken.
    """
    import torch
    from torchvision.transforms.v2.functional import resize

    top, left, mirrored, height, width = box
    with _opened(path) as image:
        if form.channels < _channels(image):
            raise ColourFoundError
        flat, _ = _flat(image)
        if top + height > flat.height or left + width > flat.width:
            raise UserError(f"{path} is smaller than it was when the images were indexed. Start again.")
        part = _converted(flat.crop((left, top, left + width, top + height)), form)
        # The pixels of RandomResizedCrop of v2 on the whole picture, 1.3 times as fast with decoding: the part alone
        # is copied, and its channels stay last in memory. torchvision's own decoder will be removed.
        pixels = torch.from_numpy(np.array(part).reshape(height, width, form.channels)).permute(2, 0, 1)
        view: np.ndarray = resize(pixels, [form.height, form.width], antialias=True).numpy()
        return view[:, :, ::-1] if mirrored else view


def _channels(image: Image) -> int:
    return 1 if image.mode in GREY_MODES else 3


def _flat(image: Image) -> tuple[Image, list[str]]:
    """Return a picture as a viewer shows it, upright and opaque, and how it is changed for that."""
    changes = [FIRST_FRAME] if getattr(image, "is_animated", False) else []
    upright, was_turned = _turned(image)
    flat, was_composed = _composed(upright)
    return flat, changes + [TURNED] * was_turned + [COMPOSED] * was_composed


@contextmanager
def _opened(path: str) -> Iterator[Image]:
    """Open an image file; what its decoder stumbles over inside the block becomes an error that names the file."""
    import PIL.Image

    try:
        if not os.path.isfile(path):  # to open a pipe would wait for whoever writes into it
            raise FileNotFoundError("no file, or a link to none")
        with PIL.Image.open(path) as image:
            if _is_deep(image):
                raise UnreadError(
                    f"{path} has more than 8 bits a channel (mode {_mode(image)}): convert it to 8 bits.",
                    f"more than 8 bits a channel, mode {_mode(image)}", "Convert those of more than 8 bits to 8.",
                )  # fmt: skip
            yield image
    except (UserError, UnreadError, ColourFoundError):
        raise
    except Exception as error:  # of many kinds: each decoder stumbles in its own way
        why = f"{type(error).__name__}: {error}"
        raise UnreadError(
            f"{path} cannot be read as an image ({why}). Replace it or remove it.",
            why.replace(f" {path!r}", ""), "Replace or remove what is no image.",  # Pillow names the path too
        ) from error  # fmt: skip


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


def _require_size(path: str, image: Image, form: Form) -> None:
    if not form.resized and (image.height, image.width) != (form.height, form.width):
        raise different_sizes(form, path, image.height, image.width)


def different_sizes(form: Form, path: str, height: int, width: int) -> UserError:
    """Return the error for a picture of another size than the first one, where none is resized."""
    return UserError(
        f"images of different sizes: {form.first} has {form.width}x{form.height} pixels, {path} has {width}x{height}. "
        f"{form.advice}"
    )


def _pixels(image: Image, form: Form) -> np.ndarray:
    """Return an opaque picture as uint8 [C, H, W]."""
    from torchvision.transforms.functional import center_crop, resize

    if form.resized:
        image = center_crop(resize(_converted(image, form), form.shorter), form.height)
    return _channels_first(image, form)


def _converted(image: Image, form: Form) -> Image:
    return image.convert("L" if form.channels == 1 else "RGB")


def _channels_first(image: Image, form: Form) -> np.ndarray:
    pixels = np.asarray(_converted(image, form))
    return pixels[None] if form.channels == 1 else pixels.transpose(2, 0, 1)
