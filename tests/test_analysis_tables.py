"""Tests of analysis/tables.py: the right rows are read, with the right types, or an error says what to do."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from analysis import tables
from layerwise.errors import UserError
from tests.probe_rows import row, run_rows, write_run


@pytest.fixture(autouse=True)
def ids(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Stand in for run files: the run_id of each is the one given here for its stem, or else that stem."""
    known: dict[str, str] = {}
    monkeypatch.setattr("analysis.tables.identified", lambda path: (known.get(path.stem, path.stem), ""))
    return known


def test_rows_of_the_current_run_only(tmp_path: Path) -> None:
    old, new = run_rows([0.3, 0.5], run_id="old"), run_rows([0.4, 0.6], run_id="a")
    path = write_run(tmp_path, "a", old + new)
    read = tables.read([path])
    assert read["value"].tolist() == [0.4, 0.6]
    assert read["run"].unique().tolist() == [str(path)]


def test_runs_are_joined_in_the_order_given(tmp_path: Path) -> None:
    paths = [write_run(tmp_path, name, run_rows([0.5], run_id=name)) for name in ("b", "a")]
    assert tables.read(paths)["run_id"].tolist() == ["b", "a"]


def test_a_run_id_of_digits_stays_text(tmp_path: Path, ids: dict[str, str]) -> None:
    ids["a"] = "0123e45"
    path = write_run(tmp_path, "a", run_rows([0.5], run_id="0123e45"))
    assert tables.read([path])["run_id"].tolist() == ["0123e45"]


def test_empty_k_width_and_seed_are_missing_integers(tmp_path: Path) -> None:
    path = write_run(tmp_path, "a", [row(0.5, run_id="a", k=None, width=None, aux_width=None, seed=3)])
    read = tables.read([path])
    assert read[["k", "width", "aux_width"]].isna().all(axis=None)
    assert read["seed"].tolist() == [3]


def test_an_experiment_is_text_and_empty_where_it_is_not_said(tmp_path: Path) -> None:
    rows = [row(0.5, run_id="a", experiment="012345"), row(0.5, run_id="a", depth=2, experiment=None)]
    assert tables.read([write_run(tmp_path, "a", rows)])["experiment"].tolist() == ["012345", ""]


def test_a_table_of_an_older_version_says_no_experiment(tmp_path: Path) -> None:
    older = {name: value for name, value in row(0.5, run_id="a").items() if name != "experiment"}
    new = write_run(tmp_path, "b", [row(0.5, run_id="b")])
    assert tables.read([write_run(tmp_path, "a", [older]), new])["experiment"].tolist() == ["", "0a1b2c"]


def test_epochs_are_whole_numbers_or_missing(tmp_path: Path) -> None:
    rows = [row(0.5, run_id="a"), row(0.5, run_id="a", depth=2, iterations=None)]
    read = tables.read([write_run(tmp_path, "a", rows)])
    assert read["iterations"].iloc[0] == 12 and read["iterations"].isna().tolist() == [False, True]


def test_a_network_without_mode_is_extracted(tmp_path: Path) -> None:
    path = write_run(tmp_path, "a", [row(0.5, run_id="a", mode=None)])
    assert tables.read([path])["mode"].tolist() == ["extracted"]


def test_a_network_built_elsewhere_goes_by_its_label(tmp_path: Path) -> None:
    path = write_run(tmp_path, "a", [row(0.5, run_id="a", mode=None, network="resnet18, untrained")])
    assert tables.read([path])["mode"].tolist() == ["resnet18, untrained"]


def test_a_run_given_twice_counts_once(tmp_path: Path, ids: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    ids["copy"] = "a"
    first, copy = (write_run(tmp_path, name, run_rows([0.5], run_id="a")) for name in ("a", "copy"))
    with caplog.at_level(logging.WARNING, logger="layerwise"):
        assert len(tables.read([first, copy])) == 1
    assert caplog.messages == [f"{copy} is the same run as {first}; it is counted once."]


def test_no_table(tmp_path: Path) -> None:
    run = tmp_path / "a.h5"
    with pytest.raises(UserError) as error:
        tables.read([run])
    assert str(error.value) == (
        f"{run} has no probe results: {tmp_path / 'a.probes.csv'} does not exist. "
        f"`probe-depth {run} --probe linear` makes them."
    )


def test_a_table_without_rows(tmp_path: Path) -> None:
    run = write_run(tmp_path, "a", run_rows([0.5]))
    header = (tmp_path / "a.probes.csv").read_text().splitlines()[0]
    (tmp_path / "a.probes.csv").write_text(header + "\n")
    with pytest.raises(UserError, match=r"a.probes.csv is empty, so .*a.h5 has no probe results. `probe-depth"):
        tables.read([run])


def test_older_runs_only(tmp_path: Path) -> None:
    run = write_run(tmp_path, "a", run_rows([0.5], run_id="old"))
    with pytest.raises(UserError) as error:
        tables.read([run])
    assert str(error.value) == (
        f"{tmp_path / 'a.probes.csv'} holds results of older runs only (run_id old), none of {run} as it is "
        f"now (run_id a). `probe-depth {run} --probe linear` makes them."
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "cannot be read as a table of probe results (EmptyDataError)"),
        ("a,b\n1,2,3\n1,2,3,4\n", "cannot be read as a table of probe results (ParserError)"),
        ("depth,value\nfirst,0.5\n", "cannot be read as a table of probe results (ValueError)"),
        ("\x00\xff", "is no table of probe results: it lacks the column 'run_id'"),
    ],
)
def test_not_a_table(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a.probes.csv").write_bytes(text.encode("utf-8"))
    with pytest.raises(UserError) as error:
        tables.read([tmp_path / "a.h5"])
    assert str(error.value) == f"{tmp_path / 'a.probes.csv'} {reason}. Move it away, and run probe-depth again."


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    rows = [{name: value for name, value in row(0.5).items() if name not in ("refit", "chance")}]
    run = write_run(tmp_path, "a", rows)
    with pytest.raises(UserError, match=r"a.probes.csv is no table of probe results: it lacks the column 'refit'"):
        tables.read([run])


def test_predictions_beside_a_run_are_no_run(tmp_path: Path) -> None:
    run = write_run(tmp_path, "a", run_rows([0.5], run_id="a"))
    assert set(tables.read([run, tmp_path / "a.predictions.h5"])["run"]) == {str(run)}


def test_a_table_of_an_older_version_does_not_say_how_deep_the_network_is(tmp_path: Path) -> None:
    rows = [{name: one for name, one in row(0.5, run_id="a").items() if name not in ("blocks", "batch_norm")}]
    read = tables.read([write_run(tmp_path, "a", rows)])
    assert read[["blocks", "batch_norm"]].isna().all(axis=None)


@pytest.mark.parametrize("word", ["NA", "None", "nan", "null", "007", "=1+1"])
def test_names_are_text_whatever_pandas_takes_them_for(word: str, tmp_path: Path) -> None:
    fields = {"network": word, "dataset": word, "module": word, "mode": None, "k": None}
    read = tables.read([write_run(tmp_path, "a", [row(0.5, run_id="a", **fields)])])
    assert read[["mode", "network", "dataset", "module"]].iloc[0].tolist() == [word] * 4
    assert read["k"].isna().all()


def test_untrained_networks_of_other_kinds_are_lines_of_their_own(tmp_path: Path) -> None:
    kinds = [
        {},
        {"initialisation": "kaiming"},
        {"activation": "none"},
        {"activation": "none", "initialisation": "kaiming"},
    ]
    rows = [row(0.5, run_id="a", mode="untrained", depth=depth, **kind) for depth, kind in enumerate(kinds)]
    rows.append(row(0.5, run_id="a", mode="greedy", depth=4, initialisation="kaiming"))
    names = ["untrained", "untrained, kaiming", "untrained, linear", "untrained, linear, kaiming", "greedy"]
    assert tables.read([write_run(tmp_path, "a", rows)])["mode"].tolist() == names


def test_run_files_are_called_by_what_tells_them_apart() -> None:
    assert tables.file_names(["a/run.h5"]) == {"a/run.h5": "run"}
    assert tables.file_names(["a/one.h5", "a/two.3"]) == {"a/one.h5": "one", "a/two.3": "two.3"}
    assert list(tables.file_names(["x/a/run.h5", "x/b/run.h5", "c.h5"]).values()) == ["a/run", "b/run", "c"]
    assert tables.file_names([]) == {}
