"""The atlas: test images in columns by their prediction depth; and its caption."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from figures.kit import style
from figures.kit.hover import tell
from figures.plots.images import PROBES

ROWS = 6
_WRONG = "#D55E00"
_GAP, APART = 0.08, 0.3  # between images, and between columns beside, as shares of an image's side
# On the page, in mm: the edges, room below the images for depth, share and the name of the axis; the side of an image
# from which on more stand beside each other, and the largest.
_EDGE, _BOTTOM, _SMALLEST, _LARGEST = 1.0, 10.5, 12.0, 16.0


def sampled(single: pd.DataFrame, most: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Return the images of one run and probe with `place`: the row from the top in its column, or -1 if not shown.

    Args:
        single: rows of `analysis.single_images`. most: images of each prediction depth, drawn with the seed; all
            where there are fewer.
    """
    rng = np.random.default_rng(seed)
    place = pd.Series(-1, index=single.index)
    for _, own in single.groupby("prediction_depth"):
        drawn = rng.permutation(len(own))[:most]
        place[own.index[drawn]] = np.arange(len(drawn))
    return single.assign(place=place)


def beside(single: pd.DataFrame, size: str) -> int:
    """Return how many images stand beside each other in a column: several where few depths have much room."""
    count = len(_depths(single))
    return max(1, int(((style.WIDTHS_MM[size] - 2 * _EDGE) / _SMALLEST - (count - 1) * APART) / count))


def draw(
    sample: pd.DataFrame, pixels: dict[int, np.ndarray], size: str = "single", abreast: int = 1, ax: Any = None
) -> Figure:
    """Return the figure: a column for each prediction depth, images that are wrong in the end with a frame.

    Args:
        sample: as `sampled` returns it. pixels: uint8 [H, W, 3] of the images shown, by index.
        size: "single" (85 mm wide) or "double" (170 mm). abreast: images beside each other in a column.
        ax: axes of a figure of the reader's.
    """
    depths, rows = _depths(sample), -(-(int(sample["place"].max()) + 1) // abreast)
    if ax is not None:
        _draw(ax, sample, pixels, depths, (abreast, rows))
        return ax.get_figure(root=True)
    with style.applied():
        width, count = style.WIDTHS_MM[size], len(depths) * abreast + (len(depths) - 1) * APART
        side = min((width - 2 * _EDGE) / count, _LARGEST)
        height, across = side * rows + _BOTTOM + _EDGE, side * count
        figure = style.new_figure(width, height)
        left = (width - across) / 2
        axes = figure.add_axes((left / width, _BOTTOM / height, across / width, side * rows / height))
        _draw(axes, sample, pixels, depths, (abreast, rows))
        return figure


def _depths(sample: pd.DataFrame) -> list[int]:
    return list(range(int(sample["prediction_depth"].min()), int(sample["prediction_depth"].max()) + 1))


def _draw(
    axes: Axes, sample: pd.DataFrame, pixels: dict[int, np.ndarray], depths: list[int], cells: tuple[int, int]
) -> None:
    (abreast, rows), half = cells, (1 - _GAP) / 2
    first = {depth: place * (abreast + APART) for place, depth in enumerate(depths)}
    for one in sample[sample["place"] >= 0].to_dict("records"):
        down, right = divmod(one["place"], abreast)
        x, y = first[one["prediction_depth"]] + right, down
        extent = (x - half, x + half, y + half, y - half)
        axes.imshow(pixels[one["index"]], extent=extent, interpolation="nearest", aspect="auto")
        wrong = "" if one["right"] else f", of which the last depth says {one['predicted']}"
        said = f"image {one['index']}, {one['class']}{wrong}: prediction depth {one['prediction_depth']}"
        tell(axes, f"row {down}", [x], [y], [said])
        if not one["right"]:
            corner, side = (x - half, y - half), 2 * half
            axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=_WRONG, linewidth=1.2, clip_on=False))
    axes.set(xlim=(-0.5, first[depths[-1]] + abreast - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal", yticks=[])
    shares = sample["prediction_depth"].value_counts(normalize=True)
    # The widest label is as wide as a column, or labels stand at every second, third, ... depth.
    words = [f"{depth}\n{_percent(100 * shares.get(depth, 0.0))}" for depth in depths]
    room = axes.get_window_extent().width / axes.figure.dpi * style.MM_PER_INCH / len(depths)
    step = max(1, int(np.ceil((max(map(style.length_mm, "\n".join(words).split("\n"))) + 0.8) / room)))
    axes.set_xticks([left + (abreast - 1) / 2 for left in first.values()][::step], labels=words[::step])
    axes.tick_params(length=0)
    axes.set_xlabel("prediction depth, % of images")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _percent(value: float) -> str:
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def caption(sample: pd.DataFrame, seed: int = 0) -> str:
    """Return the caption, one paragraph."""
    first, shown = sample.iloc[0], sample[sample["place"] >= 0]
    probe, most = PROBES.get(first["probe"], first["probe"]), int(shown["place"].max()) + 1
    return (
        f"Test images of {first['dataset']} by prediction depth in {first['network']}: the first depth from which on "
        f"probe {probe} says what it says at the last depth (Baldock et al. 2021). Below each column its depth and the "
        f"share of the {len(sample):,} images that have it; {most} at most are shown, drawn at random (seed {seed}). "
        f"Framed: {int((shown['right'] == 0).sum())} of the {len(shown)} shown that the last depth is wrong about."
    )
