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
from analysis.trend import trends
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


def difference(study: str, quantity: str, first: str, second: str, probe: str = "linear") -> str:
    """Return "0.47 points (-0.08 to 1.02; p = 0.034)": second minus first, with Holm's p."""
    one = compared(study).loc[(probe, quantity, first, second)]
    low, high = 100 * one["ci_low"], 100 * one["ci_high"]
    return f"{100 * one['difference']:.1f} points ({low:.1f} to {high:.1f}; p = {p_value(one['p_holm'])})"


def trend(study: str, mode: str, k: int, probe: str = "linear") -> str:
    own = rows(study)
    found = trends(own[own["activation"] != "none"]).set_index(["probe", "mode", "k"])
    return f"p = {p_value(found.loc[(probe, mode, k), 'p_holm'])}"


def p_value(p: float) -> str:
    return f"{p:.2g}" if p >= 0.001 else f"{p:.0e}"


CLAIMS: dict[str, list[Callable[[], str]]] = {}


@pytest.mark.parametrize(("document", "claim"), [(name, claim) for name, own in CLAIMS.items() for claim in own])
def test_a_result_that_is_stated_is_that_of_its_table(document: str, claim: Callable[[], str]) -> None:
    text = " ".join((ROOT / document).read_text(encoding="utf-8").split())
    assert claim() in text


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.csv")), ids=lambda path: path.stem)
def test_every_table_of_results_is_named_by_what_it_is_and_used(path: Path) -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert f"results/{path.name}" in text
