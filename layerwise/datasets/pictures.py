"""Pictures in files: each decoded to 8-bit pixels as a viewer shows it; what that changes is counted.

A viewer turns a picture as its EXIF orientation says and shows something behind transparent pixels. Colours that lie
under alpha 0 are whatever the drawing program left there, so white, the paper, is put in their place.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from layerwise.commandline import progress
from layerwise.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger("layerwise.imagefolder")

GREY_MODES = ("1", "L", "LA")
FILES_IN_TASK = 64
NAMED = 5  # files in an error; more would hide what to do
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


class _UnreadError(Exception):
    """A file of which no picture is read.

    alone: the message where it is the only one. why, advice: of it among others, where its path stands before.
    """

    def __init__(self, alone: str, why: str, advice: str) -> None:
        super().__init__(alone)
        self.alone, self.why, self.advice = alone, why, advice


@dataclass
class _Account:
    """What reading found: files by how they are changed, and by path why they are not read, in the order of reading."""

    changed: dict[str, list[str]] = field(default_factory=dict)
    unread: dict[str, _UnreadError] = field(default_factory=dict)

    def add(self, other: _Account) -> None:
        for how, of in other.changed.items():
            self.changed.setdefault(how, []).extend(of)
        self.unread |= other.unread

    def require_read(self) -> None:
        """Raise UserError for all files that are not read: who mends one at a time reads a large folder as often."""
        found = list(self.unread.items())
        if len(found) == 1:
            raise UserError(found[0][1].alone)
        if found:
            named = ", ".join(f"{path} ({error.why})" for path, error in found[:NAMED])
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            advice = " ".join(sorted({error.advice for _, error in found}))
            raise UserError(f"{len(found)} images cannot be read: {named}{more}. {advice}")


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
    """Decode lists of files to uint8 arrays [n, C, H, W] of one form, which the first file that can be read sets.

    Raises UserError for all files together that are no pictures of 8 bits a channel, or one of another size at
    image_size 0.
    """
    form = _first_form(paths, image_size)
    try:
        return _decode_all(paths, form)
    except _ColourFoundError:
        return _decode_all(paths, replace(form, channels=3))


def _first_form(paths: Sequence[Sequence[str]], image_size: int) -> _Form:
    account = _Account()
    for path in chain.from_iterable(paths):
        try:
            with _opened(path) as image:
                channels = 1 if image.mode in GREY_MODES else 3
                upright, _ = _turned(image)
                size = (image_size, image_size) if image_size else (upright.height, upright.width)
                return _Form(channels, *size, path, bool(image_size))
        except _UnreadError as error:
            account.unread[path] = error
    account.require_read()
    raise AssertionError("no file was given")


def _decode_all(paths: Sequence[Sequence[str]], form: _Form) -> list[np.ndarray]:
    """Decode all lists, and say in one line how many pictures are not read pixel for pixel as they are stored."""
    account = _Account()
    arrays = [_decode_list(some, form, account) for some in paths]
    account.require_read()
    if changed := account.changed:
        log.warning("images: %s", "; ".join(f"{len(of)} {how} ({_example(of)})" for how, of in changed.items()))
    return arrays


def _example(paths: Sequence[str]) -> str:
    return paths[0] if len(paths) == 1 else f"first {paths[0]}"


def _decode_list(paths: Sequence[str], form: _Form, account: _Account) -> np.ndarray:
    """Decode files into one array [n, C, H, W], of which rows that cannot be read hold anything."""
    images = np.empty((len(paths), form.channels, form.height, form.width), dtype=np.uint8)
    task = partial(_decode_some, images, paths, form)
    with progress() as bar, ThreadPoolExecutor() as pool:
        reading = bar.add_task("reading images", total=len(paths))
        for done, found in pool.map(task, range(0, len(paths), FILES_IN_TASK)):
            account.add(found)
            bar.update(reading, advance=done)
    return images


def _decode_some(images: np.ndarray, paths: Sequence[str], form: _Form, start: int) -> tuple[int, _Account]:
    """Decode FILES_IN_TASK files from `start` on into their rows; return how many, and what was found."""
    some = paths[start : start + FILES_IN_TASK]
    account = _Account()
    for i, path in enumerate(some, start):
        try:
            images[i], changes = _decode_one(path, form)
        except _UnreadError as error:
            account.unread[path] = error
        else:
            account.add(_Account({how: [path] for how in changes}))
    return len(some), account


def _decode_one(path: str, form: _Form) -> tuple[np.ndarray, list[str]]:
    """Return the pixels of a picture, uint8 [C, H, W], and how they are changed."""
    with _opened(path) as image:
        if form.channels == 1 and image.mode not in GREY_MODES:
            raise _ColourFoundError
        changes = [FIRST_FRAME] if getattr(image, "is_animated", False) else []
        upright, was_turned = _turned(image)
        flat, was_composed = _composed(upright)
        _require_size(path, flat, form)
        return _pixels(flat, form), changes + [TURNED] * was_turned + [COMPOSED] * was_composed


@contextmanager
def _opened(path: str) -> Iterator[Image]:
    """Open an image file; what its decoder stumbles over inside the block becomes an error that names the file."""
    import PIL.Image

    try:
        if not os.path.isfile(path):  # to open a pipe would wait for whoever writes into it
            raise FileNotFoundError("no file, or a link to none")
        with PIL.Image.open(path) as image:
            if _is_deep(image):
                raise _UnreadError(
                    f"{path} has more than 8 bits a channel (mode {_mode(image)}): convert it to 8 bits.",
                    f"more than 8 bits a channel, mode {_mode(image)}", "Convert those of more than 8 bits to 8.",
                )  # fmt: skip
            yield image
    except (UserError, _UnreadError, _ColourFoundError):
        raise
    except Exception as error:  # of many kinds: each decoder stumbles in its own way
        why = f"{type(error).__name__}: {error}"
        raise _UnreadError(
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
