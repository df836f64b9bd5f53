"""The first sentences of a page: what is read at the last depth and at the chosen one, and what tests show."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import pandas as pd

from analysis.best_depth import best_depths
from analysis.tables import PANEL
from figures.kit.table import Table
from figures.kit.words import percent
from figures.kit.words import points as in_points
from figures.plots.lines import keyed, lines

LEVEL = 0.05
_HEAD = ["line", "reads at the last depth", "last depth", "networks", "depth chosen", "reads there", "on the fold"]


def lead(points: pd.DataFrame, fold: pd.DataFrame | None) -> list[str]:
    """Return the sentences on all lines. points: of the test split; fold: of the validation fold, None without one."""
    first, own = points.iloc[0], _of_panel(points, points)
    ends = [(name, line.loc[line["depth"].idxmax()]) for name, line in _named(own, points)]
    ordered = sorted(ends, key=lambda end: float(end[1]["accuracy"]))
    low, high = (f"{_read(end)} in {name}" for name, end in (ordered[0], ordered[-1]))
    depths = {int(end["depth"]) for _, end in ends}
    where = f"depth {depths.pop()}, the last," if len(depths) == 1 else "its last depth"
    pixels = own["pixels"].dropna()
    raw = f" Of the raw pixels it reads {percent(float(pixels.mean()))}." if len(pixels) else ""
    intervals = " and ".join(dict.fromkeys(interval for interval in own["interval"] if interval))
    reads = f"from {low}, to {high}," if len(ends) > 1 else high
    return [
        f"At {where} a {first['probe']} probe reads {reads} of the {first['n_samples']:,} {first['split']} "
        f"images of {first['dataset']}. Always saying the most frequent class would be right about "
        f"{percent(first['chance'])}.{raw}",
        *_on_the_choice(own, points, fold),
        *([f"Brackets are 95% intervals: {intervals}."] if intervals else []),
    ]


def _on_the_choice(own: pd.DataFrame, points: pd.DataFrame, fold: pd.DataFrame | None) -> list[str]:
    if fold is None:
        return [
            "No depth is called the best, for that would take numbers of this probe on a validation fold that no "
            "network has seen."
        ]
    best = _best(points, fold)
    last = [best[name]["depth"] == line["depth"].max() for name, line in _named(own, points) if name in best]
    where = f"the last depth for {sum(last)} of {len(last)} lines, an earlier one for {len(last) - sum(last)}"
    if len(last) == 1:
        (point,) = best.values()
        at = own[own["depth"] == point["depth"]]
        where = f"depth {point['depth']}" + (f", where it is right about {_read(at.iloc[0])}" if len(at) else "")
    return [
        f"The validation fold chooses {where}: the depth, from 1 on, at which the probe is right about most of it "
        "before its refit, the shallower of equal ones. The test images choose nothing, and an interval at a chosen "
        "depth does not include the choice."
    ]


def of_lines(points: pd.DataFrame, fold: pd.DataFrame | None) -> Table:
    """Return what the first probe reads of each line at its last depth, and at the one that the fold chooses."""
    own = _of_panel(points, points)
    best = {} if fold is None else _best(points, fold)
    rows = []
    for name, line in _named(own, points):
        last, chosen = line.loc[line["depth"].idxmax()], best.get(name)
        row = [name, _read(last), str(last["depth"]), str(last["n_runs"])]
        if chosen is not None:
            at = line[line["depth"] == chosen["depth"]]
            row += [str(chosen["depth"]), _read(at.iloc[0]) if len(at) else "-", percent(chosen["accuracy"])]
        rows.append(row + ["-"] * (len(_HEAD[: 7 if best else 4]) - len(row)))
    return Table(
        head=_HEAD[: 7 if best else 4],
        rows=rows,
        caption=f"What the {points['probe'].iloc[0]} probe reads of each kind of network, % of the "
        f"{points['n_samples'].iloc[0]:,} {points['split'].iloc[0]} images.",
    )


def of_tests(contrasts: pd.DataFrame, probe: str) -> list[str]:
    """Return which final levels differ by the first probe, of rows of `analysis.contrasts.contrasts`."""
    own = contrasts[(contrasts["probe"] == probe) & (contrasts["quantity"] == "final level") & contrasts["p"].notna()]
    if own.empty:
        return []
    shown = own[own["p_holm"] < LEVEL].sort_values("p_holm", kind="stable")
    head = f"Of {len(own)} comparisons of final levels by the {probe} probe, {len(shown) or 'none'} "
    head += f"{'is' if len(shown) < 2 else 'are'} shown (p < {LEVEL} after Holm's adjustment)"
    return [f"{head}{'.' if shown.empty else ':'}", *map(_difference, shown.to_dict("records"))]


def _difference(one: dict[Hashable, Any]) -> str:
    names, numbers = [one["second"], one["first"]], [one["difference"], one["ci_low"], one["ci_high"]]
    if one["difference"] < 0:
        names, numbers = names[::-1], [-one["difference"], -one["ci_high"], -one["ci_low"]]
    return f"{' over '.join(names)}: {in_points(*numbers)}, p = {one['p_holm']:.2g}"


def _best(points: pd.DataFrame, fold: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the point of the depth that the fold chooses, for each line of the first panel by its words."""
    return {name: line.iloc[0] for name, line in _named(best_depths(_of_panel(fold, points)), points)}


def _named(own: pd.DataFrame, points: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the lines of some points under their words in the figure, of whose points these depend on intervals too."""
    names = {key: line.name for key, line in lines(points).items()}
    for key, line in keyed(own):
        yield names[key], line


def _read(point: pd.Series) -> str:
    return percent(point["accuracy"], point["ci_low"], point["ci_high"])


def _of_panel(points: pd.DataFrame, figure: pd.DataFrame) -> pd.DataFrame:
    """Return the points of the first panel of a figure, the linear probe where there is one."""
    first: Sequence[object] = list(figure[PANEL].iloc[0])
    return points[(points[PANEL] == first).all(axis="columns")]
