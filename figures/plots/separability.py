"""The separability figure: a panel for each probe, a line for each kind of network, the chance level."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from analysis.factors import panel_columns
from figures.kit import style
from figures.kit.axis import accuracy_axis, is_failed
from figures.kit.legend import figure_with_legend
from figures.kit.panels import round_ticks
from figures.plots.lines import lines
from figures.plots.panel import draw_panel, references
from layerwise.errors import UserError


def draw(curves: pd.DataFrame, size: str = "single", relative: bool = False) -> Figure:
    """Return the figure of accuracy (%) against depth.

    Args:
        curves: points as `analysis.separability.curves` returns them.
        size: "single" (85 mm wide, a column) or "double" (170 mm, a page).
        relative: whether depth is j / J, for networks of different depth.

    Raises:
        UserError: if depth is relative, and a table of results does not say J.
    """
    curves = curves.assign(x=_depths(curves, relative), failed=is_failed(curves))
    # One block, in the unit of the axis; of the deepest network.
    unit = 1 / float(curves["blocks"].max()) if relative else 1.0
    with style.applied():
        panels = [panel for _, panel in curves.groupby(panel_columns(curves["by"].iloc[0]), sort=False)]
        named = lines(curves)
        first, *_ = named
        group = sum(key[0] == first[0] for key in named)  # the k of one mode
        handles = [*(line.handle for line in named.values()), *references(panels)]
        figure, grid = figure_with_legend(size, len(panels), handles, group=group)
        axis = accuracy_axis(curves, grid.panel_height)
        for panel, (axes, row, column) in zip(panels, grid.panels(figure), strict=True):
            draw_panel(axes, panel, named, axis, unit)
            axes.xaxis.set_major_locator(round_ticks(5 if relative else 9, integer=not relative))
            axes.set_title(_title(panel, curves))
            first, last = curves["x"].min(), curves["x"].max()
            axes.set_xlim(first - 0.5 * unit, max(first + unit, last) + 0.5 * unit)
            x = f"{'relative depth $j/J$' if relative else 'depth $j$'}{' (0 = input)' if first == 0 else ''}"
            grid.label(axes, row, column, x, f"{curves['split'].iloc[0]} accuracy (%)")
        return figure


def _depths(curves: pd.DataFrame, relative: bool) -> pd.Series:
    if not relative:
        return curves["depth"].astype(float)
    if curves["blocks"].isna().any():
        raise UserError(
            "the results of an older version do not say how deep the networks are, so depth cannot be relative. "
            "Probe again with `probe-depth --force`, or leave out --relative."
        )
    return curves["depth"] / curves["blocks"].astype(float)


def _title(panel: pd.DataFrame, curves: pd.DataFrame) -> str:
    """Return "linear" or "CNN-1, width 64"; the pooling is named where panels differ in it alone."""
    first = panel.iloc[0]
    words = [{"linear-ovr": "linear (one-vs-rest)"}.get(first["probe"], first["probe"].replace("cnn-", "CNN-"))]
    if first["probe_width"]:
        words.append(f"width {first['probe_width']}")
    alike = curves[(curves["probe"] == first["probe"]) & (curves["probe_width"] == first["probe_width"])]
    if alike["pooling"].nunique() > panel["pooling"].nunique():
        words.append(f"{first['pooling']}x{first['pooling']}" if first["pooling"] else "whole maps")
    return ", ".join(words)
