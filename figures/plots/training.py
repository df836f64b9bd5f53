"""The training curves of auxiliary problems, and their caption."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.failures import is_failed_alone
from analysis.seeds import FLOOR
from figures.kit import style
from figures.kit.hover import tell
from figures.kit.legend import Handle, figure_with_legend
from figures.kit.panels import limits, round_ticks
from figures.kit.words import IMAGES_SHARE, who_trained
from figures.plots.caption import averaged_by_k

_ROWS = {"loss": "cross-entropy (nats)", "accuracy": "accuracy (%)"}
_SCALE = {"loss": 1.0, "accuracy": 100.0}
_DASHES: dict[str, Any] = {"train": "solid", "validation": (0, (3, 1.5))}
# Of an epoch that stands alone, since a line through one point is not seen.
_POINT: dict[str, dict[str, Any]] = {
    "train": {"marker": "o", "markersize": 3.0},
    "validation": {"marker": "o", "markersize": 3.0, "markerfacecolor": "white"},
}
_MARGIN = 0.05


def draw(points: pd.DataFrame, size: str = "single") -> Figure:
    """Return the figure: a column for each k, loss above accuracy, a line for each block's auxiliary problem.

    Args:
        points: as `analysis.training.training_curves` returns them.
        size: "single" (85 mm wide) or "double" (170 mm).
    """
    ks, blocks = sorted(set(points["k"])), sorted(set(points["block"]))
    with style.applied():
        colours = dict(zip(blocks, (sign["color"] for sign in style.ordered_styles(len(blocks))), strict=True))
        figure, grid = figure_with_legend(size, len(ks) * len(_ROWS), _handles(points, colours), across=len(ks))
        for axes, row, column in grid.panels(figure):
            measure, k = list(_ROWS)[row], ks[column]
            own = points[points["measure"] == measure]
            _set_axes(axes, own, _SCALE[measure])
            of_k = own[own["k"] == k]
            for epoch in _drops(of_k):
                axes.axvline(
                    epoch - 0.5, color=style.GREY, linewidth=0.6, linestyle="dotted", label="_drop", zorder=0.5
                )
            for epoch in set(of_k["finetuning"].dropna()):
                axes.axvline(epoch - 0.5, color=style.GREY, linewidth=0.9, label="_finetuning", zorder=0.5)
            for (block, split), line in of_k.groupby(["block", "split"]):
                _draw_line(axes, line, colours[block], str(split), _SCALE[measure])
            if row == 0:
                axes.set_title(f"$k$ = {k}{', did not train' if is_failed_alone(of_k) else ''}")
            grid.label(axes, row, column, "epoch", _ROWS[measure])
        return figure


def _handles(points: pd.DataFrame, colours: dict[int, str]) -> list[Handle]:
    blocks: list[Handle] = [Line2D([], [], color=colour, label=f"block {block}") for block, colour in colours.items()]
    splits = [split for split in _DASHES if split in set(points["split"])]
    alone = _POINT if points["epoch"].nunique() == 1 else {}
    return blocks + [
        Line2D([], [], color="black", linestyle=_DASHES[split], label=split, **alone.get(split, {})) for split in splits
    ]


def _set_axes(axes: Axes, points: pd.DataFrame, scale: float) -> None:
    drawn = points[["value", "ci_low", "ci_high"]].astype(float)
    drawn.loc[points["split"] != "train", ["ci_low", "ci_high"]] = np.nan  # no area is drawn of these
    axes.set_ylim(*limits(scale * drawn.to_numpy(), _MARGIN, 1e-3 * scale))
    axes.set_xlim(points["epoch"].min() - 0.5, points["epoch"].max() + 0.5)
    axes.yaxis.set_major_locator(round_ticks(5, integer=scale > 1))
    epochs = round_ticks(5, integer=True)
    epochs.set_params(min_n_ticks=1)  # with two at least, one epoch would have ticks at 0.6, 0.8, ...
    axes.xaxis.set_major_locator(epochs)


def _drops(points: pd.DataFrame) -> list[int]:
    """Return the epochs that begin with a lower rate than the one before, by a schedule of steps: others always do."""
    stepped = points[points["schedule"] == "steps"]
    rates = stepped.groupby("epoch")["learning_rate"].first()
    return [int(epoch) for epoch in rates.index[rates < rates.shift()]]


def _draw_line(axes: Axes, line: pd.DataFrame, colour: str, split: str, scale: float) -> None:
    x, y = line["epoch"].to_numpy(float), scale * line["value"].to_numpy(float)
    low, high = (scale * line[name].to_numpy(float) for name in ("ci_low", "ci_high"))
    if split == "train" and np.isfinite(low).all():
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0, zorder=1)
        if len(x) == 1:
            axes.vlines(x, low, high, color=colour, linewidth=0.9, zorder=1.5)
    alone = _POINT[split] if len(x) == 1 else {}
    name = f"block {line['block'].iloc[0]}"
    axes.plot(x, y, color=colour, linestyle=_DASHES[split], linewidth=0.9, zorder=2, label=name, **alone)
    unit, form = ("%", ".1f") if scale > 1 else (" nats", ".3f")
    tell(
        axes, f"{name}, {split}", x, y,
        [f"{name}, {split}, epoch {epoch:g}: {value:{form}}{unit}" for epoch, value in zip(x, y, strict=True)],
    )  # fmt: skip


def caption(points: pd.DataFrame) -> str:
    """Return the caption, one paragraph."""
    first = points.iloc[0]
    networks = averaged_by_k(points, "n_runs", "mean of ")
    bands = ""
    if points["ci_low"].notna().any():
        shown = "Areas" if points["epoch"].nunique() > 1 else "Bars"
        bands = f" {shown}: 95% interval over seeds (t; of accuracy {FLOOR}) of the train curve. {IMAGES_SHARE}"
    failed = "".join(f" {sentence}" for sentence in who_trained(points))
    after = ""
    if points["finetuning"].notna().any():
        after = f" From epoch {int(points['finetuning'].max())} on (grey line) it is trained on above its pruned block."
    drops = " Dotted: the learning rate drops." if any(_drops(own) for _, own in points.groupby("k")) else ""
    return (
        f"Training of each block's auxiliary problem on {first['dataset']}, mode {first['mode']}: cross-entropy and "
        f"accuracy against the epochs of that problem. {networks}, each M weighing the same. Train: while training, on "
        f"augmented images; validation: after the epoch.{bands}{drops}{after}{failed}"
    )
