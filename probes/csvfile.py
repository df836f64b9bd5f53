"""CSV that says the same to pandas, to a spreadsheet and to a reader of the text.

Words that pandas takes for missing values (NA, None, null) are text in columns of text, where only an empty cell is
missing. A cell of text that a spreadsheet would run as a formula, since it begins with =, +, -, @, a tab or a carriage
return, stands in the file with an apostrophe before it, as spreadsheets mark text; read here, it is what it was.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

# A text that has the apostrophe already gets one more, so that none is taken away which was there before.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
# What other programs write for a number that is missing.
_NO_NUMBER = ("", "NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "None", "NULL", "null")


def read_csv(path: Path, types: Mapping[str, str]) -> pd.DataFrame:
    """Return a table from its file; columns of type "str" are text as it stands, others are read as pandas likes.

    Raises what pandas.read_csv raises.
    """
    columns = pd.read_csv(path, nrows=0).columns
    missing = {name: [""] if types.get(name) == "str" else list(_NO_NUMBER) for name in columns}
    table = pd.read_csv(path, dtype=dict(types), keep_default_na=False, na_values=missing)
    for name in columns:
        if types.get(name) == "str":
            marked = {text: text[1:] for text in _texts(table[name]) if text[0] == "'" and _FORMULA.match(text)}
            table[name] = _replaced(table[name], marked)
    return table


def write_csv(table: pd.DataFrame, path: Path | None = None) -> str | None:
    """Write a table to its file, or return it as text."""
    table = table.copy(deep=False)
    has_return = False
    for name in table:
        texts = _texts(table[name])
        marked = {text: f"'{text}" for text in texts if _FORMULA.match(text) and not _is_number(text)}
        table[name] = _replaced(table[name], marked)
        has_return |= any("\r" in text for text in texts)
    # csv leaves a carriage return bare, and readers take it for the end of a row.
    quoting = csv.QUOTE_NONNUMERIC if has_return else csv.QUOTE_MINIMAL
    return table.to_csv(path, index=False, lineterminator="\n", quoting=quoting)


def _texts(column: pd.Series) -> set[str]:
    """Return the different cells that are text and not empty; columns have few."""
    return {cell for cell in column.unique() if isinstance(cell, str) and cell}


def _replaced(column: pd.Series, texts: Mapping[str, str]) -> pd.Series:
    return column.map(lambda cell: texts.get(cell, cell)) if texts else column


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
