"""Tests of analysis/comparability.py: what is averaged are seeds of one experiment, and else the words of refusal."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.selection import select
from layerwise.errors import UserError
from tests.probe_rows import run_rows, table

CNN = (("cnn-1", 64),)


def two_runs(**second: Any) -> list[dict[str, Any]]:
    """Return the rows of a run named a of k = 1 and, with the given fields, of a run named b of k = 2."""
    return run_rows([0.3, 0.5], run_id="a") + run_rows([0.3, 0.6], **(dict[str, Any](run_id="b", k=2) | second))


def two_seeds(probes: Any = (("linear", 0),), **second: Any) -> list[dict[str, Any]]:
    """Return the rows of two runs of one line: a of seed 0 and, with the given fields, b of seed 1."""
    return run_rows([0.5], probes, run_id="a") + run_rows([0.6], probes, **{"run_id": "b", "seed": 1} | second)


def refusal(rows: list[dict[str, Any]], *question: Any) -> str:
    with pytest.raises(UserError) as error:
        select(table(rows), *question)
    return str(error.value)


def test_different_data_sets_are_named() -> None:
    assert refusal(two_runs(dataset="cifar10")) == (
        "the runs are of different data sets: digits (a.h5); cifar10 (b.h5). Draw a figure for each."
    )


@pytest.mark.parametrize(("column", "what"), [("n_classes", "classes"), ("n_samples", "test images")])
def test_data_sets_of_one_name_but_different_size(column: str, what: str) -> None:
    rows = [row | {column: 7 if row["run_id"] == "a" else 8} for row in two_runs()]
    assert refusal(rows) == (
        f"the runs differ in their number of {what}, so their data are not the same: 7 (a.h5); 8 (b.h5). "
        f"Draw a figure for each."
    )


def test_different_experiments_are_no_seeds() -> None:
    assert refusal(two_seeds(experiment="3d4e5f")) == (
        "a.h5 and b.h5 have the same mode and k and would be averaged, but are different experiments (0a1b2c and "
        "3d4e5f): their data or their configurations differ in more than widths and seed. `layerwise-inspect` shows "
        "in what; draw a figure for each."
    )


@pytest.mark.parametrize(("first", "second", "unknown"), [("", "0a1b2c", "a"), ("0a1b2c", "", "b")])
def test_a_table_that_does_not_say_its_experiment_is_not_averaged_with_others(
    first: str, second: str, unknown: str
) -> None:
    rows = [row | {"experiment": first if row["run_id"] == "a" else second} for row in two_seeds()]
    assert refusal(rows) == (
        f"a.h5 and b.h5 have the same mode and k and would be averaged, but the probe results of {unknown}.h5, of an "
        f"older version, do not say of which experiment it is. Probe it again with "
        f"`probe-depth {unknown}.h5 --probe linear`."
    )


def test_one_row_that_says_the_experiment_says_it_for_its_run() -> None:
    rows = run_rows([0.7], CNN, run_id="a", experiment="") + run_rows([0.7], CNN, run_id="b", seed=1) + two_seeds()
    assert len(select(table(rows), ["cnn-1"])) == 2


def test_old_tables_alone_are_averaged_as_before() -> None:
    assert len(select(table([row | {"experiment": ""} for row in two_seeds()]))) == 2


@pytest.mark.parametrize("line", [{"k": 2}, {"mode": "untrained"}])
def test_lines_of_a_figure_may_be_different_experiments(line: dict[str, Any]) -> None:
    assert len(select(table(two_seeds(experiment="3d4e5f", n_train=900, **line)))) == 2


def test_networks_without_configuration_are_compared_with_each_other() -> None:
    rows = two_seeds(experiment="3d4e5f")
    assert "different experiments" in refusal([row | {"mode": "extracted", "k": None} for row in rows])
    assert len(select(table([row | {"mode": "extracted", "k": None, "experiment": ""} for row in rows]))) == 2


def test_a_line_has_one_number_of_training_images() -> None:
    assert refusal(two_seeds(n_train=900)) == (
        "probe linear was fitted on 1000 images at depth 0 of a.h5 but fitted on 900 images at depth 0 of b.h5, so "
        "they cannot be one line. Draw a figure for each run."
    )


def test_fits_before_and_after_refitting_have_different_images() -> None:
    assert len(select(table(two_seeds(n_train=900, refit=0, selection="seen")))) == 2


@pytest.mark.parametrize(("epochs", "words"), [(24, "24"), (None, "an unknown number of")])
def test_a_line_has_one_number_of_epochs_of_cnn_probes(epochs: int | None, words: str) -> None:
    assert refusal(two_seeds(CNN, iterations=epochs)) == (
        f"probe cnn-1 was trained for 12 epochs at depth 0 of a.h5 but trained for {words} epochs at depth 0 of b.h5, "
        f"so they cannot be compared. Probe them alike with `probe-depth --probe cnn-1 --epochs`."
    )


def test_a_figure_has_one_batch_size_of_cnn_probes() -> None:
    rows = [row | {"batch_size": 256 if row["run_id"] == "b" else 32} for row in two_seeds(CNN)]
    assert refusal(rows) == (
        "probe cnn-1 was trained in 32 images a batch at depth 0 of a.h5 but trained in 256 images a batch at depth 0 "
        "of b.h5, so they cannot be compared. Probe them alike with `probe-depth --probe cnn-1 --device`."
    )


def test_the_depths_of_one_run_have_one_number_of_epochs_too() -> None:
    rows = run_rows([0.5, 0.6], CNN, run_id="a")
    rows[1]["iterations"] = 24
    assert "12 epochs at depth 0 of a.h5 but trained for 24 epochs at depth 1 of a.h5" in refusal(rows)


def test_steps_of_a_convex_fit_may_differ() -> None:
    assert len(select(table(two_seeds(iterations=7)))) == 2


def test_probes_of_other_widths_and_other_lines_have_the_same_epochs_too() -> None:
    rows = two_seeds(CNN) + two_seeds((("cnn-1", 128),), iterations=24)
    rows = [row | {"iterations": 24} if row["probe_width"] == 128 else row for row in rows]
    assert "12 epochs at depth 0 of a.h5 but trained for 24 epochs at depth 0 of a.h5" in refusal(rows)
    lines = run_rows([0.5], CNN, run_id="a", k=1) + run_rows([0.5], CNN, run_id="b", k=2, iterations=24)
    assert "12 epochs at depth 0 of a.h5 but trained for 24 epochs at depth 0 of b.h5" in refusal(lines)


@pytest.mark.parametrize("k", [1, None])
def test_a_seed_cannot_count_twice(k: int | None) -> None:
    rows = run_rows([0.5], run_id="a", k=k) + run_rows([0.6], run_id="b", k=k)
    assert refusal(rows) == (
        "a.h5 and b.h5 have the same mode, k, widths and seed; an average takes each seed once. Leave one of them out."
    )


def test_a_number_twice_in_a_table() -> None:
    rows = run_rows([0.5, 0.6], run_id="a") + run_rows([0.5], run_id="a")
    assert refusal(rows) == (
        "the results of a.h5 hold probe linear at depth 0 more than once. Move the table away and probe "
        "again with `probe-depth a.h5 --probe linear`."
    )


def test_lines_of_different_experiments_are_drawn_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    select(table(two_runs(experiment="another")))
    assert (
        "a.h5 and b.h5 differ in more than mode, k, widths and seed (`layerwise-inspect` shows in what)" in caplog.text
    )
    caplog.clear()
    select(table(two_runs()))
    assert caplog.text == ""


def test_a_line_that_lacks_a_depth_of_another_is_named(caplog: pytest.LogCaptureFixture) -> None:
    select(table(run_rows([0.3, 0.5], run_id="a") + run_rows([0.3, 0.6, 0.7], run_id="b", k=2)))
    assert "a.h5 has no probe linear at depth 2, which another has." in caplog.text


def elsewhere(values: list[float], name: str, **fields: Any) -> list[dict[str, Any]]:
    """Return the rows of a network built elsewhere, called `name`, whose run is named so too."""
    built = {"mode": name, "k": None, "width": None, "aux_width": None, "experiment": "of its own"}
    return run_rows(values, **(dict[str, Any](run_id=name) | built | fields))


def test_a_network_built_elsewhere_has_its_own_depths_and_experiment(caplog: pytest.LogCaptureFixture) -> None:
    rows = run_rows([0.3, 0.5], run_id="a") + elsewhere([0.3, 0.4, 0.5, 0.6], "resnet") + elsewhere([0.2], "vit")
    assert len(select(table(rows))) == 7
    assert caplog.text == ""


def test_a_gap_between_its_depths_is_named(caplog: pytest.LogCaptureFixture) -> None:
    rows = run_rows([0.3, 0.5], run_id="a") + elsewhere([0.3, 0.4, 0.5, 0.6], "resnet")
    select(table([row for row in rows if row["mode"] == "greedy" or row["depth"] != 2]))
    assert "resnet.h5 has no probe linear at depth 2, between others." in caplog.text


def test_probes_of_it_that_were_fitted_on_other_images_are_named(caplog: pytest.LogCaptureFixture) -> None:
    select(table(run_rows([0.3, 0.5], run_id="a") + elsewhere([0.3, 0.4], "resnet", n_train=500)))
    assert (
        "probe linear was fitted on 1000 images at depth 0 of a.h5 but fitted on 500 images at depth 0 of resnet.h5, "
        "so a difference between their lines need not be due to the networks." in caplog.text
    )


def test_two_networks_of_one_label_are_told_to_have_another() -> None:
    rows = elsewhere([0.3], "net", run_id="a") + elsewhere([0.4], "net", run_id="b")
    assert refusal(rows) == (
        "a.h5 and b.h5 are both called 'net', of one seed. Extract one of them under another --label, or, if it "
        "repeats the other, with its own --seed."
    )
    assert len(select(table(elsewhere([0.3], "net", run_id="a") + elsewhere([0.4], "net", run_id="b", seed=1)))) == 2
    different = elsewhere([0.3], "net", run_id="a") + elsewhere([0.4], "net", run_id="b", seed=1, experiment="another")
    assert "a.h5 and b.h5 have the same label, net, and would be averaged, but are different exp" in refusal(different)


def test_penalties_that_were_not_chosen_alike_are_said_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    rows = run_rows([0.4, 0.6], k=1, run_id="a") + run_rows([0.4, 0.6], k=2, run_id="b", selection="seen")
    select(table(rows), ["linear"])
    assert [record.message for record in caplog.records] == [
        "hyper-parameters of probe linear were not chosen alike: validation (a.h5), seen (b.h5), so a difference "
        "between lines need not be due to the networks."
    ]
    caplog.clear()
    select(table(run_rows([0.4, 0.6], k=1) + run_rows([0.4, 0.6], k=2)), ["linear"])
    assert not caplog.records
