"""Contrasts over training seeds: what do k and the mode of training change in the curve of accuracy over depth?

Three numbers of a network's curve are compared, each a weighted sum of its accuracies a_j:

    early gain     a_2 - a_1              who separates the classes sooner?
    slope          least squares on j     who gains more from a depth?
    final level    a_J                    who ends higher?

The paper's claim, that a smaller k gains early and ends lower, is one of the first and the last. Each comparison has
two p-values: of no difference, and of a difference larger than a bound, so that "no difference found" and "shown to
differ by less" are told apart.

One family of Holm's adjustment is all comparisons of one probe that answer one question: what does k change, what does
the mode of training change, and what does training change at all, against networks that are untrained. It is all three
numbers and all pairs of lines. Probes are families of their own. What k changes is asked of trained networks alone:
untrained ones differ by k in their BatchNorm only, and those of k = 2 stand for all k above.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.failures import ASKED, told
from analysis.seeds import Cells, difference, images_variance
from analysis.separability import asked_in
from analysis.tables import LINE, NETWORK, PANEL, UNTRAINED
from analysis.trend import ordered
from probes.results.paired_tests import holm

QUANTITIES = ("early gain", "slope", "final level")
# The largest difference that counts as none, in accuracy.
BOUND = 0.01
_WIDTHS = NETWORK[:2]
_NUMBER = ["value", "images", "span", "certificate", "initialisation", ASKED]
_PAIR = ["quantity", "first", "second", "compares"]
_FOUND = ["difference", "ci_low", "ci_high", "p", "bound", "p_within", "freedom", "paired", "certificate"]
_FOUND += ["n_first", "asked_first", "n_second", "asked_second"]


def contrasts(
    rows: pd.DataFrame,
    probes: Sequence[str] | None = None,
    split: str = "test",
    bound: float = BOUND,
    keep_failed: bool = False,
) -> pd.DataFrame:
    """Return how each pair of lines of a panel differs in early gain, slope and final level.

    A contrast is the mean over widths of the difference of the means over seeds, by Student's t with the images' share:
    paired within seeds where both lines have the same, else with the variance pooled within line and width
    (`analysis.seeds`). Only widths that both lines have count. Trained lines that differ in k alone are compared, those
    that differ in mode alone, and each with the untrained ones of its k and, where there are such, its initialisation.

    Args:
        rows: probe results as `analysis.tables.read` returns them. probes, split: as in `analysis.selection.select`.
        bound: the largest difference that counts as none, in accuracy; of slopes, over all their depths.
        keep_failed: take networks that did not train with the others.

    Returns:
        A row for each panel, quantity and pair of lines: quantity (of `QUANTITIES`), first, second (mode and k of
        each), compares ("k", "mode" or "training"), difference (second - first, in accuracy, of slopes in accuracy a
        depth), ci_low, ci_high, p (of no difference), bound (in the unit of the difference), p_within (of a difference
        of the bound or more), freedom, paired, certificate (the largest of both lines), n_first, n_second (networks of
        the common widths), asked_first, asked_second (with those that did not train), left_out and did_not_train (of
        all rows), p_holm and p_within_holm.
        Interval and p are missing where no width has two seeds. A pair in which no width of both lines has the depths
        is left out.
    """
    networks = ordered(rows, probes, split, keep_failed)
    numbers = _numbers(networks)
    found = []
    for key, panel in numbers.groupby(PANEL, sort=False):
        for quantity in QUANTITIES:
            own = panel[panel["quantity"] == quantity]
            lines = [_Line(line) for _, line in own.groupby(LINE, dropna=False, sort=False)]
            of = dict(zip(PANEL, key, strict=True)) | {"quantity": quantity}
            untrained = [line for line in lines if line.is_untrained]
            found += [
                of | contrast
                for pair in itertools.combinations(lines, 2)
                if (contrast := _contrast(*pair, _compared(*pair, untrained), quantity, bound))
            ]
    table = pd.DataFrame(found, columns=[*PANEL, *_PAIR, *_FOUND]).assign(**told(networks))
    families = table.groupby([*PANEL, "compares"], sort=False)
    adjusted = {f"{p}_holm": families[p].transform(lambda p: pd.Series(holm(p), p.index)) for p in ("p", "p_within")}
    return table.assign(**adjusted)


def _numbers(networks: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each network and quantity: value, images (its variance by the images), span (of depths)."""
    key = [*PANEL, *LINE, *NETWORK]
    found: list[dict[Any, Any]] = []
    for name, network in networks.groupby(key, dropna=False, sort=False):
        depths, values = network["depth"].to_numpy(), network["value"].to_numpy(float)
        variances = images_variance(values, int(network["n_samples"].iloc[0]))
        for quantity in QUANTITIES:
            weights = _weights(quantity, depths, network["blocks"].iloc[0])
            if weights is not None:
                number = {"value": weights @ values, "images": weights**2 @ variances, "span": np.ptp(depths)}
                number["certificate"] = float(network["certificate"].max())
                number |= network[["initialisation", ASKED]].iloc[0].to_dict()
                found.append(dict(zip(key, name, strict=True)) | {"quantity": quantity} | number)
    return pd.DataFrame(found, columns=[*key, "quantity", *_NUMBER])


def _weights(quantity: str, depths: np.ndarray, last: int) -> np.ndarray | None:
    """Return the weight of each accuracy in a quantity; None where a depth of it is missing."""
    if quantity == "slope":
        centred = depths - depths.mean()
        return centred / (centred @ centred) if len(depths) > 1 else None
    signs = {1: -1.0, 2: 1.0} if quantity == "early gain" else {last: 1.0}
    return np.array([signs.get(depth, 0.0) for depth in depths]) if set(signs) <= set(depths) else None


class _Line:
    """The networks of one line, with one quantity: what is asked in every pair that it is of, made once."""

    def __init__(self, rows: pd.DataFrame) -> None:
        mode, k = rows[LINE].iloc[0]
        self.mode, self.k = str(mode), 0.0 if pd.isna(k) else float(k)
        self.name = self.mode if pd.isna(k) else f"{mode}, k = {int(k)}"
        self.is_untrained = self.mode.startswith(UNTRAINED)
        self.initialisations = set(rows["initialisation"])
        self.span, self.certificate = rows["span"].max(), rows["certificate"].max()
        widths = list(rows.groupby(_WIDTHS, dropna=False))
        self.cells: Cells = {cell: group.set_index("seed")[["value", "images"]] for cell, group in widths}
        self.counts = {cell: (len(group), asked_in(group)) for cell, group in widths}


def _contrast(first: _Line, second: _Line, compares: str, quantity: str, bound: float) -> dict[str, Any]:
    """Return the contrast of one quantity of two lines; empty where they compare nothing or share no width."""
    common = [cell for cell in first.cells if cell in second.cells]
    if not common or not compares:
        return {}
    found = difference(*({cell: line.cells[cell] for cell in common} for line in (first, second)))
    if quantity == "slope":
        bound = bound / max(first.span, second.span)
    half = found.half_width()
    return {
        **{"first": first.name, "second": second.name, "compares": compares, "difference": found.mean},
        **{"ci_low": found.mean - half, "ci_high": found.mean + half, "p": found.p_zero()},
        **{"bound": bound, "p_within": found.p_within(bound), "freedom": found.freedom, "paired": found.paired},
        "certificate": max(first.certificate, second.certificate),
        **_counts("first", first, common),
        **_counts("second", second, common),
    }


def _counts(which: str, line: _Line, cells: Sequence[Hashable]) -> dict[str, int]:
    """Return how many networks of a line there are in cells, and how many with those that did not train."""
    n, asked = (sum(counts) for counts in zip(*(line.counts[cell] for cell in cells), strict=True))
    return {f"n_{which}": n, f"asked_{which}": asked}


def _compared(first: _Line, second: _Line, untrained: Sequence[_Line]) -> str:
    """Return of what two lines show the effect: "k", "mode" or "training"; empty for none of these alone.

    untrained: the untrained lines beside them.
    """
    if first.is_untrained and second.is_untrained:
        return ""
    if first.is_untrained or second.is_untrained:
        trained, other = (first, second) if second.is_untrained else (second, first)
        return "training" if other in _starts(trained, untrained) else ""
    different = [column for column in LINE if getattr(first, column) != getattr(second, column)]
    return different[0] if len(different) == 1 else ""


def _starts(trained: _Line, untrained: Sequence[_Line]) -> list[_Line]:
    """Return the untrained lines from which the networks of a trained one began, or that stand for these."""
    k, ks = trained.k, {line.k for line in untrained}
    own = k if k in ks else max((other for other in ks if 1 < other < k), default=k)
    of_k = [line for line in untrained if line.k == own]
    alike = [line for line in of_k if line.initialisations == trained.initialisations]
    return alike or of_k
