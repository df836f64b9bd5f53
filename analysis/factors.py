"""Factors: what the lines of a panel stand for, mode, k, M, pooling, seed or split, and which others are averaged.

Of the factors mode, k, M and pooling one is shown as lines; the other fixed factors of the networks, k and M (with the
auxiliary width), are averaged by cells that weigh the same. The seed is the repetition; as lines, it repeats nothing.
Lines may also be the images scored: the test split, and sets of other images shown to the same probes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pandas as pd

from analysis.tables import NETWORK, PANEL
from layerwise.config import MODES
from layerwise.errors import UsageError, UserError, unknown
from probes.names import LINEAR, POOLED

log = logging.getLogger("layerwise.analysis")

# What tells the lines of a panel apart. Modes are never averaged: where they are not the lines, they stand beside.
_LINES = {
    "k": ["mode", "k"],
    "mode": ["mode"],
    "width": ["mode", "width"],
    "pool": ["mode", "pooling"],
    "seed": ["mode", "seed"],
    "split": ["mode", "split"],
}
FACTORS = tuple(_LINES)
_OF_ONE_MODE = ("width", "pool", "seed", "split")
# What tells the cells of a line apart: the fixed factors.
CELL = ["k", *NETWORK[:2]]


def apart_by_variant(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows in which networks of other variants are of another mode, "VGG-11" or "VGG-11, untrained".

    So they stand as lines of their own beside plain ones. Rows of one variant alone are as they were.
    """
    if rows["variant"].nunique() < 2:
        return rows
    named = rows["variant"] + rows["mode"].map(lambda mode: "" if mode == "greedy" else f", {mode}")
    return rows.assign(mode=rows["mode"].where(rows["variant"] == "", named))


def line_columns(by: str) -> list[str]:
    """Return the columns that tell the lines of a panel apart; raise UsageError for a factor that there is not."""
    if by not in _LINES:
        raise unknown("factor", by, FACTORS)
    return _LINES[by]


def network_columns(by: str) -> list[str]:
    """Return those of the columns of lines that tell networks apart: a pooling is of the probe, a split of the data."""
    return [column for column in line_columns(by) if column not in (*PANEL, "split")]


def panel_columns(by: str) -> list[str]:
    """Return the columns that tell the panels apart."""
    return [column for column in PANEL if column not in line_columns(by)]


def probes_with_lines(rows: pd.DataFrame, probes: Sequence[str] | None, by: str) -> Sequence[str] | None:
    """Return the probes that have such lines: all, but only those of pooled activations have poolings.

    Raises:
        UserError: if no probe was fitted with several poolings to every run. UsageError: if one was asked for that
            reads no pooled activations.
    """
    if by != "pool":
        return probes
    for probe in probes or ():
        if probe not in POOLED:
            raise UsageError(f"probe {probe} reads no pooled activations; by pool, give {', '.join(POOLED)}.")
    own = rows[rows["probe"].isin(probes or POOLED) & (rows["pooling"] > 0)]
    runs = rows["run"].nunique()
    shared = own.groupby(["probe", "pooling"])["run"].nunique().eq(runs).groupby("probe").sum()
    found = [str(probe) for probe, poolings in shared.items() if poolings > 1]
    if not found:
        first = rows["run"].iloc[0]
        raise UserError(
            "no probe was fitted to every run with several poolings. "
            f"`probe-depth {first} --probe {(probes or LINEAR)[0]} --pool 1,2,4` makes the rows."
        )
    return probes or found


def check_lines(networks: pd.DataFrame, by: str) -> None:
    """Raise UserError if modes would be averaged; warn where the lines of networks trained here average others.

    Args:
        networks: rows of the networks drawn, with mode, k, width and seed.
    """
    modes = list(dict.fromkeys(networks["mode"]))
    if by in _OF_ONE_MODE and len(modes) > 1:
        raise UserError(
            f"the runs are of {len(modes)} modes ({', '.join(modes)}), which are never averaged. By {by}, give the "
            "runs of one mode."
        )
    averages: dict[str, str] = {}
    built_here = networks[networks["mode"].isin(MODES)]
    for key, line in built_here.groupby(line_columns(by), dropna=False, sort=False):
        averages.setdefault(_averaged(line, by), line_name(key, by))
    if len(averages) > 1:
        (some, one), (others, other), *_ = averages.items()
        log.warning(
            "%s is of %s and %s of %s, so a difference between them need not be due to %s.",
            one,
            some,
            other,
            others,
            "mode or k" if by == "k" else by,
        )


def line_name(key: Sequence[object], by: str) -> str:
    """Return the words for a line in a message, such as "greedy, k = 1"."""
    pairs = zip(line_columns(by), key, strict=True)
    return ", ".join(str(value) if column == "mode" else f"{column} = {value}" for column, value in pairs)


def _averaged(line: pd.DataFrame, by: str) -> str:
    """Return "k = 1, 2, M = 64": the cells of a line, but for what is the same for all of it."""
    names = {"k": "k", "width": "M"}
    shown = [column for column in names if column not in line_columns(by)]
    cells = sorted({tuple(cell) for cell in line[shown].dropna().itertuples(index=False)})
    if len(shown) == 1:
        return f"{names[shown[0]]} = {', '.join(str(cell[0]) for cell in cells)}"
    return f"({', '.join(names[column] for column in shown)}) = {', '.join(f'({a}, {b})' for a, b in cells)}"
