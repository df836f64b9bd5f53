"""Owns the function of the Python API of `figures`: the separability figure, as the command draws it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from analysis.separability import curves
from analysis.tables import read
from figures.separability import draw as draw_curves


def draw(
    runs: Sequence[Path | str],
    probes: Sequence[str] | None = None,
    *,
    split: str = "test",
    refit: bool = True,
    size: str = "single",
) -> Figure:
    """Return the figure of accuracy against depth, of the probe results beside the given run files.

    Args:
        runs: paths of run files, each with its x.probes.csv.
        probes: names of probes, a panel each; None takes the fitted ones that every run has.
        split: train, validation or test. refit: probes refitted on train + validation.
        size: "single" (85 mm wide) or "double" (170 mm).

    Returns:
        A matplotlib figure; `figure.savefig("figure.pdf")` writes it.

    Raises UserError where a run lacks what was asked for, or the runs cannot be compared.
    """
    return draw_curves(curves(read([Path(run) for run in runs]), probes, split, refit), size)
