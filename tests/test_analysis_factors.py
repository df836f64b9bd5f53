"""Tests of analysis/factors.py: what a line may average, and the words where it may not or should not."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from analysis.factors import FACTORS, line_columns, panel_columns
from analysis.separability import curves
from analysis.tables import LINE, PANEL
from layerwise.errors import UsageError, UserError
from tests.probe_rows import run_rows, table

POOLED = (("linear", 0),)


def network(**fields: Any) -> list[dict[str, Any]]:
    return run_rows([0.3, 0.5], **fields)


def refusal(rows: list[dict[str, Any]], by: str, probes: list[str] | None = None) -> str:
    with pytest.raises(UserError) as error:
        curves(table(rows), probes, by=by)
    return str(error.value)


def test_a_factor_tells_lines_or_panels_apart_and_never_both() -> None:
    assert (line_columns("k"), panel_columns("k")) == (LINE, PANEL)
    for by in FACTORS:
        assert not set(line_columns(by)) & set(panel_columns(by))
        assert set(PANEL) <= {*line_columns(by), *panel_columns(by)}
        assert "mode" in line_columns(by)  # modes are never averaged


@pytest.mark.parametrize("by", ["width", "seed", "pool"])
def test_modes_are_never_averaged(by: str) -> None:
    rows = [
        one for mode in ("greedy", "untrained") for pooling in (1, 2) for one in network(mode=mode, pooling=pooling)
    ]
    assert refusal(rows, by) == (
        f"the runs are of 2 modes (greedy, untrained), which are never averaged. By {by}, give the runs of one mode."
    )


def test_lines_of_other_networks_are_said(caplog: pytest.LogCaptureFixture) -> None:
    rows = network(k=1, width=64) + network(k=2, width=64) + network(k=3, width=128)
    with caplog.at_level(logging.WARNING, logger="layerwise"):
        curves(table(rows))
    (message,) = caplog.messages
    assert message == (
        "greedy, k = 1 is of M = 64 and greedy, k = 3 of M = 128, so a difference between them need not be due to mode "
        "or k."
    )


def test_lines_that_average_other_cells_are_said(caplog: pytest.LogCaptureFixture) -> None:
    rows = network(k=1) + network(k=2) + network(mode="untrained", k=1)
    with caplog.at_level(logging.WARNING, logger="layerwise"):
        curves(table(rows), by="mode")
    assert caplog.messages == [
        "greedy is of (k, M) = (1, 64), (2, 64) and untrained of (k, M) = (1, 64), so a difference between them need "
        "not be due to mode."
    ]


def test_lines_of_the_same_cells_are_not(caplog: pytest.LogCaptureFixture) -> None:
    rows = [one for mode in ("greedy", "untrained") for k in (1, 2) for one in network(mode=mode, k=k)]
    elsewhere = network(mode="net", k=None, width=None, aux_width=None, batch_norm=None)
    with caplog.at_level(logging.WARNING, logger="layerwise"):
        for by in ("k", "mode"):
            curves(table(rows + elsewhere), by=by)
    assert caplog.messages == []


def test_runs_of_different_experiments_are_not_averaged_over_k() -> None:
    rows = network(run_id="a", k=1) + network(run_id="b", k=2, experiment="other")
    assert refusal(rows, "mode") == (
        "a.h5 and b.h5 would be averaged, but are different experiments (0a1b2c and other): their data or their "
        "configurations differ in more than k, widths and seed. `layerwise-inspect` shows in what; draw a figure for "
        "each."
    )
    assert len(curves(table(rows))) == 4


def test_only_pooled_probes_have_poolings() -> None:
    both = [one for pooling in (1, 2) for one in network(pooling=pooling)] + run_rows([0.3, 0.5], (("cnn-1", 64),))
    made = curves(table(both), by="pool")
    assert (set(made["probe"]), made["pooling"].tolist()) == ({"linear"}, [1, 1, 2, 2])
    with pytest.raises(UsageError) as error:
        curves(table(both), ["cnn-1"], by="pool")
    assert str(error.value) == ("probe cnn-1 reads no pooled activations; by pool, give linear, linear-ovr, knn, ncm.")


def test_one_pooling_is_no_factor() -> None:
    assert refusal(network(run_id="a"), "pool") == (
        "no probe was fitted to every run with several poolings. `probe-depth a.h5 --probe linear --pool 1,2,4` makes "
        "the rows."
    )
