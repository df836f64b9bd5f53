"""The table of the grid: what every setting reached on the validation fold, and which was chosen."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from figures import tables
from figures.file_set import write
from figures.kit.table import Table
from figures.kit.terminal import on_terminal
from figures.study.definition import INITIALISATION, RATE
from probes.csvfile import write_csv


def write_choices(folder: Path, rows: Sequence[dict[str, Any]]) -> str:
    """Write study/choices.csv and tables/choices.*; return the table as text, as wide as the terminal.

    rows: as `figures.study.grid.results` returns them.
    """
    found, table = pd.DataFrame(rows), choices_table(rows)
    (folder / "tables").mkdir(exist_ok=True)
    contents = {folder / "tables" / f"choices{suffix}": c for suffix, c in tables.rendered(found, table).items()}
    write({**contents, folder / "choices.csv": str(write_csv(found)).encode()}, force=True)
    return on_terminal(table, shutil.get_terminal_size().columns)


def choices_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the whole grid with its validation accuracies."""
    cells = [
        [
            *(str(row[name]) for name in ("mode", INITIALISATION)),
            *(str(row["k"]), f"{row[RATE]:g}"),
            *(["loss not finite", "-"] if row["validation_accuracy"] is None else _reached(row)),
            "chosen" if row["chosen"] else "",
        ]
        for row in rows
    ]
    return Table(
        head=["network", "initialisation", "k", "rate", "validation (%)", "log-loss", "choice"],
        rows=cells,
        caption="Settings tried for each mode and k: accuracy and log-loss (nats) of the network's own last classifier "
        f"on the validation fold, one network of M = {rows[0]['width']} each, with a seed that no other network has. "
        "The best accuracy is chosen, ties by log-loss. Of two values each, a better one may lie beyond.",
        text=2,
    )


def _reached(row: dict[str, Any]) -> list[str]:
    return [f"{100 * row['validation_accuracy']:.1f}", f"{row['validation_log_loss']:.3f}"]
