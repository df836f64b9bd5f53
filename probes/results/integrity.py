"""A digest in each row of the tables beside a run, so that no number is read that was not written.

The digest covers the row's values, not its text: a table that pandas saved again, in another order or with other line
ends, still holds, unless numbers lost digits or a text was taken for a number. It also covers how many rows its probe
has, so that a lost row is noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from layerwise.errors import UserError
from probes.results.columns import DIGEST, Column

# Numbers are written with so many digits. Readers that are off by a few units in the last place, as pandas by default
# is, then still find the number that was written: 14 digits leave 20 such units between neighbours.
DIGITS = 14


def sealed(table: pd.DataFrame, schema: Sequence[Column]) -> pd.DataFrame:
    """Return a table whose numbers have `DIGITS` digits, with the digest of each row as its last column."""
    table = table.copy(deep=False)
    for column in schema:
        if column.type == "number":
            table[column.name] = table[column.name].map(_shortened).astype("float64")
    return table.assign(**{DIGEST: digests(table, schema)})


def require_intact(table: pd.DataFrame, schema: Sequence[Column], path: Path) -> None:
    """Raise UserError, naming the row, where a table is not what was written; earlier versions wrote no digests."""
    named = {column.name for column in schema}
    # A column without a name is the index that pandas saved, or a comma at the end of each line.
    strange = [name for name in table if name not in named and name and not str(name).startswith("Unnamed: ")]
    cure = "Take an intact copy, or move it away, and run probe-depth again."
    if strange:
        raise UserError(
            f"{path} has the column {strange[0]!r}, which this version does not know: it was edited, damaged, or "
            f"written by a later version. {cure}"
        )
    if DIGEST not in table:
        return
    wrong = np.flatnonzero(table[DIGEST].fillna("").to_numpy() != digests(table, schema).to_numpy())
    if len(wrong):
        row = table.iloc[int(wrong[0])]
        about = ", ".join(f"{name} {row[name]}" for name in ("probe", "depth", "split", "metric") if name in row)
        raise UserError(
            f"{path} is not what probe-depth wrote: {len(wrong)} of {len(table)} rows differ from their digests, the "
            f"first in line {wrong[0] + 2} ({about}). {cure}"
        )


def digests(table: pd.DataFrame, schema: Sequence[Column]) -> pd.Series:
    """Return the digest of each row, a d and 16 hexadecimal digits."""
    # Those that the table has: one of an earlier version lacks later columns, and its digests do not cover them.
    columns = [column for column in schema if column.name != DIGEST and column.name in table]
    group = [column.name for column in columns if column.key == "probe" or column.name == "run_id"]
    cells = [_text(table[column.name], column.type) for column in columns]
    keys = list(zip(*(cells[i] for i, column in enumerate(columns) if column.name in group), strict=True))
    counts = pd.Series(keys, dtype=object).value_counts() if keys else {}
    rows = zip(*cells, strict=True)
    found = [_digest((*row, str(counts[key]))) for row, key in zip(rows, keys, strict=True)]
    return pd.Series(found, index=table.index, dtype=object)


def _digest(cells: tuple[str, ...]) -> str:
    # Begins with a letter, so that no program that reads the table takes it for a number.
    return "d" + hashlib.sha256("\x1f".join(cells).encode()).hexdigest()[:16]


def _text(column: pd.Series, kind: str) -> list[str]:
    """Return each value as a text that does not depend on how it was stored; missing ones are empty."""
    if kind == "number":
        return ["" if pd.isna(value) else f"{value:.{DIGITS}g}" for value in column]
    if kind == "integer":
        return ["" if pd.isna(value) else str(int(value)) for value in column]
    return ["" if pd.isna(value) else str(value) for value in column]


def _shortened(value: float) -> float:
    return np.nan if pd.isna(value) else float(f"{value:.{DIGITS}g}")
