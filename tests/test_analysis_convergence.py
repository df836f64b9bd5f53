"""What the second half of the epochs changes, and which probes were not trained, by hand."""

from __future__ import annotations

import logging
from typing import Any

import pandas as pd
import pytest

from analysis.convergence import Change, changes
from analysis.separability import curves
from figures.plots.caption import caption
from figures.plots.separability import draw
from tests.probe_rows import run_rows, table

CNN = (("cnn-1", 64),)
HALF = {"metric": "accuracy_half"}


def gap(value: float, p: float, **about: Any) -> list[dict[str, Any]]:
    return [
        run_rows([0.0, value], CNN, metric="linear_gap", **about)[1],
        run_rows([0.0, p], CNN, metric="linear_gap_p_holm", **about)[1],
    ]


def points(*rows: list[dict[str, Any]]) -> pd.DataFrame:
    return curves(table([one for many in rows for one in many]))


def test_the_largest_change_of_a_curve_is_named_and_depths_that_change_places(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "layerwise.analysis"):
        made = points(run_rows([0.5, 0.62, 0.6], CNN), run_rows([0.49, 0.57, 0.58], CNN, **HALF))
    assert list(changes(made)) == [Change("cnn-1", pytest.approx(0.05), ((1, 2),))]
    warning = (
        "CNN-1: depths 1 and 2 change places between half of the epochs and all of them, so their order is not settled."
    )
    assert warning in caplog.text
    assert (
        "They were trained for 12 epochs. From half of the epochs to all of them the accuracy of a curve changes: "
        f"CNN-1 by at most 5.0 points. {warning}"
    ) in caption(made)


def test_the_mean_of_networks_has_a_half_only_where_all_have() -> None:
    both = [run_rows([0.5, 0.6 + seed / 10], CNN, seed=seed) for seed in (0, 1)]
    halves = [run_rows([0.4, 0.5 + seed / 10], CNN, seed=seed, **HALF) for seed in (0, 1)]
    assert points(*both, *halves)["accuracy_half"].tolist() == pytest.approx([0.4, 0.55])
    some = points(*both, halves[0])
    assert some["accuracy_half"].isna().all() and list(changes(some)) == []
    assert "From half" not in caption(some) and "trained for 12 epochs" in caption(some)


def test_quick_probes_are_called_so() -> None:
    assert "They were trained for 2 epochs only (quick), far from convergence." in caption(
        points(run_rows([0.5, 0.6], CNN, iterations=2))
    )


def test_a_probe_below_the_linear_one_is_named_and_crossed() -> None:
    rows = run_rows([0.5, 0.3, 0.7], CNN, run_id="a", seed=0)
    made = points(rows, gap(-0.2, 0.01, run_id="a", seed=0))
    assert made["not_trained"].tolist() == ["", "a.h5", ""]
    assert (
        "Not trained (a cross, where it is more than half of those averaged): CNN-1, depth 1 of a.h5; significantly "
        "below the linear probe of that depth (McNemar's exact test, Holm-adjusted over depths, p < 0.05)."
    ) in caption(made)
    (axes,) = draw(made).axes
    (cross,) = [line for line in axes.get_lines() if line.get_label() == "_not trained"]
    assert list(cross.get_ydata()) == [pytest.approx(30)] and cross.get_marker() == "x"


def test_a_mean_is_crossed_where_more_than_half_of_its_probes_are_below_and_says_how_many() -> None:
    rows, gaps = [], []
    for seed, run in enumerate(("a", "b", "c")):
        rows += run_rows([0.5, 0.3, 0.7 + 0.01 * seed], CNN, run_id=run, k=1, aux_width=64, seed=seed)
        gaps.append(gap(-0.2, 0.01, run_id=run, k=1, aux_width=64, seed=seed))
    for below, crosses in ((1, 0), (2, 1)):
        made = points(rows, *gaps[:below])
        assert f"({below} of 3 networks)" in caption(made)
        lines = draw(made).axes[0].get_lines()
        assert len([line for line in lines if line.get_label() == "_not trained"]) == crosses


@pytest.mark.parametrize(("value", "p"), [(-0.2, 0.2), (0.2, 0.001)])
def test_others_are_not(value: float, p: float) -> None:
    made = points(run_rows([0.5, 0.3, 0.7], CNN), gap(value, p))
    assert set(made["not_trained"]) == {""} and "Not trained" not in caption(made)
