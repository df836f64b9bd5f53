"""Files of pictures decoded into memory, on all cores, and the account of what was found in them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

import numpy as np

from layerwise.commandline import progress
from layerwise.datasets.pictures import (
    ColourFoundError,
    Form,
    UnreadError,
    decode_one,
    form_of,
    is_grey,
    sha256_of,
)
from layerwise.errors import UserError

log = logging.getLogger("layerwise.imagefolder")

FILES_IN_TASK = 64
NAMED = 5  # files in an error; more would hide what to do


@dataclass
class Account:
    """What reading found: files by how they are changed, and by path why they are not read, in the order of reading."""

    changed: dict[str, list[str]] = field(default_factory=dict)
    unread: dict[str, UnreadError] = field(default_factory=dict)

    def add(self, other: Account) -> None:
        for how, of in other.changed.items():
            self.changed.setdefault(how, []).extend(of)
        self.unread |= other.unread

    def say_changed(self) -> None:
        """Say in one line how many pictures are not read pixel for pixel as they are stored."""
        parts = [f"{len(of)} {how} ({of[0] if len(of) == 1 else f'first {of[0]}'})" for how, of in self.changed.items()]
        if parts:
            log.warning("images: %s", "; ".join(parts))

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


def decode(
    paths: Sequence[Sequence[str]], image_size: int, unread: Sequence[str] = (), eval_resize: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Decode lists of files to uint8 arrays [n, C, H, W] of one form, which the first file that can be read sets.

    With each comes the SHA-256 of its files, uint8 [n, 32].

    unread: files of the same data set that are not decoded; one in colour gives all images three channels.

    Raises UserError for all files together that are no pictures of 8 bits a channel, or one of another size at
    image_size 0.
    """
    form = first_form(chain.from_iterable(paths), image_size, eval_resize)
    if form.channels == 1 and not all(map(_may_be_grey, unread)):
        form = replace(form, channels=3)
    try:
        return decode_as(paths, form)
    except ColourFoundError:
        return decode_as(paths, replace(form, channels=3))


def first_form(paths: Iterable[str], image_size: int, eval_resize: int = 0) -> Form:
    """Return the form that the first file sets that can be read; raise UserError where none can."""
    account = Account()
    for path in paths:
        try:
            return form_of(path, image_size, eval_resize)
        except UnreadError as error:
            account.unread[path] = error
    account.require_read()
    raise AssertionError("no file was given")


def _may_be_grey(path: str) -> bool:
    try:
        return is_grey(path)
    except UnreadError:
        return True


def decode_as(paths: Sequence[Sequence[str]], form: Form) -> list[tuple[np.ndarray, np.ndarray]]:
    """Decode all lists to one form, as `decode`; say in a line how many are not read pixel for pixel as stored.

    Raises ColourFoundError for a picture in colour where the form is grey, UserError as `decode`.
    """
    account = Account()
    arrays = [_decode_list(some, form, account) for some in paths]
    account.require_read()
    account.say_changed()
    return arrays


def _decode_list(paths: Sequence[str], form: Form, account: Account) -> tuple[np.ndarray, np.ndarray]:
    """Decode files into one array [n, C, H, W], and take their digests; rows that cannot be read hold anything."""
    from layerwise import sharing  # which loads torch

    images = sharing.room((len(paths), form.channels, form.height, form.width))
    sha256 = np.empty((len(paths), 32), dtype=np.uint8)
    task = partial(_decode_some, images, sha256, paths, form)
    with progress() as bar, ThreadPoolExecutor() as pool:
        reading = bar.add_task("reading images", total=len(paths))
        for done, found in pool.map(task, range(0, len(paths), FILES_IN_TASK)):
            account.add(found)
            bar.update(reading, advance=done)
    return images, sha256


def _decode_some(
    images: np.ndarray, sha256: np.ndarray, paths: Sequence[str], form: Form, start: int
) -> tuple[int, Account]:
    """Decode FILES_IN_TASK files from `start` on into their rows; return how many, and what was found."""
    some = paths[start : start + FILES_IN_TASK]
    account = Account()
    for i, path in enumerate(some, start):
        try:
            images[i], changes = decode_one(path, form)
            sha256[i] = sha256_of(path)
        except UnreadError as error:
            account.unread[path] = error
        else:
            account.add(Account({how: [path] for how in changes}))
    return len(some), account
