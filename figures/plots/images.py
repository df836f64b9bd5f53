"""Shares of test images against depth: settled, learnt and lost, right, and as people say; and their caption."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.seeds import FLOOR
from analysis.tables import LIKE, file_names
from figures.kit import style
from figures.kit.measures import draw_panels
from figures.kit.panels import limits, round_ticks

# The measures of a panel, and its title; where there are two, the second has hollow marks.
PANELS = (
    (("settled",), "settled (% of images)"),
    (("learnt", "lost"), "\u25cf learnt, \u25cb lost (%)"),
    (("settled_accuracy",), "right in the end (%)"),
)
_RIGHT_HERE, _WITH_VOTES = (
    (("accuracy",), "right (%)"),
    (("accuracy", "votes"), "\u25cf right, \u25cb as people (%)"),
)
COUNT = len(PANELS) + 1
PROBES = {"knn": "kNN"}  # in a reader's words; others are called as the command calls them


def panels_of(table: pd.DataFrame) -> list[tuple[tuple[str, ...], str]]:
    """Return the panels of a table: votes are drawn beside accuracy where it has them."""
    return [*PANELS, _WITH_VOTES if (table["measure"] == "votes").any() else _RIGHT_HERE]


def draw(table: pd.DataFrame, size: str = "single", ax: Any = None) -> Figure:
    """Return the figure: a panel for each of `panels_of`, a line for each run and probe, against depth.

    Args:
        table: as `analysis.image_depths` returns it.
        size: "single" (85 mm wide, two panels in a row) or "double" (170 mm, all in one).
        ax: axes of a figure of the reader's, one for each panel.
    """
    lines = lines_of(table)
    styles = {words: style.line_style("", None, place) for place, (words, _) in enumerate(lines)}
    return draw_panels(
        panels_of(table), lambda axes, panel: _draw_panel(axes, panel, lines, styles), styles, ax, size=size
    )


def lines_of(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of each line and probe with its words: means over seeds where there are, else single runs.

    Runs of one name are called by their files, means of one name by their M.
    """
    means = table["run"] == ""
    like = table[LIKE].astype(str).agg("\n".join, axis=1)
    table = table.assign(line=table["run"].where(~means, like))[means | ~like.isin(set(like[means]))]
    names = table[["line", "run", "network", "width"]].drop_duplicates("line")
    files = file_names(names.loc[names["run"] != "", "run"])
    twice = set(names.loc[names["network"].duplicated(keep=False), "network"])
    found = []
    for (_, probe), rows in table.groupby(["line", "probe"], sort=False):
        run, network, width = rows.iloc[0][["run", "network", "width"]]
        apart = files[run] if run else f"{network}, M = {width:g}"
        words = [apart if network in twice else network] if len(names) > 1 else []
        words += [f"probe {PROBES.get(probe, probe)}"] if table["probe"].nunique() > 1 else []
        found.append((", ".join(words) or network, rows))
    return found


def _draw_panel(
    axes: Axes,
    panel: tuple[tuple[str, ...], str],
    lines: Sequence[tuple[str, pd.DataFrame]],
    styles: dict[str, dict[str, Any]],
) -> None:
    drawn = []
    for words, rows in lines:
        how = styles[words]
        for place, measure in enumerate(panel[0]):
            own = rows[(rows["measure"] == measure) & rows["value"].notna()].sort_values("depth")
            x = own["depth"].to_numpy(float)
            y, low, high = (100 * own[name].to_numpy(float) for name in ("value", "ci_low", "ci_high"))
            hollow: dict[str, Any] = {"markerfacecolor": "white"} if place else {}
            axes.plot(x, y, label=f"{words}, {measure}", zorder=2, **how, **hollow)
            axes.vlines(x, low, high, linewidth=0.8, zorder=1.5, color=how["color"])
            drawn += [low, high]
    axes.set_title(panel[1], loc="left", fontsize=style.LABEL_SIZE)
    axes.set_ylim(*limits(np.concatenate(drawn), 0.06, 1.0))
    axes.yaxis.set_major_locator(round_ticks(5))
    last = max(int(rows["depth"].max()) for _, rows in lines)
    axes.set_xlim(-0.5, last + 0.5)
    axes.xaxis.set_major_locator(round_ticks(6, integer=True))


def caption(table: pd.DataFrame) -> str:
    """Return the caption, one paragraph."""
    first, words = table.iloc[0], "; ".join(words for words, _ in lines_of(table))
    probes = ", ".join(PROBES.get(probe, probe) for probe in table["probe"].unique())
    n = int(table.loc[table["measure"] == "settled", "n"].iloc[0])
    half = (table["ci_high"] - table["ci_low"])[table["measure"].isin(["settled", "learnt", "lost", "votes"])].max() / 2
    told = [
        f"Single test images of {first['dataset']} ({n}) against depth: {words}.",
        f"Settled: images whose prediction depth is this or less, the first depth from which on the probe "
        f"({probes}) says what it says at its last depth, right or wrong (Baldock et al. 2021).",
        "Learnt: right here and wrong at the depth before; lost: the reverse.",
        "Right in the end: of the images with this prediction depth, those that the last depth is right about.",
    ]
    if (table["measure"] == "votes").any():
        people = table.loc[table["measure"] == "people", "value"].dropna()
        told.append(
            "As people: mean share of an image's votes for the predicted class"
            + (f"; two people agree on {100 * people.iloc[0]:.1f}%." if len(people) else ".")
        )
    if failed := sorted({str(run) for run in table.loc[table["failed"] != "", "run"]}):
        told.append(f"Shown, though training failed: {', '.join(failed)}.")
    if (counts := table.loc[table["run"] == "", "n_runs"]).any():
        many = " or ".join(map(str, sorted(set(counts))))
        told.append(f"Means of {many} networks that differ in their seed; their bars: 95% over seeds (t; {FLOOR}).")
    table = table[table["run"] != ""]
    told.append(f"Bars: 95% intervals over images, half as wide as {100 * half:.1f} points at most but for the third.")
    return " ".join(told) if math.isfinite(half) else " ".join(told[:-1])
