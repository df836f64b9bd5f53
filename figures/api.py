"""The Python API of `figures`: the separability figure, as the command draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.factors import FACTORS
from analysis.separability import curves
from analysis.tables import read
from analysis.widths import against_width
from figures.output import SIZES
from figures.plots import caption, separability, widths
from figures.plots.lines import lines, restyled
from layerwise.errors import UsageError, option, unknown
from layerwise.runfile.given import Runs, paths_of
from layerwise.spoken import python_call

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from figures.output import Made

# Against it, and not against depth, accuracy is drawn by widths.py.
PROBE_WIDTH = "probe-width"


@python_call("separability-figure")
def draw(
    runs: Runs,
    probes: Sequence[str] | None = None,
    *,
    split: str | Sequence[str] = "test",
    refit: bool = True,
    by: str = "k",
    relative: bool = False,
    size: str = "single",
    xlabels: str = "depth",
    keep_failed: bool = False,
    labels: Mapping[str, str] | Sequence[str] | None = None,
    palette: Mapping[str, Any] | Sequence[Any] | str | None = None,
    ax: Axes | Sequence[Axes] | np.ndarray | None = None,
) -> Figure:
    """Return the figure of accuracy against depth, of the probe results beside the given run files.

    Args:
        runs: probed run files, by their paths or open.
        probes: names of probes, a panel each; None takes the fitted ones that every run has.
        split: train, validation or test, or a set of other images that probes were evaluated on; several by "split".
        refit: probes refitted on train + validation.
        by: what the lines of a panel stand for: "k" (and mode), "mode", "width" (M), "pool" (the pooling in front of
            linear probes), "seed" or "split" (the images scored). "probe-width" draws accuracy and teacher gap against
            the width of CNN probes.
        relative: whether depth is j / J, for networks of different depth.
        size: "single" (85 mm wide) or "double" (170 mm).
        xlabels: what stands on the axis: "depth", or "module", the layers' names.
        keep_failed: average networks that did not train with the others. They are named and left out otherwise, but for
            one that is alone in its line.
        labels: words for the lines, by their names in the caption ("k = 1", say), or one for each in the order of the
            legend.
        palette: colours likewise, or the name of a palette of seaborn or matplotlib.
        ax: axes of a figure of your own, one for each panel, as `plt.subplots(1, 2, layout="constrained")[1]`;
            they keep their size and type. Without a layout, a legend beside small axes may be cut off by savefig.

    Returns:
        A matplotlib figure; `figure.savefig("figure.pdf")` writes it, in its own style with TrueType letters, whatever
        the settings of matplotlib are by then. With `ax`, the figure of these axes, which is yours.

    Raises UserError where a run lacks what was asked for, or the runs cannot be compared.
    """
    own: dict[str, Any] = {
        "xlabels": xlabels,
        "labels": labels,
        "palette": palette,
        "ax": ax,
        "keep_failed": keep_failed,
    }
    return drawn(paths_of(runs), probes, split, refit, by, relative, size, **own)[0]


def drawn(
    runs: Sequence[Path],
    probes: Sequence[str] | None,
    split: str | Sequence[str],
    refit: bool,
    by: str,
    relative: bool,
    size: str,
    *,
    xlabels: str = "depth",
    keep_failed: bool = False,
    labels: Mapping[str, str] | Sequence[str] | None = None,
    palette: Mapping[str, Any] | Sequence[Any] | str | None = None,
    ax: Any = None,
) -> Made:
    """Return the figure of `draw`, its points and its caption."""
    if size not in SIZES:
        raise unknown("size", size, SIZES)
    if by not in (*FACTORS, PROBE_WIDTH):
        raise unknown("factor", by, (*FACTORS, PROBE_WIDTH))
    if by == PROBE_WIDTH:
        if relative:
            raise UsageError(f"against the width of a probe no depth is drawn. Leave out {option('relative', True)}.")
        own = {"labels": labels, "palette": palette, "ax": ax, "xlabels": None if xlabels == "depth" else xlabels}
        for name, value in own.items():
            if value is not None:
                raise UsageError(f"lines against the width of a probe are depths. Leave out {option(name)}.")
        if not isinstance(split, str):
            raise UsageError(f"found {len(split)} splits, but lines are depths. Give one {option('split')}.")
        points = against_width(read(runs), probes, split, refit, keep_failed)
        return widths.draw(points, size), points, widths.caption(points)
    points = curves(read(runs), probes, split, refit, by=by, keep_failed=keep_failed)
    named = restyled(lines(points), labels, palette)
    figure = separability.draw(points, size, relative, named=named, xlabels=xlabels, ax=ax)
    return figure, points, caption.caption(points, relative, named)
