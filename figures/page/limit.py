"""A page below 5 MB: what a reader misses least is left out, step by step, until the page fits, and it is said."""

from __future__ import annotations

import base64
import io
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from figures.page.render import html
from figures.page.sections import Page, Section, Shown

log = logging.getLogger("layerwise.figures")

MOST = 5_000_000  # bytes: what mail and most places for files beside a paper take
_SAID = 1_000  # bytes that the sentence on what is left out takes at most: it is among the remarks of the page
_MARKS = re.compile(r'<g class="marks">.*?</g>', re.DOTALL)
_PICTURE = re.compile(r'(?<=href="data:image/png;base64,)[^"]*')


def within(page: Page, most: int = MOST) -> Page:
    """Return a page that takes at most so many bytes as HTML, with as little left out as that needs.

    What is left out is warned of, as is a page that is larger without it.
    """
    size, left_out = _size(page), []
    for words, lighter in _STEPS:
        if size + _SAID <= most:
            break
        found = lighter(page)
        if (less := _size(found)) < size:
            page, size = found, less
            left_out.append(words)
    if left_out:
        log.warning("to keep the page below %.3g MB, %s", most / 1e6, ", ".join(left_out))
    if size + _SAID > most:
        log.warning(
            "the page has %.1f MB, more than the %.3g MB it should: give fewer run files, as those of one M, or of "
            "fewer modes",
            size / 1e6, most / 1e6,
        )  # fmt: skip
    return page


def _size(page: Page) -> int:
    return len(html(page).encode())


def _each(page: Page, change: Callable[[Shown], Shown], but: str = "", only: str = "") -> Page:
    """Return a page whose figures are changed, of sections whose id begins with `only` and is not `but`."""

    def sections() -> Iterator[Section]:
        for one in page.sections:
            is_meant = one.id.startswith(only) and one.id != but
            yield replace(one, figures=[change(shown) for shown in one.figures]) if is_meant else one

    return replace(page, sections=list(sections()))


def _silent(shown: Shown) -> Shown:
    return replace(shown, wide=_MARKS.sub("", shown.wide), narrow=_MARKS.sub("", shown.narrow))


def _coarse(shown: Shown) -> Shown:
    """Return a figure whose pictures have half as many dots to each side."""
    return replace(shown, wide=_PICTURE.sub(_halved, shown.wide), narrow=_PICTURE.sub(_halved, shown.narrow))


def _halved(picture: re.Match[str]) -> str:
    from PIL import Image

    smaller = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(picture[0]))) as image:
        size = (max(1, image.width // 2), max(1, image.height // 2))
        image.resize(size, Image.Resampling.BOX).save(smaller, "PNG", optimize=True)
    return base64.b64encode(smaller.getvalue()).decode()


# In the order of what is missed least: tables hold what marks say, and the atlas is to be looked at.
_STEPS: tuple[tuple[str, Callable[[Page], Page]], ...] = (
    ("pictures of the atlas have half as many dots", lambda page: _each(page, _coarse)),
    (
        "figures of training say no numbers where they are pointed at",
        lambda page: _each(page, _silent, only="training"),
    ),
    ("figures of anything but accuracy say none either", lambda page: _each(page, _silent, but="accuracy")),
    ("a phone shows figures as a wide screen does", lambda page: _each(page, lambda one: replace(one, narrow=""))),
)
