"""A figure as an SVG element inside a page: the drawing that the file .svg holds, and over it the points that speak.

Letters stay outlines, as in the file: with a font of the reader's they would be wider or narrower than what was laid
out, and a page must not fetch one. What the figure says in words therefore stands around it, in its caption, in the
words of its points and in the table of its numbers.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from xml.etree import ElementTree

from matplotlib.figure import Figure

from figures.kit.hover import Spot, spots
from figures.kit.style import applied

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"url\(#([^)]*)\)")
_FINE = re.compile(r"-?\d+\.\d{3,}")  # a coordinate finer than a hundredth of a point, which nobody sees
_RADIUS = 4.0  # of a point's ring, in points: around a marker
_DPI = 144  # of pictures in it: pages are seen on screens of more dots than a point has


def inline(figure: Figure, name: str, label: str) -> str:
    """Return a figure as <svg>, the same text for the same figure.

    Args:
        name: begins every id in it, so that several figures of a page share none.
        label: what the figure shows, for those who do not see it.
    """
    drawn = io.BytesIO()
    with applied():
        figure.savefig(drawn, format="svg", metadata={"Date": None}, dpi=_DPI)
    root = ElementTree.fromstring(drawn.getvalue())
    _take_into_page(root, name)
    _drop(root, ("metadata", "style"))
    _clear_paper(root)
    for side in ("width", "height", "version"):
        root.attrib.pop(side, None)
    root.attrib |= {"role": "group", "aria-label": label, "class": "figure"}
    root.append(_marks(spots(figure)))
    return ElementTree.tostring(root, encoding="unicode")


def _take_into_page(root: ElementTree.Element, name: str) -> None:
    """Let ids and what refers to them begin with the name; drop namespaces, which HTML does without."""
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.tail = None
        if (href := element.attrib.pop(_LINK, None)) is not None:
            element.set("href", f"#{name}-{href[1:]}" if href.startswith("#") else "".join(href.split()))
        if "id" in element.attrib:
            element.set("id", f"{name}-{element.get('id')}")
        for key, value in element.attrib.items():
            element.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", value) if key != "d" else _coordinates(value))


def _coordinates(path: str) -> str:
    return _FINE.sub(lambda number: f"{float(number[0]):.2f}", " ".join(path.split()))


def _drop(root: ElementTree.Element, tags: Iterable[str]) -> None:
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in tags]:
            parent.remove(child)


def _clear_paper(root: ElementTree.Element) -> None:
    """Remove the white paper, of the figure and of its panels: the page's own is below, light or dark."""
    for element in root.iter("g"):
        patches = [child for child in element if child.tag == "g" and "-patch_" in child.get("id", "")]
        is_whole = re.search(r"-(figure|axes)_\d+$", element.get("id", ""))
        if is_whole and patches and any("fill: #ffffff" in part.get("style", "") for part in patches[0]):
            element.remove(patches[0])


def _marks(found: Iterable[Spot]) -> ElementTree.Element:
    """Return the points, unseen until pointed at; each with its words, in which no reader needs a script."""
    marks = ElementTree.Element("g", {"class": "marks"})
    for spot in found:
        place = {"cx": f"{spot.x:g}", "cy": f"{spot.y:g}", "r": f"{_RADIUS:g}"}
        mark = ElementTree.SubElement(marks, "circle", place | {"data-line": f"{spot.panel} {spot.line}"})
        ElementTree.SubElement(mark, "title").text = spot.words
    return marks
