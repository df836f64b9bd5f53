"""A figure inside a page: points that speak stand on their markers, ids are its own, labels are no markup."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from figures.kit import style
from figures.kit.hover import spots, tell
from figures.kit.inline import inline


def drawn() -> Figure:
    with style.applied():
        figure = style.new_figure(85.0, 40.0)
        for left, name in ((0.1, "<b> & "), (0.6, "")):
            axes = figure.add_axes((left, 0.2, 0.35, 0.7))
            axes.plot([1, 2, 0], [0.3, 0.6, 0.5], marker="o", linestyle="none")
            axes.set_title(f"{name}-->")
            tell(axes, "one", [1, 2, 0], [0.3, 0.6, 0.5], [f"{name}{number}" for number in "120"])
            tell(axes, "below", [1], [0.1], ["under"], axes.get_xaxis_transform())
        axes.imshow([[[255, 0, 0]]], extent=(0, 1, 0, 1), aspect="auto")
        return figure


def test_points_stand_on_their_markers_in_the_order_of_their_lines() -> None:
    root = ElementTree.fromstring(inline(drawn(), "first", "Two <panels>."))
    marks = [mark for mark in root.iter("circle") if mark.get("data-line", "").endswith("one")]
    markers = [use for use in root.iter("use") if use.get("href", "").startswith("#first-m") and "x" in use.attrib]
    found = [(float(mark.get("cx", "")), float(mark.get("cy", ""))) for mark in marks]
    places = [(float(use.get("x", "")), float(use.get("y", ""))) for use in markers]
    places = [place for place in places if any(abs(place[0] - x) < 0.1 and abs(place[1] - y) < 0.1 for x, y in found)]
    assert len(found) == 6 and sorted(found) == [pytest.approx(place, abs=0.01) for place in sorted(places)]
    assert [mark.findtext("title") for mark in marks] == ["<b> & 0", "<b> & 1", "<b> & 2", "0", "1", "2"]
    assert [spot.line for spot in spots(drawn())] == ["one"] * 3 + ["below"] + ["one"] * 3 + ["below"]
    (under, _) = [spot for spot in spots(drawn()) if spot.line == "below"]
    assert under.y == pytest.approx((40 - 40 * (0.2 + 0.07)) / style.MM_PER_INCH * 72, abs=0.01)


def test_an_element_of_a_page_has_ids_of_its_own_and_asks_for_nothing() -> None:
    text = inline(drawn(), "first", "Two <panels>.")
    root = ElementTree.fromstring(text)
    assert (root.tag, root.get("aria-label"), "width" in root.attrib) == ("svg", "Two <panels>.", False)
    ids = [element.get("id", "first-") for element in root.iter()]
    assert all(one.startswith("first-") for one in ids)
    links = [element.get("href", "#first-") for element in root.iter()]
    assert all(one.startswith(("#first-", "data:image/png;base64,")) for one in links) and not any(
        " " in one for one in links
    )
    assert {one[1:] for one in links if one[0] == "#"} - {"first-"} <= set(ids)
    assert "http" not in text and "<style" not in text and "metadata" not in text and "ffffff" not in text
    assert inline(drawn(), "first", "Two <panels>.") == text


def test_a_figure_is_the_same_with_words_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    with_words = style.rendered(drawn())
    monkeypatch.setattr("tests.test_figures_kit_inline.tell", lambda *_: None)
    assert style.rendered(drawn()) == with_words
