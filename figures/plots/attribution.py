"""The attribution figure: what architecture and training give at each depth, as bars."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.seeds import FLOOR
from figures.kit import style
from figures.kit.hover import tell
from figures.kit.legend import Handle, figure_with_legend
from figures.kit.panels import limits, round_ticks
from figures.kit.words import IMAGES_SHARE, certified, who_trained
from figures.kit.words import points as in_points
from figures.plots.caption import averaged_by_k

# A row of panels each: parts of one row share an axis, since those of the other may be ten times as large.
ROWS: dict[str, tuple[str, ...]] = {
    "gain by architecture (points)": ("pooling", "width", "relu"),
    "gain by training (points)": ("training", "left"),
}
LABELS = {
    "pooling": "pooling, receptive field (untrained, no relu)",
    "width": "width (untrained, no relu)",
    "relu": "relu (untrained)",
    "training": "greedy $-$ untrained",
    "left": "end-to-end $-$ greedy",
}
_PIXELS = "raw pixels $-$ pooled input"
# Told apart without colour too: light, dark, middle, and hatched.
_FILLS: dict[str, dict[str, Any]] = {
    "pooling": {"facecolor": "#D0D0D0", "edgecolor": "#606060"},
    "width": {"facecolor": "#0173B2", "edgecolor": "#0173B2"},
    "relu": {"facecolor": "white", "edgecolor": "#0173B2", "hatch": "...."},
    "training": {"facecolor": "#DE8F05", "edgecolor": "#DE8F05"},
    "left": {"facecolor": "white", "edgecolor": "#303030", "hatch": "//////"},
}
_GROUP, _MARGIN = 0.76, 0.08
_REFERENCE: dict[str, Any] = {"color": style.REFERENCE, "linewidth": 0.8, "linestyle": (0, (4, 2))}


def draw(points: pd.DataFrame, size: str = "single") -> Figure:
    """Return the figure: a column for each k; above, what the untrained network gives, below, what training does.

    Args:
        points: as `analysis.attribution.attribution` returns them.
        size: "single" (85 mm wide) or "double" (170 mm).
    """
    ks = sorted(set(points["k"]))
    rows = {label: parts for label, parts in ROWS.items() if set(parts) & set(points["part"])}
    with style.applied():
        handles: list[Handle] = [Patch(label=LABELS[part], linewidth=0.6, **_FILLS[part]) for part in _drawn(points)]
        if _has_pixels(points):
            handles.append(Line2D([], [], label=_PIXELS, **_REFERENCE))
        figure, grid = figure_with_legend(size, len(ks) * len(rows), handles, across=len(ks))
        for axes, row, column in grid.panels(figure):
            label, parts = list(rows.items())[row]
            own = points[points["part"].isin(parts)]
            _set_axes(axes, own)
            _draw_bars(axes, own[own["k"] == ks[column]], [part for part in parts if part in set(own["part"])])
            if "width" in parts and _has_pixels(points):
                axes.axhline(100 * own.loc[own["k"] == ks[column], "pixels"].iloc[0], zorder=2, **_REFERENCE)
            if row == 0:
                axes.set_title(f"$k$ = {ks[column]}")
            grid.label(axes, row, column, "depth $j$", label)
        return figure


def _drawn(points: pd.DataFrame) -> list[str]:
    return [part for part in LABELS if part in set(points["part"])]


def _has_pixels(points: pd.DataFrame) -> bool:
    """Say whether the raw pixels are drawn: beside what width gives, which adds up to no more than they hold."""
    return "width" in set(points["part"]) and bool(points["pixels"].notna().all())


def _set_axes(axes: Axes, points: pd.DataFrame) -> None:
    columns = ["value", "ci_low", "ci_high", *(["pixels"] if _has_pixels(points) else [])]
    values = 100 * points[columns].to_numpy(float)
    low, high = limits(np.append(values, 0.0), _MARGIN, 0.25)
    axes.set_ylim(low if np.nanmin(values) < 0 else 0.0, high)  # bars stand on the axis where none points down
    axes.set_xlim(points["depth"].min() - 0.5, points["depth"].max() + 0.5)
    axes.yaxis.set_major_locator(round_ticks(5))
    axes.xaxis.set_major_locator(round_ticks(9, integer=True))
    axes.axhline(0, color="black", linewidth=0.6, label="_zero", zorder=2)


def _draw_bars(axes: Axes, points: pd.DataFrame, parts: list[str]) -> None:
    for place, part in enumerate(parts):
        own = points[points["part"] == part]
        step = _GROUP / max(2, len(parts))
        x = own["depth"].to_numpy(float) + (place - (len(parts) - 1) / 2) * step
        fill = _FILLS[part]
        axes.bar(x, 100 * own["value"], width=0.9 * step, linewidth=0.6, zorder=1, label=part, **fill)
        name = style.plain(LABELS[part])
        said = [in_points(*numbers) for numbers in own[["value", "ci_low", "ci_high"]].to_numpy(float)]
        words = [f"{name}, depth {depth}: {one}" for depth, one in zip(own["depth"], said, strict=True)]
        tell(axes, part, x, 100 * own["value"], words)
        known = (own["interval"] != "").to_numpy()
        low, high = (100 * own[name].to_numpy()[known] for name in ("ci_low", "ci_high"))
        axes.vlines(x[known], low, high, color="black", linewidth=0.8, zorder=3)


def caption(points: pd.DataFrame) -> str:
    """Return the caption, one paragraph."""
    first = points.iloc[0]
    networks = averaged_by_k(points, "n_networks")
    bars = " and ".join(dict.fromkeys(interval for interval in points["interval"] if interval))
    said = {
        "pooling": "pooling, receptive field: untrained network without relu, its features, random linear functions of "
        "the image, projected to as many as the pooled input has, minus the pooled input",
        "width": "width: the same with all its features minus projected",
        "relu": "relu: untrained network minus the one without relu",
        "training": "greedy network minus untrained one",
        "left": "network trained end to end minus greedy one",
    }
    pixels = []
    if _has_pixels(points):
        pixels = ["Dashed: the raw pixels minus the pooled input; pooling and width together compare with it."]
    return " ".join(
        [
            f"What each depth j gives over the {first['pooling']}x{first['pooling']}-pooled input, in points of "
            f"{first['split']} accuracy of probe {first['probe']} on {first['dataset']} ({first['n_samples']:,} "
            "images).",
            "; ".join(said[part] for part in _drawn(points)).capitalize() + "; each within its seed, so that the parts "
            "add up to the gain over the input.",
            *pixels,
            f"{networks}, each M weighing the same.",
            *who_trained(points),
            *certified(points),
            f"Bars: {bars}." if bars else "No interval: no width has two seeds, and no outcomes of single images.",
            *([IMAGES_SHARE] if FLOOR in bars else []),
        ]
    )
