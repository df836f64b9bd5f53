"""The page as its template takes it: a heading, first sentences, and sections of figures, words and tables."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from analysis.tables import file_names
from figures.images import NoPictures, atlas_made
from figures.kit.inline import inline
from figures.kit.table import Table
from figures.kit.words import certified, first_sentence
from figures.output import SIZES
from figures.page import numbers, summary
from figures.page.given import Given
from figures.page.origins import origins
from figures.plots.atlas import ROWS
from figures.study.report import Drawing
from layerwise.errors import UserError
from probes.results.predictions import predictions_path

log = logging.getLogger("layerwise.figures")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A figure as SVG, for a wide screen and for a narrow one; the first sentence of its caption, and the rest.

    narrow: empty where the wide one serves both.
    """

    wide: str
    narrow: str
    caption: str
    more: str

    @property
    def says_numbers(self) -> bool:
        return "<circle" in self.wide


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page.

    said: sentences. facts: pairs of words. tables: each with whether it is folded away.
    """

    id: str
    title: str
    figures: Sequence[Shown] = ()
    said: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[tuple[Table, bool]] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """What stands on the page. lacking: what is not there yet. lines: of the figure. remarks: said in the making."""

    title: str
    name: str
    lead: Sequence[str]
    lines: Table
    tests: Sequence[str]
    lacking: Sequence[str]
    sections: Sequence[Section]
    remarks: Sequence[str] = ()


def page_of(given: Given) -> Page:
    """Return the page of a study or of run files."""
    points, _, _ = given.drawings["separability"]
    contrasts = given.tables.get("contrasts")
    return Page(
        title=f"Separability of {points['dataset'].iloc[0]} by depth",
        name=given.name,
        lead=summary.lead(points, given.fold),
        lines=summary.of_lines(points, given.fold),
        tests=[] if contrasts is None else summary.of_tests(contrasts[0], points["probe"].iloc[0]),
        lacking=given.lacking,
        sections=list(_sections(given)),
    )


def _sections(given: Given) -> Iterator[Section]:
    drawn = given.drawings
    main = [name for name in drawn if name.startswith("separability")]
    yield Section(
        id="accuracy",
        title="Accuracy against depth",
        figures=[_both(name, *_drawing(drawn[name])) for name in main],
        tables=[(given.tables["accuracy"][1], False)] if "accuracy" in given.tables else [],
    )
    shown = [
        what for what in ("contrasts", "trends") if what in given.tables and given.tables[what][0]["p"].notna().any()
    ]
    if shown:
        yield Section(
            id="tests", title="What differs, and what rises", tables=[(given.tables[one][1], False) for one in shown]
        )
    if "attribution" in drawn:
        tables = [(numbers.parts(drawn["attribution"][0]), True)]
        yield Section(
            id="attribution",
            title="Where the gain comes from",
            figures=[_both("attribution", *_drawing(drawn["attribution"]))],
            tables=tables,
        )
    for name in (name for name in drawn if name.startswith("training")):
        mode = drawn[name][0]["mode"].iloc[0]
        yield Section(
            id=name,
            title=f"Training, {mode}",
            figures=[_both(name, *_drawing(drawn[name]))],
            tables=[(numbers.last_epochs(drawn[name][0]), True)],
        )
    yield from _atlas(given.paths)
    yield Section(
        id="choices",
        title="What was chosen, and on what",
        said=[*given.said, *certified(given.rows)],
        tables=[*([(given.choices, False)] if given.choices else []), (numbers.fits(given.rows), True)],
    )
    yield Section(id="networks", title="Each network", tables=[(numbers.networks(given.rows), True)])
    found = origins(given.paths)
    asked = [("asked for", given.settings)] if given.settings else []
    yield Section(id="origins", title="Origins", facts=[*found.facts, *asked], tables=[(found.runs, True)])


Draw = Callable[[str], Figure]


def _drawing(drawing: Drawing) -> tuple[Draw, str]:
    points, draw, caption = drawing
    return lambda size: draw(points, size), caption


def _both(name: str, draw: Draw, caption: str) -> Shown:
    """Return a figure as a page shows it: as wide as a paper's page, and, for a phone, as its column."""
    first, more = first_sentence(caption)
    wide, narrow = (
        inline(draw(size), f"{name}-{words}", first) for size, words in (("double", "wide"), ("single", "narrow"))
    )
    return Shown(wide=wide, narrow=narrow, caption=first, more=more)


def _atlas(paths: Sequence[Path]) -> Iterator[Section]:
    """Yield the atlas of the first run that holds pictures and predictions of single images."""
    for path in (path for path in paths if predictions_path(path).exists()):
        try:
            made = {size: atlas_made(path, None, 2, ROWS, 0, size) for size in SIZES}
        except NoPictures:
            continue
        except UserError as error:
            log.warning("the atlas is left out: %s", error)
            return
        figures = {size: figure for size, (figure, _, _) in made.items()}
        shown = _both("atlas", figures.__getitem__, f"{file_names(map(str, paths))[str(path)]}: {made['double'][2]}")
        yield Section(id="atlas", title="Single images", figures=[shown])
        return
