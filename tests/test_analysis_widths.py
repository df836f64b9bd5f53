"""Accuracy and teacher gap against probe width: which rows, their means, their intervals, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.widths import against_width
from layerwise.errors import UsageError, UserError
from tests.probe_rows import run_rows, table

WIDTHS = (("cnn-1", 64), ("cnn-1", 128), ("cnn-2", 64), ("cnn-2", 128), ("linear", 0))


def rows(**fields: Any) -> list[dict[str, Any]]:
    return run_rows([0.4, 0.6], WIDTHS, **fields)


def teacher_gap(value: float = 0.2, **fields: Any) -> list[dict[str, Any]]:
    """Return rows of the teacher gap: its value at depth 0, 0.1 more at depth 1."""
    return [
        row | {"value": value + 0.1 * row["depth"], "ci_low": value - 0.03, "ci_high": value + 0.03}
        for row in rows(control="teacher", metric="teacher_gap", **fields)
        if row["probe"] != "linear"
    ]


def test_a_point_for_each_probe_depth_and_width_of_both_measures() -> None:
    points = against_width(table(rows() + teacher_gap()))
    assert points.groupby("measure").size().to_dict() == {"accuracy": 8, "teacher_gap": 8}
    assert list(points.columns[:5]) == ["probe", "measure", "depth", "probe_width", "value"]
    assert set(points["probe"]) == {"cnn-1", "cnn-2"}
    values = points.groupby(["measure", "depth"])["value"].unique().map(list).to_dict()
    assert values["accuracy", 1] == [0.6] and values["teacher_gap", 1] == pytest.approx([0.3])
    assert set(points.loc[points["measure"] == "teacher_gap", "interval"]) == {"paired over images (bootstrap 95%)"}
    assert points["chance"].notna().all() and points["n_samples"].notna().all()


def test_probe_seeds_are_averaged_and_their_intervals_too() -> None:
    made = rows() + rows(probe_seed=1) + teacher_gap(0.2) + teacher_gap(0.3, probe_seed=1)
    points = against_width(table(made), ["cnn-1"])
    one = points[(points["measure"] == "teacher_gap") & (points["depth"] == 0)].iloc[0]
    assert (one["value"], one["ci_low"], one["ci_high"]) == pytest.approx((0.25, 0.22, 0.28))


def test_several_networks_have_no_interval_of_the_teacher_gap() -> None:
    made = [row for seed in (0, 1) for row in rows(seed=seed) + teacher_gap(0.2 + 0.1 * seed, seed=seed)]
    points = against_width(table(made), ["cnn-1"])
    own = points[points["measure"] == "teacher_gap"]
    assert own.loc[own["depth"] == 0, "value"].tolist() == pytest.approx([0.25, 0.25])
    assert own["ci_low"].isna().all() and set(own["interval"]) == {""}
    assert set(points["n_runs"]) == {2}


def test_without_the_teacher_only_accuracy() -> None:
    assert set(against_width(table(rows()))["measure"]) == {"accuracy"}
    fold = [row | {"split": "validation", "refit": 0} for row in rows()]
    points = against_width(table(rows() + teacher_gap() + fold), split="validation", refit=False)
    assert set(points["measure"]) == {"accuracy"}


@pytest.mark.parametrize(
    ("made", "probes", "kind", "message"),
    [
        (run_rows([0.4, 0.5]), None, UserError, r"no CNN probe was fitted to every run. `probe-depth .* --probe cnn-1"),
        (rows(), ["linear"], UsageError, "probe 'linear' has no width to draw against; give cnn-1"),
        (run_rows([0.4], (("cnn-1", 64),)), None, UserError, "one width only, M = 64. `probe-depth --probe cnn-1"),
        (rows() + rows(k=2), None, UserError, r"2 kinds \(greedy, k = 1; greedy, k = 2\); .* Give the runs of one"),
    ],
)
def test_what_cannot_be_drawn_is_said(made: Any, probes: Any, kind: type[UserError], message: str) -> None:
    with pytest.raises(kind, match=message):
        against_width(table(made), probes)


def test_a_run_without_the_probe_leaves_it_out() -> None:
    made = rows() + run_rows([0.4, 0.6], WIDTHS[:2], seed=1)
    assert set(against_width(table(made))["probe"]) == {"cnn-1"}


def test_rows_of_an_earlier_protocol_which_called_it_selectivity_are_left_out() -> None:
    earlier = [row | {"metric": "selectivity", "protocol_version": 0} for row in teacher_gap()]
    assert set(against_width(table(rows() + earlier))["measure"]) == {"accuracy"}
    beside = against_width(table(rows() + teacher_gap() + [row | {"metric": "teacher_gap"} for row in earlier]))
    assert beside.groupby("measure").size().to_dict() == {"accuracy": 8, "teacher_gap": 8}
