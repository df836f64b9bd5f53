"""The Python API of `figures`: the separability figure, as the command draws it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.factors import FACTORS
from analysis.separability import curves
from analysis.tables import read
from analysis.widths import against_width
from figures.plots import caption, separability, widths
from layerwise.errors import UsageError, unknown
from layerwise.runfile.given import Runs, paths_of
from layerwise.spoken import python_call

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from figures.output import Made

# Against it, and not against depth, accuracy is drawn by widths.py.
PROBE_WIDTH = "probe-width"


@python_call("separability-figure")
def draw(
    runs: Runs,
    probes: Sequence[str] | None = None,
    *,
    split: str = "test",
    refit: bool = True,
    by: str = "k",
    relative: bool = False,
    size: str = "single",
) -> Figure:
    """Return the figure of accuracy against depth, of the probe results beside the given run files.

    Args:
        runs: probed run files, by their paths or open.
        probes: names of probes, a panel each; None takes the fitted ones that every run has.
        split: train, validation or test. refit: probes refitted on train + validation.
        by: what the lines of a panel stand for: "k" (and mode), "mode", "width" (M), "pool" (the pooling in front of
            linear probes) or "seed". "probe-width" draws accuracy and teacher gap against the width of CNN probes.
        relative: whether depth is j / J, for networks of different depth.
        size: "single" (85 mm wide) or "double" (170 mm).

    Returns:
        A matplotlib figure; `figure.savefig("figure.pdf")` writes it.

    Raises UserError where a run lacks what was asked for, or the runs cannot be compared.
    """
    return drawn(paths_of(runs), probes, split, refit, by, relative, size)[0]


def drawn(
    runs: Sequence[Path], probes: Sequence[str] | None, split: str, refit: bool, by: str, relative: bool, size: str
) -> Made:
    """Return the figure of `draw`, its points and its caption."""
    if by not in (*FACTORS, PROBE_WIDTH):
        raise unknown("factor", by, (*FACTORS, PROBE_WIDTH))
    if by == PROBE_WIDTH:
        if relative:
            raise UsageError("against the width of a probe no depth is drawn. Leave out --relative.")
        points = against_width(read(runs), probes, split, refit)
        return widths.draw(points, size), points, widths.caption(points)
    points = curves(read(runs), probes, split, refit, by=by)
    return separability.draw(points, size, relative), points, caption.caption(points, relative)
