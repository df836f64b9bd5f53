"""Exact sizes, embedded fonts, equal bytes, signs apart without colour."""

from __future__ import annotations

import itertools
import re
import time

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from figures.kit import style


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
