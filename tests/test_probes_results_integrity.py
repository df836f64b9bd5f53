"""Digests in rows of tables: each changed value and lost row is found, saving by other programs changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from layerwise.errors import UserError
from layerwise.runfile import RunFile
from probes.csvfile import write_csv
from probes.probe import ProbeName
from probes.protocol import Fit, Predictions
from probes.results.columns import SCHEMA, Column
from probes.results.integrity import digests, require_intact, sealed
from probes.results.table import parse_table, read_table, save, table_path
from probes.tasks.task import Task

SMALL = (
    Column("run_id", "text", "", key="number"),
    Column("depth", "integer", "", key="probe"),
    Column("value", "number", "", empty="sometimes"),
    Column("digest", "text", ""),
)


def small() -> pd.DataFrame:
    values = [1 / 3, np.nan, 2e-9, 0.1 + 0.2]
    return pd.DataFrame({"run_id": "r", "depth": [0, 0, 1, 1], "value": values})


@pytest.fixture
def table(own_run: Path) -> Path:
    rng = np.random.default_rng(0)
    with RunFile(own_run) as run:
        label = run.labels("test")
        for depth in (0, 1):
            chances = np.log(rng.uniform(0.1, 1, len(label)))
            scored = Predictions(label, rng.integers(0, 10, len(label)), chances, chances)
            fit = Fit(
                refit=1,
                selection="validation",
                n_train=7,
                n_features=3,
                seconds=1 / 3,
                penalty=1 / 7,
                scores={"test": scored},
            )
            save(run, Task(run), [(ProbeName(depth=depth, probe="linear"), [fit])])
    return table_path(own_run)


def test_the_digest_is_that_of_the_written_rule() -> None:
    found = sealed(small(), SMALL)
    text = "\x1f".join(["r", "1", "0.3", "2"])  # 0.1 + 0.2 with 14 digits; the probe of depth 1 has two rows
    import hashlib

    assert found["digest"].iloc[3] == "d" + hashlib.sha256(text.encode()).hexdigest()[:16]
    assert found["value"].iloc[0] == 0.33333333333333


def test_any_changed_value_and_any_lost_or_doubled_row_is_found(tmp_path: Path) -> None:
    whole = sealed(small(), SMALL)
    require_intact(whole, SMALL, tmp_path)
    changes = [
        whole.assign(run_id="s"),
        whole.assign(depth=[0, 1, 1, 1]),
        whole.assign(value=[0.5, *whole["value"][1:]]),
        whole.assign(value=whole["value"].fillna(1.0)),
        whole.assign(digest=["", *whole["digest"][1:]]),
        whole.drop(index=0),
        pd.concat([whole, whole.iloc[:1]], ignore_index=True),
    ]
    for changed in changes:
        with pytest.raises(UserError, match=r"is not what probe-depth wrote: \d of \d rows differ .*probe-depth again"):
            require_intact(changed.reset_index(drop=True), SMALL, tmp_path)


@pytest.mark.parametrize("column", [name.name for name in SCHEMA if name.name != "digest"])
def test_every_column_of_a_real_table_is_covered(table: Path, column: str) -> None:
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    kinds = {one.name: one.type for one in SCHEMA}
    rows.loc[3, column] = (
        "other" if kinds[column] == "text" else str(float(rows.loc[3, column] or 1) + 1).removesuffix(".0")
    )
    rows.to_csv(table, index=False)
    with pytest.raises(UserError, match="rows differ from their digests"):
        parse_table(table, "probe results", SCHEMA)


SAVED_AGAIN = {
    "by pandas": lambda t, path: t.to_csv(path, index=False),
    "with an index": lambda t, path: t.to_csv(path),
    "with CRLF": lambda t, path: t.to_csv(path, index=False, lineterminator="\r\n"),
    "with a byte order mark": lambda t, path: t.to_csv(path, index=False, encoding="utf-8-sig"),
    "in another order": lambda t, path: t.sample(frac=1, random_state=0).to_csv(path, index=False),
    "with columns in another order": lambda t, path: t[t.columns[::-1]].to_csv(path, index=False),
}


@pytest.mark.parametrize("how", SAVED_AGAIN)
def test_a_table_that_another_program_saved_again_still_holds(table: Path, how: str) -> None:
    before = read_table(table)
    SAVED_AGAIN[how](pd.read_csv(table), table)  # as most people would, with the parser of the default
    after = parse_table(table, "probe results", SCHEMA)
    assert len(after) == len(before)
    assert sorted(after["value"]) == pytest.approx(sorted(before["value"]), rel=1e-13)


@pytest.mark.parametrize("bit", range(0, 8, 3))
def test_no_flipped_bit_of_a_table_changes_a_number_in_silence(table: Path, bit: int) -> None:
    whole, before = table.read_bytes(), read_table(table)
    for place in np.random.default_rng(bit).integers(0, len(whole), 40):
        table.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        try:
            after = parse_table(table, "probe results", SCHEMA)
        except UserError:
            continue
        pd.testing.assert_frame_equal(after, before, check_dtype=False)


def test_a_table_with_an_unknown_column_or_without_one_that_was_sealed_is_refused(tmp_path: Path) -> None:
    whole = sealed(small(), SMALL)
    with pytest.raises(UserError, match="has the column 'dihest', which this version does not know: it was edited"):
        require_intact(whole.rename(columns={"digest": "dihest"}), SMALL, tmp_path)
    with pytest.raises(UserError, match="4 of 4 rows differ from their digests"):
        require_intact(whole.drop(columns="value"), SMALL, tmp_path)


def test_tables_of_versions_without_digests_are_read(tmp_path: Path) -> None:
    require_intact(small(), SMALL, tmp_path)
    later = (*SMALL[:3], Column("later", "integer", "", empty="before"), SMALL[3])
    require_intact(sealed(small(), SMALL), later, tmp_path)
    assert digests(small().iloc[:0], SMALL).empty
    assert write_csv(sealed(small().iloc[:0], SMALL)) == "run_id,depth,value,digest\n"
