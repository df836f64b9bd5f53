"""What a point of a figure says where it is pointed at on a page: its words, kept beside the axes it is drawn in.

Nothing is drawn, so that a figure is the same with them and without.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Transform

from figures.kit.style import POINTS_PER_INCH


@dataclass(frozen=True)
class Spot:
    """A place of a figure and its words. panel, line: what it belongs to. x, y: in points from the left and the top."""

    panel: int
    line: str
    x: float
    y: float
    words: str


_Told = tuple[str, float, float, Transform, str]
# Beside the axes and not in them: what is told of a figure goes with it.
_told: WeakKeyDictionary[Axes, list[_Told]] = WeakKeyDictionary()


def tell(
    axes: Axes, line: str, x: Iterable[float], y: Iterable[float], words: Iterable[str], at: Transform | None = None
) -> None:
    """Keep the words of points of a line at x, y in the coordinates `at`, those of the data unless told otherwise."""
    found = _told.setdefault(axes, [])
    found += [
        (line, float(left), float(up), at or axes.transData, said) for left, up, said in zip(x, y, words, strict=True)
    ]


def spots(figure: Figure) -> Iterator[Spot]:
    """Yield what was told of a figure, panel by panel, along each line from the left."""
    scale, height = POINTS_PER_INCH / figure.dpi, figure.get_figheight() * POINTS_PER_INCH
    for panel, axes in enumerate(figure.axes):
        places = [(line, *(scale * at.transform((x, y))), words) for line, x, y, at, words in _told.get(axes, ())]
        order = list(dict.fromkeys(line for line, *_ in places))
        for line, x, y, words in sorted(places, key=lambda place: (order.index(place[0]), place[1])):
            yield Spot(panel, line, round(float(x), 2), round(height - float(y), 2), words)
