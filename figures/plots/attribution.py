"""The attribution figure: what architecture and training give at each depth, as bars."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from figures.kit import style
from figures.kit.legend import figure_with_legend
from figures.kit.panels import limits, round_ticks
from figures.plots.caption import averaged_by_k

# A row of panels each: parts of one row share an axis, since those of the other may be ten times as large.
ROWS: dict[str, tuple[str, ...]] = {
    "gain by architecture (points)": ("pooling", "width"),
    "gain by training (points)": ("training", "left"),
}
LABELS = {
    "pooling": "pooling, receptive field (untrained)",
    "width": "width (untrained)",
    "training": "greedy $-$ untrained",
    "left": "end-to-end $-$ greedy",
}
# Told apart without colour too: light, dark, middle, and hatched.
_FILLS: dict[str, dict[str, Any]] = {
    "pooling": {"facecolor": "#D0D0D0", "edgecolor": "#606060"},
    "width": {"facecolor": "#0173B2", "edgecolor": "#0173B2"},
    "training": {"facecolor": "#DE8F05", "edgecolor": "#DE8F05"},
    "left": {"facecolor": "white", "edgecolor": "#303030", "hatch": "//////"},
}
_WIDTH, _MARGIN = 0.36, 0.08


def draw(points: pd.DataFrame, size: str = "single") -> Figure:
    """Return the figure: a column for each k; above, what the untrained network gives, below, what training does.

    Args:
        points: as `analysis.attribution.attribution` returns them.
        size: "single" (85 mm wide) or "double" (170 mm).
    """
    ks = sorted(set(points["k"]))
    rows = {label: parts for label, parts in ROWS.items() if set(parts) & set(points["part"])}
    with style.applied():
        handles = [Patch(label=LABELS[part], linewidth=0.6, **_FILLS[part]) for part in _drawn(points)]
        figure, grid = figure_with_legend(size, len(ks) * len(rows), handles, across=len(ks))
        for axes, row, column in grid.panels(figure):
            label, parts = list(rows.items())[row]
            own = points[points["part"].isin(parts)]
            _set_axes(axes, own)
            _draw_bars(axes, own[own["k"] == ks[column]], [part for part in parts if part in set(own["part"])])
            if row == 0:
                axes.set_title(f"$k$ = {ks[column]}")
            grid.label(axes, row, column, "depth $j$", label)
        return figure


def _drawn(points: pd.DataFrame) -> list[str]:
    return [part for part in LABELS if part in set(points["part"])]


def _set_axes(axes: Axes, points: pd.DataFrame) -> None:
    values = 100 * points[["value", "ci_low", "ci_high"]].to_numpy(float)
    low, high = limits(np.append(values, 0.0), _MARGIN, 0.25)
    axes.set_ylim(low if np.nanmin(values) < 0 else 0.0, high)  # bars stand on the axis where none points down
    axes.set_xlim(points["depth"].min() - 0.5, points["depth"].max() + 0.5)
    axes.yaxis.set_major_locator(round_ticks(5))
    axes.xaxis.set_major_locator(round_ticks(9, integer=True))
    axes.axhline(0, color="black", linewidth=0.6, label="_zero", zorder=2)


def _draw_bars(axes: Axes, points: pd.DataFrame, parts: list[str]) -> None:
    for place, part in enumerate(parts):
        own = points[points["part"] == part]
        x = own["depth"].to_numpy(float) + (place - (len(parts) - 1) / 2) * _WIDTH
        fill = _FILLS[part]
        axes.bar(x, 100 * own["value"], width=0.9 * _WIDTH, linewidth=0.6, zorder=1, label=part, **fill)
        known = (own["interval"] != "").to_numpy()
        low, high = (100 * own[name].to_numpy()[known] for name in ("ci_low", "ci_high"))
        axes.vlines(x[known], low, high, color="black", linewidth=0.8, zorder=3)


def caption(points: pd.DataFrame) -> str:
    """Return the caption, one paragraph."""
    first = points.iloc[0]
    networks = averaged_by_k(points, "n_networks")
    bars = " and ".join(dict.fromkeys(interval for interval in points["interval"] if interval))
    said = {
        "pooling": "pooling, receptive field: untrained network, its features projected to as many as the pooled input "
        "has, minus the pooled input",
        "width": "width: untrained network minus the same, projected",
        "training": "greedy network minus untrained one",
        "left": "network trained end to end minus greedy one",
    }
    return " ".join(
        [
            f"What each depth j gives over the {first['pooling']}x{first['pooling']}-pooled input, in points of "
            f"{first['split']} accuracy of probe {first['probe']} on {first['dataset']} ({first['n_samples']} images).",
            "; ".join(said[part] for part in _drawn(points)).capitalize() + "; each within its seed, so that the parts "
            "add up to the gain over the input.",
            f"{networks}, each M weighing the same.",
            f"Bars: {bars}." if bars else "No interval: no width has two seeds, and no outcomes of single images.",
        ]
    )
