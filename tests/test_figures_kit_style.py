"""Exact sizes, embedded fonts, equal bytes, signs apart without colour."""

from __future__ import annotations

import contextlib
import io
import itertools
import pickle
import re
import time
import zlib
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from figures.kit import style
from layerwise.config import MODES


def drawn() -> dict[str, bytes]:
    with style.applied():
        figure = style.new_figure(85.0, 40.0)
        figure.text(0.1, 0.5, "accuracy, depth $j$")
        return style.rendered(figure)


def test_the_page_has_the_size_asked_for() -> None:
    (box,) = re.findall(rb"/MediaBox \[ ?0 0 ([0-9.]+) ([0-9.]+)", drawn()[".pdf"])
    assert [float(side) * 25.4 / 72 for side in box] == pytest.approx([85.0, 40.0], abs=0.01)


def test_the_picture_has_300_dots_an_inch() -> None:
    header = drawn()[".png"]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width = int.from_bytes(header[16:20], "big")
    assert width == pytest.approx(85.0 / 25.4 * 300, abs=1)


def test_fonts_are_embedded_as_truetype() -> None:
    pdf = drawn()[".pdf"]
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf


def test_the_same_figure_has_the_same_bytes_at_another_time() -> None:
    first = drawn()
    time.sleep(1.1)  # dates in PDF and in fonts count seconds
    assert drawn() == first
    assert b"CreationDate" not in first[".pdf"]


def test_settings_of_the_reader_change_nothing_and_are_kept() -> None:
    expected = drawn()
    with matplotlib.rc_context({"font.size": 20, "text.color": "red", "pdf.fonttype": 3, "savefig.bbox": "tight"}):
        assert drawn() == expected
        assert matplotlib.rcParams["font.size"] == 20


# Each changes the picture of a plain matplotlib figure when it is saved under it.
OTHERS = {
    "large": {
        "xtick.labelsize": 20,
        "axes.labelsize": 20,
        "font.family": "serif",
        "lines.linewidth": 5,
        "text.color": "red",
    },
    "tight": {"savefig.bbox": "tight", "savefig.pad_inches": 1.0},
    "dark": {"savefig.facecolor": "black", "figure.facecolor": "black", "axes.facecolor": "black"},
    "clear": {"savefig.transparent": True},
    "usetex": {"text.usetex": True},
    "dots": {"savefig.dpi": 33, "figure.dpi": 33},
    "layout": {"figure.autolayout": True, "figure.constrained_layout.use": True},
    "sketch": {"path.sketch": (1, 100, 2)},
}


def panel() -> Figure:
    with style.applied():
        figure = style.new_figure(85.0, 40.0)
        axes = figure.add_axes((0.2, 0.2, 0.7, 0.7))
        axes.plot([-1, 2], [3, 4], label="x")
        axes.set_xlabel("depth $j$")
    return figure


@pytest.mark.parametrize("ways", ["savefig", "print_figure", "notebook", "pickled"])
@pytest.mark.parametrize("settings", OTHERS.values(), ids=OTHERS)
def test_a_figure_is_saved_alike_under_any_settings(ways: str, settings: dict[str, Any]) -> None:
    def saved() -> bytes:
        figure, out = panel(), io.BytesIO()
        with matplotlib.rc_context(settings if changed else {}):
            if ways == "notebook":
                return figure._repr_png_()  # type: ignore[attr-defined, no-any-return]
            if ways == "pickled":
                figure = pickle.loads(pickle.dumps(figure))
            save = figure.canvas.print_figure if ways == "print_figure" else figure.savefig
            save(out, format="png")
        return out.getvalue()

    changed = False
    expected = saved()
    changed = True
    assert saved() == expected


def test_what_is_said_in_the_call_is_heard() -> None:
    small, large, black = io.BytesIO(), io.BytesIO(), io.BytesIO()
    panel().savefig(small, format="png", dpi=50)
    panel().savefig(large, format="png", dpi=100)
    panel().savefig(black, format="png", dpi=100, facecolor="black")
    assert len({file.getvalue() for file in (small, large, black)}) == 3


def texts_of_pdf(data: bytes) -> bytes:
    parts = []
    for part in re.findall(rb"stream\r?\n(.*?)endstream", data, re.S):
        with contextlib.suppress(zlib.error):
            parts.append(zlib.decompress(part))
    return data + b"".join(parts)


@pytest.mark.parametrize("way", ["savefig", "print_figure"])
def test_no_pdf_from_python_has_type_3_fonts(way: str, tmp_path: Path) -> None:
    path, figure = tmp_path / "x.pdf", panel()
    (figure.savefig if way == "savefig" else figure.canvas.print_figure)(path)
    assert b"/Type3" not in texts_of_pdf(path.read_bytes())
    assert b"/CIDFontType2" in texts_of_pdf(path.read_bytes())


def test_postscript_has_no_type_3_fonts(tmp_path: Path) -> None:
    panel().savefig(tmp_path / "x.eps")
    assert b"FontType 3" not in (tmp_path / "x.eps").read_bytes()


@pytest.mark.parametrize("fonts", [3, 42])
def test_in_a_file_of_several_pages_the_fonts_are_those_of_the_file(fonts: int, tmp_path: Path) -> None:
    with matplotlib.rc_context({"pdf.fonttype": fonts}), PdfPages(tmp_path / "x.pdf") as pages:
        pages.savefig(panel())
    assert (b"/Type3" in texts_of_pdf((tmp_path / "x.pdf").read_bytes())) == (fonts == 3)


def test_letters_without_a_sign_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    style.warn_of_missing("r\u00e9seau \u6b8b\u5dee \u6b8b $x_1$")
    assert [record.getMessage() for record in caplog.records] == [
        "the figure's font, DejaVu Sans, lacks \u6b8b \u5dee, drawn as boxes; the caption has them"
    ]


@pytest.mark.parametrize("label", ["costs $5", "$x$", r"a\$b", "\\", "50% #1 {a} ~^ $"])
def test_a_label_reads_in_a_caption_as_it_was_typed(label: str) -> None:
    assert style.plain(style.line_label(label, None)) == label


def test_lines_differ_without_colour() -> None:
    trained = [style.line_style("greedy", k) for k in (1, 2, 3, 4, 5)]
    for name in ("color", "marker", "linestyle"):
        assert all(a[name] != b[name] for a, b in itertools.combinations(trained, 2))


def test_untrained_is_grey_dashed_with_the_marker_of_its_k() -> None:
    for k in (1, 2, 3):
        sign = style.line_style("untrained", k)
        colours = {style.line_style(mode, k)["color"] for mode in ("greedy", "parallel", "end-to-end", "untrained")}
        assert len(colours) == 4
        assert (sign["color"], sign["linestyle"]) == (style.GREY, style.UNTRAINED_DASHES)
        assert sign["marker"] == style.line_style("greedy", k)["marker"]


def test_untrained_is_lighter_than_every_trained_line_in_print_without_colour() -> None:
    def lightness(colour: str) -> float:
        return float(np.dot(to_rgb(colour), [0.299, 0.587, 0.114]))

    assert all(lightness(style.GREY) > lightness(style.line_style("greedy", k)["color"]) for k in (1, 2, 3))


def test_networks_built_elsewhere_differ_from_each_other_and_from_those_trained_here() -> None:
    built = [style.line_style(f"net {place}", None, place) for place in range(4)]
    for name in ("color", "marker", "linestyle"):
        assert all(a[name] != b[name] for a, b in itertools.combinations(built, 2))
    greedy = [style.line_style("greedy", k) for k in (1, 2, 3)]
    markers = {sign["marker"] for sign in greedy}
    assert not markers & {sign["marker"] for sign in built}
    assert not {sign["color"] for sign in greedy} & {sign["color"] for sign in built[:3]}


def test_a_label_is_shown_as_it_is_typed() -> None:
    assert style.line_label("costs $5", None) == r"costs \$5"


def test_labels() -> None:
    assert style.line_label("greedy", 2) == "$k$ = 2"
    assert style.line_label("untrained", 2) == "$k$ = 2, untrained"
    assert style.line_label("extracted", None) == "extracted"


def test_greedy_training_is_named_only_beside_other_modes() -> None:
    assert style.line_label("greedy", 2) == "$k$ = 2"
    assert style.line_label("greedy", 2, alone=False) == "$k$ = 2, greedy"
    assert style.line_label("parallel", 2, alone=False) == "$k$ = 2, parallel"


# Machado, Oliveira and Fernandes 2009, severity 1: what is left of linear RGB.
SEEN_BY = {
    "normal": np.eye(3),
    "protanopes": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopes": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopes": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour: str, reader: str) -> np.ndarray:
    """Return L*, a*, b* (D65) of a colour as a reader sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = XYZ @ np.clip(SEEN_BY[reader] @ linear, 0, 1) / XYZ.sum(axis=1)
    x, y, z = (np.cbrt(part) if part > 216 / 24389 else (24389 / 27 * part + 16) / 116 for part in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def luminance(rgb: np.ndarray) -> float:
    return float(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """Return the contrast of two colours as WCAG 2 defines it, from 1 to 21."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


# CSS Filter Effects 1, hue-rotate by half a turn; what it makes of grey is the same grey.
TURNED = np.array([[-0.574, 1.430, 0.144], [0.426, 0.430, 0.144], [0.426, 1.430, -0.856]])


def on_dark(rgb: np.ndarray, inverted: float) -> np.ndarray:
    """Return what a page in the dark makes of a colour of a figure."""
    return np.clip(TURNED @ (inverted * (1 - rgb) + (1 - inverted) * rgb), 0, 1)


def test_every_line_stands_out_from_the_paper_and_from_a_page_in_the_dark() -> None:
    css = (Path(style.__file__).parents[1] / "page" / "templates" / "page.css").read_text()
    (inverted,) = re.findall(r"svg.figure \{ filter: invert\(([0-9.]+)\) hue-rotate\(180deg\)", css)
    paper = np.array(to_rgb(re.findall(r"--paper: (#\w+)", css)[1]))
    signs = [style.line_style(mode, k) for mode in MODES for k in range(1, 8)]
    signs += [style.line_style("net", None, place) for place in range(7)]
    signs += [sign for count in range(1, 14) for sign in style.ordered_styles(count)]
    for colour in {sign["color"] for sign in signs} | {sign["color"] for sign in style.BAND_MEANS}:
        rgb = np.array(to_rgb(colour))
        assert contrast(rgb, np.ones(3)) >= 3, colour
        assert contrast(on_dark(rgb, float(inverted)), paper) >= 3, colour


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast(np.ones(3), np.zeros(3)) == pytest.approx(21)
    assert contrast(np.array(to_rgb("#767676")), np.ones(3)) == pytest.approx(4.54, abs=0.01)
    np.testing.assert_allclose(on_dark(np.full(3, 0.2), 1.0), 0.8, atol=1e-9)


@pytest.mark.parametrize("reader", SEEN_BY)
def test_colours_used_together_are_far_apart_for_every_reader(reader: str) -> None:
    lines = [style.line_style("greedy", k)["color"] for k in range(1, 8)]
    assert set(lines) == {style.line_style("net", None, place)["color"] for place in range(7)}
    seen = [lab(colour, reader) for colour in (*lines, style.GREY, "black")]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) > 22


def test_lab_is_that_of_the_standard() -> None:
    assert lab("white", "normal") == pytest.approx([100, 0, 0], abs=0.01)
    assert lab("#FF0000", "normal") == pytest.approx([53.24, 80.09, 67.20], abs=0.05)


def test_a_legend_shows_two_periods_of_the_longest_dashes() -> None:
    signs = [style.line_style("greedy", k) for k in range(1, 7)] + [style.line_style("untrained", 1)]
    longest = max(sum(sign["linestyle"][1]) for sign in signs if sign["linestyle"] != "solid")
    with style.applied():
        font, width = matplotlib.rcParams["legend.fontsize"], matplotlib.rcParams["lines.linewidth"]
    assert style.HANDLE_LENGTH * font >= 2 * longest * width


def test_any_number_of_k_and_of_networks_built_elsewhere_has_a_sign_of_its_own() -> None:
    greedy = {(s["color"], s["marker"]) for s in (style.line_style("greedy", k) for k in range(1, 43))}
    elsewhere = {(s["color"], s["marker"]) for s in (style.line_style("net", None, place) for place in range(42))}
    assert len(greedy) == len(elsewhere) == style.MOST_LINES == 42
