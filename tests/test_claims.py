"""Sentences of README and docs that state a result: each is made again from the rows of its study, and compared.

docs/results/NAME.csv is tables/rows.csv of a study; docs/results.md says by which command. A claim is a sentence with
places for numbers, and the function that computes them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from analysis.contrasts import contrasts
from analysis.separability import curves
from probes.csvfile import read_csv
from probes.results.columns import SCHEMA, dtypes

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"


@cache
def rows(study: str) -> pd.DataFrame:
    """Return the rows of a study, as `analysis.tables.read` returns them."""
    return read_csv(RESULTS / f"{study}.csv", dtypes(SCHEMA) | {"run": "str"})


@cache
def compared(study: str) -> pd.DataFrame:
    own = rows(study)
    return contrasts(own[own["activation"] != "none"]).set_index(["probe", "quantity", "first", "second"])


@cache
def points(study: str, probe: str) -> pd.DataFrame:
    own = rows(study)
    return curves(own[own["activation"] != "none"], [probe]).set_index(["mode", "k", "depth"])


def accuracy(study: str, mode: str, k: int, depth: int, probe: str = "linear") -> str:
    """Return "86.8% (86.0 to 87.6)": the mean over seeds of a point of the curve with its interval."""
    one = points(study, probe).loc[(mode, k, depth)]
    return f"{one['accuracy']:.1%} ({100 * one['ci_low']:.1f} to {100 * one['ci_high']:.1f})"


def lead(study: str, quantity: str, above: str, below: str, probe: str = "linear") -> str:
    """Return "7.1 points (4.8 to 9.5; p = 0.038)": one line minus another, with Holm's p."""
    found, sign = compared(study), -1
    if (probe, quantity, above, below) not in found.index:
        above, below, sign = below, above, 1
    one = found.loc[(probe, quantity, above, below)]
    low, high = sorted((sign * 100 * one["ci_low"], sign * 100 * one["ci_high"]))
    return f"{sign * 100 * one['difference']:.1f} points ({low:.1f} to {high:.1f}; p = {p_value(one['p_holm'])})"


def p_value(p: float) -> str:
    return f"{p:.2g}" if p >= 0.001 else f"{p:.0e}"


def levels() -> str:
    at = {mode: accuracy("smoke", mode, k, 3) for mode, k in (("greedy", 3), ("end-to-end", 3), ("untrained", 2))}
    return (
        f"at depth 3 a linear probe reads {at['greedy']} after greedy training with k = 3, {at['end-to-end']} after "
        f"end-to-end training, {at['untrained']} from untrained networks"
    )


def gains() -> str:
    gain = lead("smoke", "final level", "greedy, k = 3", "untrained, k = 2")
    modes = {k: lead("smoke", "final level", f"end-to-end, k = {k}", f"greedy, k = {k}") for k in (2, 3)}
    return (
        f"Greedy training gives {gain} over untrained networks. End-to-end networks end {modes[2]} above greedy ones "
        f"at k = 2 and {modes[3]} at k = 3: no difference is shown, and none is excluded"
    )


def without_batch_norm() -> str:
    return f"greedy networks of k = 1 read {accuracy('smoke', 'greedy', 1, 3)} there"


CLAIMS: dict[str, list[Callable[[], str]]] = {
    "README.md": [levels, gains],
    "docs/study.md": [levels, gains, without_batch_norm],
}


@pytest.mark.parametrize(("document", "claim"), [(name, claim) for name, own in CLAIMS.items() for claim in own])
def test_a_result_that_is_stated_is_that_of_its_table(document: str, claim: Callable[[], str]) -> None:
    text = " ".join((ROOT / document).read_text(encoding="utf-8").split())
    assert claim() in text


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.csv")), ids=lambda path: path.stem)
def test_every_table_of_results_is_named_by_what_it_is_and_used(path: Path) -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert f"results/{path.name}" in text
