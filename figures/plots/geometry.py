"""Measures of each depth as curves, and their caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from analysis.geometry.measures import ACCURACY, CODELENGTH, DECODING, MEASURES
from analysis.geometry.table import lines_of
from analysis.seeds import SEEDS
from figures.kit import style
from figures.kit.measures import draw_panels
from figures.kit.panels import limits, round_ticks
from figures.kit.words import who_trained

# Measures that are read together share a panel.
PANELS = (
    ("effective_rank", "participation_ratio"),
    ("twonn", "mle"),
    ("zeros", "hoyer", "dead"),
    ("nc1", "cdnv"),
    ("nc2_norms", "nc2_angles", "nc3"),
    ("nc4", "ncm_error"),
    ("fisher_ratio",),
    ("margin",),
)
# Ratios without an upper end, which change by powers of ten from depth to depth.
_LOGARITHMIC = {"effective_rank", "participation_ratio", "nc1", "cdnv", "fisher_ratio"}
_SIGNS = ("\u25cf", "\u25cb", "\u25b3")
_STYLES: tuple[dict[str, Any], ...] = (
    {"marker": "o", "linestyle": "solid"},
    {"marker": "o", "linestyle": (0, (4, 1.5)), "markerfacecolor": "white"},
    {"marker": "^", "linestyle": (0, (1, 1)), "markerfacecolor": "white"},
)
_MARGIN = 0.06


def draw(
    table: pd.DataFrame,
    size: str = "single",
    panels: Sequence[Sequence[str]] = PANELS,
    ax: Any = None,
    across: int | None = None,
) -> Figure:
    """Return the figure: a panel for each group of measures, a line for each network, against depth.

    Args:
        table: as `analysis.depth_geometry` returns it.
        size: "single" (85 mm wide, two panels in a row) or "double" (170 mm, four).
        panels: names of measures, those of one panel together.
        ax: axes of a figure of the reader's, one for each panel. across: panels in a row, where not the usual number.
    """
    lines = list(lines_of(table))
    styles = _line_styles(lines)
    return draw_panels(
        panels,
        lambda axes, panel: _draw_panel(axes, panel, lines, styles),
        styles,
        ax,
        size=size,
        across=across,
        title_lines=[len(panel) for panel in panels],
    )


def _line_styles(lines: Sequence[tuple[str, pd.DataFrame]]) -> dict[str, dict[str, Any]]:
    """Return the colour of each line, by its words; two of one mode and k, which would share it, get others."""
    found: dict[str, dict[str, Any]] = {}
    for place, (words, rows) in enumerate(lines):
        mode, k = rows["mode"].iloc[0], rows["k"].iloc[0]
        first = style.line_style(mode, None if pd.isna(k) else int(k), place)["color"]
        taken = [one["color"] for one in found.values()]
        others = (style.line_style("", None, other)["color"] for other in range(style.MOST_LINES))
        found[words] = {"color": next((one for one in (first, *others) if one not in taken), first)}
    return found


def _draw_panel(
    axes: Axes, panel: Sequence[str], lines: Sequence[tuple[str, pd.DataFrame]], styles: dict[str, dict[str, Any]]
) -> None:
    every = pd.concat([rows for _, rows in lines])
    is_log = set(panel) <= _LOGARITHMIC and _is_wide(every.loc[every["measure"].isin(panel), "value"])
    drawn = []
    for number, measure in enumerate(panel):
        for words, rows in lines:
            own = rows[(rows["measure"] == measure) & rows["value"].notna()].sort_values("depth")
            x = own["depth"].to_numpy(float)
            y, low, high = (_scale(measure) * own[name].to_numpy(float) for name in ("value", "ci_low", "ci_high"))
            axes.plot(x, y, label=f"{words}, {measure}", zorder=2, **styles[words], **_STYLES[number])
            known = np.isfinite(low)
            # An end at 0 stands below every logarithmic axis: a bar that goes on to its edge.
            low = np.maximum(low, 1e-300) if is_log else low
            axes.vlines(x[known], low[known], high[known], linewidth=0.8, zorder=1.5, **styles[words])
            drawn.append(np.column_stack([y, np.where(known, low, y), np.where(known, high, y)]))
    signs = [f"{_SIGNS[number]} " if len(panel) > 1 else "" for number in range(len(panel))]
    named = [_words(one, every) for one in panel]
    title = "\n".join(map("".join, zip(signs, named, strict=True)))
    axes.set_title(title, loc="left", fontsize=style.LABEL_SIZE)
    _set_axes(axes, np.concatenate(drawn), is_log)
    depths = sorted({int(depth) for _, rows in lines for depth in rows["depth"]})
    axes.set_xlim(depths[0] - 0.5, depths[-1] + 0.5)
    ticks = round_ticks(6, integer=True)
    ticks.set_params(min_n_ticks=1)
    axes.xaxis.set_major_locator(ticks)


def _words(measure: str, table: pd.DataFrame) -> str:
    if measure == ACCURACY:
        return f"accuracy of probe {table['probe'].dropna().iloc[0]} (%)"
    return (MEASURES | DECODING)[measure].words


def _scale(measure: str) -> float:
    """Return by what a measure is multiplied: accuracies are drawn in percent, as everywhere."""
    return 100.0 if measure == ACCURACY else 1.0


def _is_wide(values: pd.Series) -> bool:
    """Return whether only a logarithmic axis shows all values: positive ones, the largest 20 times the least."""
    return bool(values.min() > 0 and values.max() > 20 * values.min())


def _set_axes(axes: Axes, drawn: np.ndarray, is_log: bool) -> None:
    """Set the limits of an axis that shows every value, and every interval that does not squeeze these."""
    if not len(drawn):
        axes.set_yticks([])
        axes.text(0.5, 0.5, "missing at every depth", transform=axes.transAxes, ha="center", va="center")
        return
    if is_log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
        least, most = drawn[:, 0].min(), drawn[:, 0].max()
        ends = np.clip(drawn, least / 3, most * 3)
        low, high = limits(np.log10(ends), _MARGIN, 0.05)
        axes.set_ylim(10**low, 10**high)
        return
    low, high = limits(drawn, _MARGIN, 1e-3)
    # From just below 0, so that a marker there is whole, where the values come near it.
    axes.set_ylim(-_MARGIN * high if 0 <= drawn.min() < 0.2 * drawn.max() else low, high)
    axes.yaxis.set_major_locator(round_ticks(5))


def caption(table: pd.DataFrame, panels: Sequence[Sequence[str]] = PANELS) -> str:
    """Return the caption, one paragraph."""
    table = table[table["measure"].isin([measure for panel in panels for measure in panel])]
    first, lines = table.iloc[0], list(lines_of(table))
    measured = int(table.loc[table["measure"] != CODELENGTH, "n"].max())
    seeds = sorted({int(n) for n in table.loc[table["interval"] == SEEDS, "n_runs"]})
    pooled = "not averaged" if first["pooling"] == "none" else f"{first['pooling']}-pooled"
    missing = [
        f"{(MEASURES | DECODING)[str(name)].words} at depth{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows))}"
        for name, rows in table[table["value"].isna()].groupby("measure", sort=False)["depth"].unique().items()
    ]
    return " ".join(
        [
            f"What the features of each depth j of {'; '.join(words for words, _ in lines)} are like, on "
            f"{measured} {first['split']} images of {first['dataset']} (features {pooled}).",
            *_explained(table),
            "Bars: 95% intervals over images"
            + (f"; of means of {_span(seeds)} runs, over seeds (t; at least the images' share)" if seeds else "")
            + "; one that reaches the edge of a panel goes on.",
            *([f"Missing: {'; '.join(missing)}."] if missing else []),
            *_failed(table),
        ]
    )  # fmt: skip


def _failed(table: pd.DataFrame) -> list[str]:
    """Name the networks that did not train: those that a mean leaves out, and those that are drawn."""
    single = table[(table["run"] != "") & (table["failed"].fillna("") != "")]
    named = {run: f"{run} ({words})" for run, words in zip(single["run"], single["failed"], strict=True)}
    drawn = {run for _, rows in lines_of(table) for run in rows["run"]}
    out, shown = ("; ".join(words for run, words in named.items() if (run in drawn) is kept) for kept in (False, True))
    return who_trained(pd.DataFrame({"left_out": [out], "did_not_train": [shown]}))


def _explained(table: pd.DataFrame) -> list[str]:
    """Return what a reader needs to know of the measures that are drawn, a sentence for each kind."""
    shown, sampled = set(table["measure"]), table[table["measure"].isin(["twonn", "mle"])]["n"]
    probes = table["probe"].dropna() if "probe" in table else []
    said = {
        (CODELENGTH,): "Codelength: bits of the train fold's labels by prequential coding with linear probes, an image "
        "(interval over these images, the fits as they are).",
        (ACCURACY,): f"Accuracy: of probe {next(iter(probes), '')}, on the same images.",
        ("twonn", "mle"): "TwoNN and Levina-Bickel: intrinsic dimension, of "
        f"{_span(sampled) if len(sampled) else ''} different images drawn from them.",
        ("zeros", "hoyer"): "Zeros, Hoyer sparsity: means over images.",
        ("dead",): "Dead units: features with one value for all images.",
        ("nc1", "nc2_norms", "nc2_angles", "nc3", "nc4"): "NC1 to NC4: neural collapse (Papyan et al. 2020), NC3 and "
        "NC4 with the classifier of least squares.",
        ("cdnv",): "CDNV: class-distance normalised variance.",
        ("ncm_error",): "Class mean error: images that lie nearer to another class's mean.",
        ("nc1", "cdnv", "nc4", "ncm_error", "margin", "fisher_ratio"): "Class means are those of these images.",
    }
    return [words for names, words in said.items() if shown & set(names)]


def _span(numbers: Any) -> str:
    low, high = int(min(numbers)), int(max(numbers))
    return str(low) if low == high else f"{low} to {high}"
