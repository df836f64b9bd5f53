"""The page as HTML: one text that asks for nothing else, the same for the same page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any

import jinja2

from figures.kit.table import Table
from figures.page.sections import Page
from layerwise import __version__

# "94.7 [93.7, 95.7]", "< 0.001", "4 of 5", and what stands where there is no number.
_NUMBER = re.compile(r"[\[<]?\s?[+-]?\d+(\.\d+)?(e[+-]?\d+)?%?([ ,].*)?|-|")


def html(page: Page) -> str:
    """Return the text of a page.

    Everything in it is escaped but our own style and script, and the figures, whose text ElementTree has escaped. The
    browser is told to run this script alone and to fetch nothing.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("figures.page", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["glued"] = _glued
    style, script = (_source(environment, name) for name in ("page.css", "page.js"))
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    given: dict[str, Any] = {"page": page, "style": style, "script": script, "script_sha256": own}
    return environment.get_template("page.html").render(**given, numeric=numeric, version=__version__)


def _source(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def numeric(table: Table) -> Sequence[bool]:
    """Return which columns hold numbers, by which they are sorted and set right."""
    columns = [[row[place] for row in table.rows] for place in range(len(table.head))]
    return [any(cells) and all(_NUMBER.fullmatch(cell) for cell in cells) for cells in columns]


def _glued(cell: str) -> str:
    """Return a cell in which "k = 1" is not broken over two lines."""
    return cell.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
