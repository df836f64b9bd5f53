"""Sentences of README and docs that state a result: each is made again from the rows of its study, and compared.

docs/results/NAME.csv is tables/rows.csv of a study; docs/results.md says by which command. A claim is a sentence with
places for numbers, and the function that computes them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from analysis.attribution import attribution
from analysis.contrasts import contrasts
from analysis.separability import curves
from probes.csvfile import read_csv
from probes.results.columns import DIGEST, SCHEMA, dtypes

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"


@cache
def rows(study: str) -> pd.DataFrame:
    """Return the rows of a study, as `analysis.tables.read` returns them."""
    own = read_csv(RESULTS / f"{study}.csv", dtypes(SCHEMA) | {"run": "str"})
    lacking = {column.name for column in SCHEMA} - {DIGEST, *own.columns}
    assert not lacking, f"docs/results/{study}.csv is of an earlier version, without {lacking}: make it again"
    return own


@cache
def of_networks(study: str) -> pd.DataFrame:
    own = rows(study)
    return own[own["activation"] != "none"]


@cache
def compared(study: str) -> pd.DataFrame:
    return contrasts(of_networks(study)).set_index(["probe", "quantity", "first", "second"])


@cache
def points(study: str, probe: str) -> pd.DataFrame:
    return curves(of_networks(study), [probe]).set_index(["mode", "k", "depth"])


def accuracy(study: str, mode: str, k: int, depth: int, probe: str = "linear") -> str:
    """Return "86.8% (86.0 to 87.6)": the mean over seeds of a point of the curve with its interval."""
    one = points(study, probe).loc[(mode, k, depth)]
    return f"{one['accuracy']:.1%} ({100 * one['ci_low']:.1f} to {100 * one['ci_high']:.1f})"


class Lead(NamedTuple):
    """By how much one line is above another: points, their 95% interval, p of no difference, and by Holm."""

    points: float
    low: float
    high: float
    p: float
    p_holm: float

    @property
    def whole(self) -> str:
        """Return "2.3 points (1.0 to 3.7; p = 0.008, by Holm 0.07)"."""
        return f"{self.points:.1f} points ({self.low:.1f} to {self.high:.1f}; {self.tested})"

    @property
    def tested(self) -> str:
        return f"p = {p_value(self.p)}, by Holm {p_value(self.p_holm)}"


def lead(study: str, quantity: str, above: str, below: str, probe: str = "linear") -> Lead:
    """Return by how much one line is above another."""
    found, sign = compared(study), -1
    if (probe, quantity, above, below) not in found.index:
        above, below, sign = below, above, 1
    one = found.loc[(probe, quantity, above, below)]
    low, high = sorted((sign * 100 * one["ci_low"], sign * 100 * one["ci_high"]))
    return Lead(sign * 100 * one["difference"], low, high, one["p"], one["p_holm"])


def p_value(p: float) -> str:
    return f"{p:.2g}" if p >= 0.001 else f"{p:.0e}"


def levels() -> str:
    of = {mode: [accuracy("smoke", mode, k, 3) for k in (1, 2, 3)] for mode in ("greedy", "end-to-end")}
    listed = {mode: f"{', '.join(found[:2])} and {found[2]}" for mode, found in of.items()}
    pixels = points("smoke", "linear").iloc[0]
    over_images = f"{100 * pixels['pixels_low']:.1f} to {100 * pixels['pixels_high']:.1f}, over images"
    return (
        f"At depth 3 a linear probe reads, for k = 1, 2 and 3, {listed['greedy']} after greedy training, "
        f"{listed['end-to-end']} after end-to-end training, {untrained('relu')} of the four kinds of untrained "
        f"networks with relu, {untrained('none')} of those without, and {pixels['pixels']:.1%} ({over_images}) of the "
        f"raw pixels"
    )


def untrained(activation: str) -> str:
    """Return "86.3 to 90.0%": the means of the kinds of untrained networks at depth 3, with relu or without."""
    own = rows("smoke")
    own = own[own["mode"].str.startswith("untrained") & own["activation"].eq(activation) & own["features"].eq("native")]
    own = own[own["probe"].eq("linear") & own["depth"].eq(3) & own["metric"].eq("accuracy")]
    means = 100 * own.groupby(["initialisation", "batch_norm"])["value"].mean()
    return f"{means.min():.1f} to {means.max():.1f}%"


def modes() -> str:
    two, three = (lead("smoke", "final level", f"end-to-end, k = {k}", f"greedy, k = {k}") for k in (2, 3))
    return f"End-to-end networks end {two.whole} above greedy ones at k = 2 and {three.whole} at k = 3"


def training() -> str:
    two, three = (lead("smoke", "final level", f"greedy, k = {k}", f"untrained, k = {2}") for k in (2, 3))
    return f"Greedy networks end {two.whole} above untrained ones at k = 2 and {three.whole} at k = 3"


def end_to_end_training() -> str:
    two, three = (lead("smoke", "final level", f"end-to-end, k = {k}", "untrained, k = 2") for k in (2, 3))
    return f"End-to-end networks end {two.whole} and {three.whole} above untrained ones at k = 2 and 3"


def changes() -> str:
    linear = points("smoke", "linear")["accuracy"]

    def rise(mode: str, k: int) -> str:
        return f"{100 * (linear.loc[(mode, k, 3)] - linear.loc[(mode, k, 1)]):+.1f}"

    return (
        f"From depth 1 to 3 the accuracy of untrained networks with BatchNorm changes by {rise('untrained', 2)} "
        f"points, that of greedy ones by {rise('greedy', 2)} and {rise('greedy', 3)} at k = 2 and 3, that of "
        f"end-to-end ones by {rise('end-to-end', 2)} and {rise('end-to-end', 3)}"
    )


def by_cnn() -> str:
    two, three = (lead("smoke", "final level", f"end-to-end, k = {k}", f"greedy, k = {k}", "cnn-1") for k in (2, 3))
    return f"by them end-to-end networks end {two.whole} and {three.whole} above greedy ones at k = 2 and 3"


def without_batch_norm() -> str:
    start = next(mode for mode, k, _ in points("smoke", "linear").index if mode == "untrained, kaiming" and k == 1)
    of = {mode: accuracy("smoke", mode, 1, 3) for mode in ("greedy", "end-to-end", start)}
    return (
        f"greedy networks read {of['greedy']}, end-to-end ones {of['end-to-end']}, untrained ones of the same "
        f"initialisation {of[start]}"
    )


def parts() -> str:
    found = attribution(rows("smoke")).assign(points=lambda table: 100 * table["value"])

    def span(part: str, where: pd.Series | None = None) -> str:
        own = found[(found["part"] == part) & (True if where is None else where)]["points"]
        low, high = (f"{end:.0f}" for end in (own.min(), own.max()))
        return low if low == high else f"{low} to {high}"

    trained, one = found["k"] > 1, found[(found["part"] == "training") & (found["k"] == 1)]["points"]
    return (
        f"width of random linear features adds {span('width')} points, pooling {span('pooling')}, "
        f"relu {span('relu', found['depth'] == 1)} at depth 1 and {span('relu', found['depth'] == 3)} at depth 3; "
        f"greedy training adds {span('training', trained)} points at k = 2 and 3, and end-to-end training "
        f"{span('left', trained)} to that; at k = 1 greedy training changes it by {one.iloc[0]:.0f}, {one.iloc[1]:.0f} "
        f"and {one.iloc[2]:.0f} points, the last two with intervals of 25 points and more"
    )


def published_networks() -> str:
    own = rows("resnets").set_index(["run", "module", "pooling"])["value"]
    last = {"r20.h5": 2, "r32.h5": 4}
    lines = {
        "pooled input, raw pixels": [f"{own[run, 'input', 2]:.2%}, {own[run, 'input', 0]:.2%}" for run in last],
        "first convolution, after BatchNorm": [f"{own[run, 'bn1', 2]:.2%}" for run in last],
        **{
            f"last block of stage {i}": [f"{own[run, f'layer{i}.{block}', 2]:.2%}" for run, block in last.items()]
            for i in (1, 2, 3)
        },
    }
    return " ".join(f"| {name} | {' | '.join(cells)} |" for name, cells in lines.items()).replace("%", "")


CLAIMS: dict[str, list[Callable[[], str]]] = {
    "README.md": [levels, modes, training, end_to_end_training, changes, by_cnn],
    "docs/results.md": [published_networks],
    "docs/study.md": [levels, modes, training, end_to_end_training, changes, by_cnn, without_batch_norm, parts],
}


@pytest.mark.parametrize(("document", "claim"), [(name, claim) for name, own in CLAIMS.items() for claim in own])
def test_a_result_that_is_stated_is_that_of_its_table(document: str, claim: Callable[[], str]) -> None:
    text = " ".join((ROOT / document).read_text(encoding="utf-8").split())
    assert claim() in text


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.csv")), ids=lambda path: path.stem)
def test_every_table_of_results_is_named_by_what_it_is_and_used(path: Path) -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert f"results/{path.name}" in text
