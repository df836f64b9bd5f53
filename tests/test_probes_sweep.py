"""The sweep: what is complete stays, each depth is kept at once, and a stopped one goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest
from test_probes_results_comparisons import fit

from layerwise.runfile import RunFile
from probes.csvfile import write_csv
from probes.probe import Family, Played, ProbeName
from probes.protocol import Fit
from probes.results import table
from probes.results.columns import SCHEMA
from probes.results.integrity import sealed
from probes.results.table import read_rows, table_path
from probes.sweep import missing, rows_at, sweep
from probes.tasks.task import Task


class Noted(Family):
    """Probes that note what is asked of them, and fail at a depth where they are told to."""

    title = "noted"

    def __init__(self, run: RunFile, fails_at: int | None = None):
        self.run, self.fails_at = run, fails_at
        self.asked: list[object] = []
        self.wrong = 2

    def depths(self) -> list[int]:
        return self.run.depths

    def names(self, depth: int) -> list[ProbeName]:
        return [ProbeName(depth=depth, probe="linear", pooling=side) for side in (1, 2)]

    def prepare(self, missing: object) -> None:
        self.asked.append(missing)

    def fit(self, depth: int, wanted: Sequence[ProbeName]) -> list[tuple[ProbeName, list[Fit]]]:
        if depth == self.fails_at:
            raise KeyboardInterrupt
        self.asked += wanted
        return [(name, [fit(self.run, slice(0, 3), 0), fit(self.run, slice(0, self.wrong))]) for name in wanted]

    def again(self, depth: int, names: Sequence[ProbeName]) -> Iterator[Played]:
        raise NotImplementedError


def test_a_stopped_sweep_goes_on_and_a_complete_one_does_nothing(own_run: Path) -> None:
    with RunFile(own_run) as run:
        with pytest.raises(KeyboardInterrupt) as stopped:
            sweep(run, Task(run), Noted(run, fails_at=1), [0, 1, 2])
        (kept,) = stopped.value.__notes__
        assert kept.endswith(f"1 of 3 depths are in {table_path(run.path)}; the same command goes on with the others.")
        again = Noted(run)
        assert set(missing(run, again, [0, 1, 2])) == {1, 2}
        assert sweep(run, Task(run), again, [0, 1, 2]) == 4
        assert again.asked == [{d: again.names(d) for d in (1, 2)}, *again.names(1), *again.names(2)]
        idle = Noted(run)
        assert sweep(run, Task(run), idle, [0, 1, 2]) == 0
        assert idle.asked == []
        assert set(read_rows(run)["test_reads"]) == {1}


def test_a_sweep_parses_the_table_once_and_again_only_where_another_process_wrote(
    own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunFile(own_run) as run:
        sweep(run, Task(run), Noted(run), [0])
        table._last.clear()  # as in a new process
        parsed: list[Path] = []
        read_csv = table.read_csv
        monkeypatch.setattr(table, "read_csv", lambda path, types: parsed.append(path) or read_csv(path, types))
        family = Noted(run)
        sweep(run, Task(run), family, [0, 1, 2])
        rows_at(run, family, [0, 1, 2])
        assert len(parsed) == 1

        class Meanwhile(Noted):
            """Probes while which another process writes into the table."""

            def fit(self, depth: int, wanted: Sequence[ProbeName]) -> list[tuple[ProbeName, list[Fit]]]:
                if depth == 2:
                    own = pd.read_csv(table_path(run.path))
                    both = pd.concat([own, own.assign(run_id="other")], ignore_index=True)
                    write_csv(sealed(both, SCHEMA), table_path(run.path))
                return super().fit(depth, wanted)

        sweep(run, Task(run), Meanwhile(run), [1, 2], force=True)
        assert len(parsed) == 2
        assert set(pd.read_csv(table_path(run.path))["run_id"]) == {run.run_id, "other"}


def test_what_was_kept_in_memory_is_what_stands_in_the_file(own_run: Path) -> None:
    with RunFile(own_run) as run:
        sweep(run, Task(run), Noted(run), [0, 1, 2])
        kept = table.read_table(table_path(run.path))
        table._last.clear()
        parsed = table.read_table(table_path(run.path))
    assert kept is not parsed
    texts = [column.name for column in SCHEMA if column.type == "text"]
    assert kept[texts].fillna("").equals(parsed[texts].astype(object).fillna(""))
    pd.testing.assert_frame_equal(kept.drop(columns=texts), parsed.drop(columns=texts), rtol=1e-15)


def test_what_stops_the_first_fit_is_said_and_not_that_there_is_no_table(own_run: Path) -> None:
    with RunFile(own_run) as run, pytest.raises(KeyboardInterrupt):
        sweep(run, Task(run), Noted(run, fails_at=1), [1])
    assert not own_run.with_name("run.probes.csv").exists()


def test_force_fits_again_and_another_recipe_is_another_probe(own_run: Path) -> None:
    with RunFile(own_run) as run:
        sweep(run, Task(run), Noted(run), [1])
        assert sweep(run, Task(run), Noted(run), [1], force=True) == 2
        assert set(read_rows(run)["test_reads"]) == {2}
        longer = Noted(run)
        longer.iterations = 40
        assert set(missing(run, longer, [1])) == {1}


def test_rows_come_in_the_order_of_the_names(own_run: Path) -> None:
    with RunFile(own_run) as run:
        family = Noted(run)
        sweep(run, Task(run), family, [2, 1])
        found = rows_at(run, family, [1, 2])[["depth", "pooling"]].drop_duplicates().to_numpy().tolist()
        assert found == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_a_stopped_sweep_leaves_no_comparison_with_an_earlier_fit(own_run: Path) -> None:
    with RunFile(own_run) as run:
        sweep(run, Task(run), Noted(run), [1, 2])
        before = read_rows(run)
        assert "gain" in set(before["metric"])
        worse = Noted(run, fails_at=2)
        worse.wrong = 40
        with pytest.raises(KeyboardInterrupt):
            sweep(run, Task(run), worse, [1, 2], force=True)
        after = read_rows(run)
        gains = after[(after["metric"] == "gain") & (after["depth"] == 2)]["value"]
        assert (gains > 0.1).all()  # against the new fit of depth 1
