"""The style of every figure: sizes in millimetres, type, colours, and the line and marker of each kind of network."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import matplotlib
import numpy as np
import seaborn
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import TextPath

from layerwise.config import MODES

log = logging.getLogger("layerwise.figures")

_FONT = "DejaVu Sans"  # ships with matplotlib, so that every machine draws the same
# Widths of one column and of a page's text in a two-column paper.
WIDTHS_MM = {"single": 85.0, "double": 170.0}
MM_PER_INCH, POINTS_PER_INCH = 25.4, 72.0
LABEL_SIZE = 7.5  # of an axis's name, in points

# k = 1, 2, 3 from the left, networks built elsewhere from the right. Searched for the least distance in Lab between two
# of them, grey and black, as seen by normal eyes, protanopes, deuteranopes and tritanopes (Machado et al. 2009): 23.9.
# Of seaborn's "colorblind" it is 12, orange beside vermillion and green beside grey. Each stands out from white paper,
# and from the dark page that turns them round, by 3 to 1 or more (WCAG 2.1, 1.4.11), as all colours of lines do.
_COLOURS = ("#016AAC", "#D55E00", "#00AA60", "#AF5DFF", "#2E3452", "#8E0318", "#6216DF")
_PALEST = 0.32  # of seaborn's "crest", whose first third does not stand out from white
# What is the same for every line.
REFERENCE = "0.35"
MARKERS = ("o", "s", "^", "D", "v", "P")
# Of the modes of one k; a diamond is the raw pixels'.
MODE_MARKERS = dict(zip(MODES, ("o", "s", "^", "v"), strict=True))
_OTHER_MARKERS = ("p", "<", "d", ">", "h", "X")
_DASHES: tuple[Any, ...] = (
    "solid",
    (0, (6, 1.2, 1, 1.2)),
    (0, (7, 1.5)),
    (0, (6, 1.2, 1, 1.2, 1, 1.2)),
    (0, (4, 1, 3.5, 2.5)),
    (0, (9, 2)),
)
# Seven colours by six markers, which are coprime, so that a pair comes again after so many lines.
MOST_LINES = len(_COLOURS) * len(MARKERS)
# Of a legend's handle, in font sizes: two periods of the longest dashes, of which the marker covers a part.
HANDLE_LENGTH = 3.7
GREY = "#909090"  # lighter than each of the colours printed without colour
UNTRAINED_DASHES = (0, (2.2, 1.4))
PARALLEL_DASHES = (0, (1, 1))
CHANCE_DASHES = (0, (1, 1.8))
# Two bands that overlap: one filled, one hatched, so that each is seen through the other, also without colour; and
# the mean of each, since a band may be thinner than a line.
BANDS: tuple[dict[str, Any], ...] = (
    {"facecolor": "#CCCCCC", "edgecolor": "none", "zorder": 0.5},
    {"facecolor": "none", "edgecolor": "#8A8A8A", "hatch": "//////", "zorder": 0.55},
)
BAND_MEANS: tuple[dict[str, Any], ...] = (
    {"color": GREY, "linewidth": 0.8, "linestyle": "solid"},
    {"color": GREY, "linewidth": 0.8, "linestyle": UNTRAINED_DASHES},
)

_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": [_FONT],
    "mathtext.fontset": "dejavusans",
    "font.size": 7.0,
    "axes.labelsize": LABEL_SIZE,
    "axes.titlesize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelpad": 2.0,
    "axes.titlepad": 4.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.pad": 2.0,
    "ytick.major.pad": 2.0,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.8,
    "lines.markeredgewidth": 0.8,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,  # TrueType: type 3 fonts are refused by several publishers
    "ps.fonttype": 42,
    "svg.fonttype": "path",  # an SVG cannot be relied on to bring its font, so letters are outlines
    "svg.hashsalt": "layerwise",  # names inside the file are random without it
    "savefig.bbox": None,  # the size on the page is the size asked for
}


class PageFigure(Figure):
    """A figure that is drawn and saved in this style whatever the reader's settings are by then, without pyplot.

    matplotlib looks at its settings when a figure is made, again when it is drawn and once more when it is saved.
    """

    def draw(self, renderer: Any) -> None:
        with applied():
            super().draw(renderer)

    def savefig(self, fname: Any, **how: Any) -> None:
        with _saving_to(fname):
            super().savefig(fname, **how)

    def _repr_png_(self) -> bytes:
        return rendered(self)[".png"]


class _PageCanvas(FigureCanvasAgg):
    """The canvas of a PageFigure, which notebooks print without asking the figure."""

    def print_figure(self, filename: Any, *args: Any, **how: Any) -> Any:
        with _saving_to(filename):
            return super().print_figure(filename, *args, **how)


_in_style = ContextVar("in_style", default=False)


@contextmanager
def applied(kept: Mapping[str, Any] = MappingProxyType({})) -> Iterator[None]:
    """Draw in this style, whatever the reader's matplotlibrc says; the settings of before return after.

    kept: settings that stay as they are here. Within another `applied` nothing is changed.
    """
    if _in_style.get():
        yield
        return
    token = _in_style.set(True)
    try:
        with matplotlib.rc_context(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Glyph \d+ ")  # said by `warn_of_missing`, once and in a line
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(seaborn.axes_style("ticks") | _RC | kept)
            yield
    finally:
        _in_style.reset(token)


def marks() -> AbstractContextManager[None]:
    """Draw lines and markers of this style; all else, type above all, is the reader's."""
    return matplotlib.rc_context({name: value for name, value in _RC.items() if name.startswith(("lines.", "hatch."))})


def length_mm(words: str) -> float:
    """Return how long words of the size of tick labels are on the page."""
    path = TextPath((0, 0), words, size=_RC["xtick.labelsize"], prop=FontProperties(family=_FONT))
    return float(path.get_extents().width) / POINTS_PER_INCH * MM_PER_INCH


def _saving_to(target: Any) -> AbstractContextManager[None]:
    """Return the style for a file. One of several pages has the reader's fonts, which are written when it is closed."""
    if not isinstance(target, PdfPages):
        return applied()
    now = matplotlib.rcParams
    # matplotlib 3.11 sorts the letters of a PDF by the setting of PostScript.
    return applied({"pdf.fonttype": now["pdf.fonttype"], "ps.fonttype": now["ps.fonttype"]})


def new_figure(width_mm: float, height_mm: float) -> Figure:
    """Return an empty figure of the given size, with a canvas of its own (no pyplot state)."""
    figure = PageFigure(figsize=(width_mm / MM_PER_INCH, height_mm / MM_PER_INCH))
    _PageCanvas(figure)
    return figure


def rendered(figure: Figure) -> dict[str, bytes]:
    """Return the figure as the bytes of a PDF, an SVG and a 300 dpi PNG, the same for the same figure."""
    pdf, svg, png = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with applied():
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.savefig(png, format="png", dpi=300)
    return {".pdf": pdf.getvalue(), ".svg": svg.getvalue(), ".png": png.getvalue()}


def warn_of_missing(text: str) -> None:
    """Warn of letters that are drawn as boxes, since the font has none."""
    known = get_font(findfont(_FONT)).get_charmap()
    missing = [letter for letter in dict.fromkeys(text) if letter.isprintable() and ord(letter) not in known]
    if missing:
        letters = " ".join(missing)
        log.warning("the figure's font, %s, lacks %s, drawn as boxes; the caption has them", _FONT, letters)


def line_style(mode: str, k: int | None, place: int = 0) -> dict[str, Any]:
    """Return matplotlib's properties of the line of a kind of network.

    Args:
        mode: how the network was trained; untrained networks are grey and dashed, end-to-end ones black, those trained
            in parallel in a darker shade of their k's colour.
        k: layers of its auxiliary problem, from 1, which give marker and dashes; None where it has none.
        place: of a network that was built elsewhere among such, from 0; gives it colour, marker and dashes, of which
            the first `MOST_LINES` have no pair of colour and marker twice.
    """
    if mode not in MODES:
        return {
            "color": _COLOURS[-1 - place % len(_COLOURS)],
            "marker": _OTHER_MARKERS[place % len(_OTHER_MARKERS)],
            "linestyle": _DASHES[-1 - place % len(_DASHES)],
        }
    place = k - 1 if k is not None else len(MARKERS) - 1
    marker = MARKERS[place % len(MARKERS)]
    if mode == "untrained":
        return {"color": GREY, "marker": marker, "linestyle": UNTRAINED_DASHES}
    colour = _COLOURS[place % len(_COLOURS)] if k is not None and mode != "end-to-end" else "black"
    if mode == "parallel":
        colour = seaborn.dark_palette(colour, 5).as_hex()[2]
    dashes = PARALLEL_DASHES if mode == "parallel" else _DASHES[place % len(_DASHES)]
    return {"color": colour, "marker": marker, "linestyle": dashes}


def mode_style(mode: str) -> dict[str, Any]:
    """Return the properties of the line of a mode, whatever its k."""
    return line_style(mode, 1) | ({"marker": MODE_MARKERS[mode]} if mode in MODE_MARKERS else {})


def ordered_styles(count: int) -> list[dict[str, Any]]:
    """Return the properties of lines whose order is the message, such as widths: from light to dark."""
    shades = seaborn.color_palette("crest", as_cmap=True)(np.linspace(_PALEST, 1, count))
    return [{"color": to_hex(shade), "marker": MARKERS[place % len(MARKERS)]} for place, shade in enumerate(shades)]


def colour_map(name: str) -> Any:
    """Return a colour map of seaborn, in which what is missing is light grey."""
    return seaborn.color_palette(name, as_cmap=True).with_extremes(bad="0.85")


def line_label(mode: str, k: int | None, alone: bool = True) -> str:
    """Return the legend's words for a kind of network; greedy training, the subject, is not named where it is alone."""
    depth = [] if k is None else [f"$k$ = {k}"]
    if mode not in MODES:
        return ", ".join([mode.replace("$", r"\$"), *depth])  # a dollar sign would begin mathematics
    return ", ".join(depth + ([] if mode == "greedy" and depth and alone else [mode]))


def plain(label: str) -> str:
    """Return the words of a legend's label as plain text, for a caption."""
    return label.replace(r"\$", "\0").replace("$", "").replace("\0", "$")
