"""Checks of every drawn figure: its size and fonts, that nothing is cut, that no text is covered."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from figures.kit import style

# Lines that are no data, by their label.
_FURNITURE = ("_chance", "_break", "_zero")


def check_page(figure: Figure, width_mm: float) -> None:
    """Assert that the PDF, SVG and PNG have this width and the figure's height, and bring their fonts."""
    height_mm = figure.get_figheight() * style.MM_PER_INCH
    files = style.rendered(figure)
    (page,) = re.findall(rb"/MediaBox \[ ?0 0 ([0-9.]+) ([0-9.]+)", files[".pdf"])
    assert [float(side) * 25.4 / 72 for side in page] == pytest.approx([width_mm, height_mm], abs=0.01)
    assert b"/FontFile2" in files[".pdf"] and b"/Type3" not in files[".pdf"]
    (page,) = re.findall(rb'<svg [^>]*?width="([0-9.]+)pt" height="([0-9.]+)pt"', files[".svg"])
    assert [float(side) * 25.4 / 72 for side in page] == pytest.approx([width_mm, height_mm], abs=0.01)
    assert b"<text" not in files[".svg"]
    header = files[".png"][16:24]
    pixels = [int.from_bytes(side, "big") for side in (header[:4], header[4:])]
    assert pixels == pytest.approx([width_mm / 25.4 * 300, height_mm / 25.4 * 300], abs=1)


def check_texts(figure: Figure) -> None:
    """Assert that every text lies whole on the page, off every other text and off every mark of the data."""
    boxes = text_boxes(figure)
    page = figure.bbox
    for words, box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, words
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), (one, other)
    for (words, box), mark in itertools.product(boxes, mark_boxes(figure)):
        assert not box.overlaps(mark), words


def check_marks(figure: Figure) -> None:
    """Assert that no mark and no interval is cut by its panel."""
    for axes in figure.axes:
        for box in mark_boxes(figure, axes):
            assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            assert axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1


def text_boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    """Return every text of the figure that is seen, and each legend as one, with its box in pixels at 300 dpi."""
    renderer = _renderer(figure)
    texts: list[Text] = list(figure.texts)
    legends = list(figure.legends)
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        legends += [legend for legend in [axes.get_legend()] if legend is not None]
        # A tick beyond the limits has a label that is not drawn.
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            ticks = [tick for tick in axis.get_major_ticks() if min(limits) <= tick.get_loc() <= max(limits)]
            texts += [tick.label1 for tick in ticks]
    seen = [text for text in texts if text.get_text() and text.get_visible()]
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in seen]
    return [*boxes, *(("legend", legend.get_window_extent(renderer)) for legend in legends)]


def mark_boxes(figure: Figure, only: Axes | None = None) -> list[Bbox]:
    """Return a box in pixels at 300 dpi around every marker, and around every interval drawn as a bar."""
    _renderer(figure)
    boxes = []
    for axes in figure.axes if only is None else [only]:
        for line in axes.lines:
            if line.get_label() not in _FURNITURE and line.get_marker() not in (None, "None", ""):
                radius = line.get_markersize() / 2 / 72 * figure.dpi
                points = np.column_stack([line.get_xdata(), line.get_ydata()]).astype(float)
                for x, y in line.get_transform().transform(points):
                    boxes.append(Bbox.from_extents(x - radius, y - radius, x + radius, y + radius))
        for ends in intervals(axes):
            (x0, y0), (x1, y1) = axes.transData.transform(ends)
            boxes.append(Bbox.from_extents(x0 - 1, y0, x1 + 1, y1))
    return boxes


def intervals(axes: Axes) -> list[Any]:
    """Return the ends ((x, low), (x, high)) of every interval drawn as a bar."""
    return [ends for lines in axes.collections if isinstance(lines, LineCollection) for ends in lines.get_segments()]


def data_lines(axes: Axes) -> list[Any]:
    """Return the lines that the legend names."""
    return [line for line in axes.lines if not str(line.get_label()).startswith("_")]


def _renderer(figure: Figure) -> Any:
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    if figure.dpi != 300 or figure.stale:
        figure.set_dpi(300)
        figure.draw_without_rendering()  # places everything, and is spared the pixels
        figure.stale = False
    return canvas.get_renderer()
