"""The heat map of how alike each two depths are, and its caption."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.geometry.measures import SIMILARITIES
from analysis.tables import file_names
from figures.kit import style
from figures.kit.panels import height_mm

DRAWN = ("cka", "procrustes")
# From unlike to alike, light to dark; a distance runs the other way.
_COLOURS = {"cka": "crest", "cka_biased": "crest", "procrustes": "crest_r"}
_RANGES = {"cka": (0.0, 1.0), "cka_biased": (0.0, 1.0), "procrustes": (0.0, math.pi / 2)}
# On the page, in mm: room left of a panel, above, below and right of it, and of its colour bar.
_LEFT, _TOP, _BOTTOM, _RIGHT, _BAR, _GAP = 12.0, 6.0, 9.5, 9.0, 2.5, 1.5
_MOST_TICKS = 16


def draw(table: pd.DataFrame, size: str = "single", measures: Sequence[str] = DRAWN, ax: Any = None) -> Figure:
    """Return the figure: a square for each measure, with a row and a column for each depth of each run.

    Args:
        table: as `analysis.depth_similarity` returns it.
        size: "single" (85 mm wide) or "double" (170 mm).
        measures: cka, cka_biased or procrustes. ax: axes of a figure of the reader's, one for each of them.
    """
    if ax is not None:
        every = list(np.atleast_1d(ax).ravel())
        for axes, measure in zip(every, measures, strict=True):
            image = _draw_panel(axes, table, measure)
            axes.figure.colorbar(image, ax=axes)
        return every[0].get_figure(root=True)
    with style.applied():
        across = len(measures) if size == "double" else 1
        width = style.WIDTHS_MM[size]
        side = min(62.0, width / across - _LEFT - _RIGHT - _BAR - _GAP)
        down = -(-len(measures) // across)
        height = down * (_TOP + side + _BOTTOM)
        figure = style.new_figure(width, height)
        for place, measure in enumerate(measures):
            row, column = divmod(place, across)
            left, bottom = _LEFT + column * width / across, height - (row + 1) * (_TOP + side) - row * _BOTTOM
            image = _draw_panel(figure.add_axes(_share(left, bottom, side, side, width, height)), table, measure)
            bar = figure.add_axes(_share(left + side + _GAP, bottom, _BAR, side, width, height))
            figure.colorbar(image, cax=bar)
        return figure


def _share(left: float, bottom: float, w: float, h: float, width: float, height: float) -> Any:
    return left / width, bottom / height, w / width, h / height


def _draw_panel(axes: Axes, table: pd.DataFrame, measure: str) -> Any:
    keys, matrix = cells(table, measure)
    low, high = _RANGES[measure]
    colours = style.colour_map(_COLOURS[measure])
    image = axes.imshow(matrix, cmap=colours, vmin=low, vmax=high, interpolation="none", aspect="equal")
    axes.set_title(SIMILARITIES[measure].words)
    runs = list(dict.fromkeys(run for run, _ in keys))
    step = -(-len(keys) // _MOST_TICKS)
    places = [place for place, (_, depth) in enumerate(keys) if _own_place(keys, place) % step == 0]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(places, labels=[str(keys[place][1]) for place in places])
        axis.set_tick_params(length=0)
    words = labels(table)
    if not _fit(axes, keys, words):
        words = dict(zip(words, _letters(), strict=False))
    for run in runs if len(runs) > 1 else []:
        own = [place for place, (other, _) in enumerate(keys) if other == run]
        middle = (own[0] + own[-1]) / 2
        how: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": style.LABEL_SIZE}
        axes.annotate(words[run], (middle, 0), (0, -16), ("data", "axes fraction"), "offset points", **how)
        axes.annotate(words[run], (0, middle), (-20, 0), ("axes fraction", "data"), "offset points", rotation=90, **how)
        if own[0]:
            axes.axvline(own[0] - 0.5, color="white", linewidth=1.0, label="_edge")
            axes.axhline(own[0] - 0.5, color="white", linewidth=1.0, label="_edge")
    if len(runs) == 1:
        axes.set_xlabel("depth $j$")
        axes.set_ylabel("depth $j$")
    return image


def _fit(axes: Axes, keys: Sequence[tuple[str, int]], words: dict[str, str]) -> bool:
    """Return whether the words for each run are no longer than its part of the axis."""
    side = height_mm(axes) / len(keys)
    return all(style.length_mm(text) <= side * sum(run == one for run, _ in keys) for one, text in words.items())


def _letters() -> Iterator[str]:
    """Yield A to Z, then AA, AB, ..."""
    for count in itertools.count(1):
        yield from map("".join, itertools.product(string.ascii_uppercase, repeat=count))


def _own_place(keys: Sequence[tuple[str, int]], place: int) -> int:
    """Return the place of a depth among those of its run."""
    return sum(run == keys[place][0] for run, _ in keys[:place])


def cells(table: pd.DataFrame, measure: str) -> tuple[list[tuple[str, int]], np.ndarray]:
    """Return the depths (run, depth) in order, and the similarity of each two; a depth is wholly like itself."""
    own = table[(table["measure"] == measure) & (table["run_a"] != "")]
    sides = [list(zip(own[f"run_{side}"], own[f"depth_{side}"].astype(int), strict=True)) for side in "ab"]
    keys = list(dict.fromkeys([*sides[0], *sides[1]]))
    place = {key: number for number, key in enumerate(keys)}
    matrix = np.full((len(keys), len(keys)), math.nan)
    np.fill_diagonal(matrix, 0.0 if measure == "procrustes" else 1.0)
    for one, other, value in zip(*sides, own["value"], strict=True):
        matrix[place[one], place[other]] = matrix[place[other], place[one]] = value
    return keys, matrix


def labels(table: pd.DataFrame) -> dict[str, str]:
    """Return the words for each run: its network, or the name of its file where two networks have one name."""
    sides = [table[[f"run_{side}", f"network_{side}"]].set_axis(["run", "network"], axis=1) for side in "ab"]
    runs = pd.concat(sides).drop_duplicates()
    runs = runs[runs["run"] != ""]
    twice, files = runs["network"].duplicated(keep=False), file_names(runs["run"])
    return {
        run: files[run] if alike else network
        for run, network, alike in zip(runs["run"], runs["network"], twice, strict=True)
    }


def caption(table: pd.DataFrame) -> str:
    """Return the caption, one paragraph."""
    first, words = table.iloc[0], labels(table)
    shown = table[(table["run_a"] != "") & table["measure"].isin(DRAWN)]
    half = ((shown["ci_high"] - shown["ci_low"]) / 2).groupby(shown["measure"]).max()
    widest = "; ".join(
        f"{SIMILARITIES[str(name)].words} {value:.2g}" for name, value in half.items() if math.isfinite(value)
    )
    missing = int(shown["value"].isna().sum())
    return " ".join(
        [
            f"How alike each two depths of {_named(words)} arrange the same {first['n']} {first['split']} "
            f"images of {first['dataset']} (features {_pooled(first['pooling'])}).",
            "Debiased CKA with a linear kernel (Song et al. 2007): 1 for features that are equal up to rotation and "
            "scale, about 0 for unrelated ones. Shape distance: the angle between the two after the best rotation "
            "(Procrustes), 0 to pi/2.",
            f"Darker is more alike. Half of the widest 95% interval over images: {widest}." if widest else "",
            f"{missing} values are missing: features that do not differ, or too few images." if missing else "",
        ]
    ).replace("  ", " ").strip()  # fmt: skip


def _named(words: dict[str, str]) -> str:
    """Return the runs in their order; of several, with the letter that stands for each where words are too long."""
    if len(words) == 1:
        return next(iter(words.values()))
    named = [f"{text} ({letter})" for letter, text in zip(_letters(), words.values(), strict=False)]
    return "; ".join(named)


def _pooled(pooling: str) -> str:
    return "not averaged" if pooling == "none" else f"{pooling}-pooled"
