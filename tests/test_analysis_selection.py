"""Tests of analysis/selection.py: which rows stand in a figure, and the words in which others are refused."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from analysis.selection import select
from layerwise import commandline
from layerwise.errors import UsageError, UserError
from probes.names import TRAINED
from tests.probe_rows import run_rows, table

TWO = (("linear", 0), ("cnn-1", 64))


def two_runs(**second: Any) -> list[dict[str, Any]]:
    """Return the rows of a run named a of k = 1 and, with the given fields, of a run named b of k = 2."""
    return run_rows([0.3, 0.5], run_id="a") + run_rows([0.3, 0.6], **(dict[str, Any](run_id="b", k=2) | second))


def refusal(rows: list[dict[str, Any]], *question: Any) -> str:
    with pytest.raises(UserError) as error:
        select(table(rows), *question)
    return str(error.value)


@pytest.mark.parametrize(
    "other",
    [
        {"control": "permuted"},
        {"features": "matched"},
        {"metric": "log_loss_bits"},
        {"split": "train"},
        {"refit": 0},
        {"protocol_version": 0},
    ],
)
def test_other_rows_are_not_taken(other: dict[str, Any]) -> None:
    rows = run_rows([0.5], run_id="a") + run_rows([0.9], run_id="a", **other)
    assert select(table(rows))["value"].tolist() == [0.5]


def test_not_refitted_rows_on_demand() -> None:
    rows = run_rows([0.5], run_id="a") + run_rows([0.4], run_id="a", refit=0)
    assert select(table(rows), None, "test", False)["value"].tolist() == [0.4]


def test_a_run_without_validation_fold_gives_what_it_has(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="layerwise"):
        chosen = select(table(two_runs(refit=0, selection="seen")))
    assert dict(zip(chosen["run_id"], chosen["refit"], strict=True)) == {"a": 1, "b": 0}
    assert caplog.messages == [
        "b.h5 has no refitted probe linear; the one fitted on its train fold is drawn.",
        "hyper-parameters of probe linear were not chosen alike: validation (a.h5), seen (b.h5), so a difference "
        "between lines need not be due to the networks.",
    ]


def test_runs_that_all_lack_a_validation_fold_are_alike(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="layerwise"):
        select(table(run_rows([0.5], run_id="a", refit=0, selection="seen")))
    assert caplog.messages == []


def test_the_validation_split() -> None:
    rows = run_rows([0.5], run_id="a") + run_rows([0.4], run_id="a", refit=0, split="validation")
    assert select(table(rows), None, "validation", False)["value"].tolist() == [0.4]


def test_probes_that_some_run_lacks_are_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    rows = run_rows([0.5], TWO, run_id="a") + run_rows([0.5], run_id="b", k=2)
    with caplog.at_level(logging.WARNING, logger="layerwise"):
        chosen = select(table(rows))
    assert set(chosen["probe"]) == {"linear"}
    assert caplog.messages == ["probe cnn-1 is left out: b.h5 has no rows of it (`probe-depth`)."]


def test_a_probe_that_several_runs_lack(caplog: pytest.LogCaptureFixture) -> None:
    rows = run_rows([0.5], TWO, run_id="a") + run_rows([0.5], run_id="b", k=2) + run_rows([0.5], run_id="c", k=3)
    with caplog.at_level(logging.WARNING, logger="layerwise"):
        select(table(rows))
    assert caplog.messages == ["probe cnn-1 is left out: b.h5, c.h5 have no rows of it (`probe-depth`)."]


def test_a_probe_asked_for_must_be_in_every_run() -> None:
    rows = run_rows([0.5], TWO, run_id="a") + run_rows([0.5], run_id="b", k=2)
    assert refusal(rows, ["cnn-1"]) == (
        "b.h5 has no rows of probe cnn-1 (found: linear). `probe-depth b.h5 --probe cnn-1` makes them."
    )


def test_no_probe_in_common() -> None:
    assert refusal(two_runs(probe="cnn-1")) == (
        "a.h5 has no rows of probe cnn-1 (found: linear). `probe-depth a.h5 --probe cnn-1` makes them."
    )


def test_no_native_accuracy_at_all() -> None:
    assert refusal(run_rows([0.5], run_id="a", control="permuted")) == (
        "a.h5 has no rows of probe linear (found: none). `probe-depth a.h5 --probe linear` makes them."
    )


def test_unknown_probe() -> None:
    assert refusal(two_runs(), ["linaer"]) == (
        "unknown probe 'linaer'. Did you mean 'linear'? Choices: linear, linear-ovr, cnn-1, cnn-2, cnn-p for any p, "
        "knn, ncm, codelength, auxiliary, ensemble, ensemble-softmax, ensemble-uniform."
    )


@pytest.mark.parametrize("probe", TRAINED)
def test_what_a_run_trained_itself_is_known_by_name(probe: str) -> None:
    assert refusal(two_runs(), [probe]) == (
        f"a.h5 has no rows of probe {probe} (found: linear). `probe-depth a.h5 --probe {probe}` makes them, "
        f"if its network was trained with auxiliary classifiers."
    )


def trained(probe: str, **fields: Any) -> list[dict[str, Any]]:
    """Return rows of what the run trained itself, as they are made: no refit, nothing chosen."""
    return run_rows([0.5], ((probe, 0),), pooling=0, refit=0, selection="fixed", **fields)


@pytest.mark.parametrize("probe", TRAINED)
def test_what_a_run_trained_itself_is_drawn_only_when_asked_for(probe: str, caplog: pytest.LogCaptureFixture) -> None:
    rows = table(run_rows([0.5], run_id="a") + trained(probe, run_id="a") + run_rows([0.5], run_id="b", k=2))
    with caplog.at_level(logging.WARNING, logger="layerwise"):
        assert set(select(rows)["probe"]) == {"linear"}
        assert set(select(rows[rows["run"] == "a.h5"], [probe])["probe"]) == {probe}
    assert caplog.messages == []


def test_nothing_but_what_a_run_trained_itself() -> None:
    assert refusal(trained("auxiliary", run_id="a")) == (
        "a.h5 has no rows of probe linear (found: auxiliary). `probe-depth a.h5 --probe linear` makes them."
    )


def test_unknown_split() -> None:
    message = refusal(two_runs(), None, "tset")
    assert message == "unknown split 'tset'. Did you mean 'test'? Choices: train, validation, test."


def test_validation_of_refitted_probes() -> None:
    with pytest.raises(UsageError, match=r"has seen the validation images.*Give --no-refit with --split validation"):
        select(table(two_runs()), None, "validation", True)


def test_a_split_without_rows() -> None:
    assert refusal(two_runs(), None, "train") == (
        "a.h5 has no train rows of probe linear (found: test). Give another --split."
    )


def test_only_refitted_rows() -> None:
    assert refusal(two_runs(), None, "test", False) == (
        "a.h5 has only refitted rows of probe linear for this split. Leave out --no-refit."
    )


def test_different_protocols() -> None:
    assert refusal(two_runs(protocol_version=2)) == (
        "probe linear was measured by different protocols: 1 (a.h5); 2 (b.h5). "
        "Probe the older runs again with `probe-depth`."
    )


def test_widths_that_some_run_lacks_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    rows = run_rows([0.5], (("cnn-1", 64), ("cnn-1", 128)), run_id="a")
    rows += run_rows([0.5], (("cnn-1", 64),), run_id="b", k=2)
    with caplog.at_level(logging.WARNING, logger="layerwise"):
        chosen = select(table(rows))
    assert set(chosen["probe_width"]) == {64}
    assert caplog.messages == ["widths of probe cnn-1 that some run lacks are left out: 64, 128 (a.h5); 64 (b.h5)."]


def test_no_width_in_common() -> None:
    rows = run_rows([0.5], (("cnn-1", 64),), run_id="a") + run_rows([0.5], (("cnn-1", 128),), run_id="b", k=2)
    assert refusal(rows) == (
        "the runs have no width of probe cnn-1 in common: 64 (a.h5); 128 (b.h5). "
        "Probe them alike with `probe-depth --probe cnn-1 --probe-width`."
    )


def test_poolings_that_some_run_lacks_are_named_as_poolings(capsys: pytest.CaptureFixture[str]) -> None:
    one = run_rows([0.5], run_id="a") + [row | {"pooling": 4} for row in run_rows([0.5], run_id="a")]
    commandline.set_verbosity(quiet=True, verbose=False)
    select(table(one + run_rows([0.5], run_id="b", k=2)))
    assert "poolings of probe linear that some run lacks are left out: 2, 4 (a.h5); 2 (b.h5)" in capsys.readouterr().err
    apart = [row | {"pooling": 4} for row in run_rows([0.5], run_id="a")] + run_rows([0.5], run_id="b", k=2)
    assert refusal(apart).endswith("Probe them alike with `probe-depth --probe linear --pool`.")
