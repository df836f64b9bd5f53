"""CSV: text comes back as it was, whatever pandas and spreadsheets would make of it."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest

from probes.csvfile import read_csv, write_csv

WORDS = [
    "None", "NA", "N/A", "null", "NULL", "nan", "NaN", "<NA>", "#N/A", "n/a", "-nan", "inf", "True", "007", "1e5", "-1",
    "12345e67", "=1+1", "=HYPERLINK(\"x\")", "+1", "+x", "-x", "@sum", "\tx", "\rx", "a\rb", "a\r\nb", "a\nb", "'x",
    "'=x", "''=x", "a,b", 'say "x"', " lead", "trail ", "caf\u00e9", "=", "'",
]  # fmt: skip


@pytest.mark.parametrize("words", [WORDS, *[[word] for word in WORDS]])
def test_text_comes_back_as_it_was(words: list[str], tmp_path: Path) -> None:
    table = pd.DataFrame({"word": words, "value": 0.5, "count": pd.array([1] * len(words), dtype="Int64")})
    write_csv(table, tmp_path / "a.csv")
    found = read_csv(tmp_path / "a.csv", {"word": "str", "count": "Int64"})
    assert found["word"].tolist() == words
    assert found["value"].tolist() == [0.5] * len(words) and found["count"].tolist() == [1] * len(words)


def test_no_cell_is_a_formula_to_a_spreadsheet(tmp_path: Path) -> None:
    write_csv(pd.DataFrame({"word": WORDS, "value": -0.5}), tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    assert len(rows) == len(WORDS)
    for (word, value), given in zip(rows, WORDS, strict=True):
        assert value == "-0.5"
        assert not word.startswith(("=", "@", "\t", "\r")) and (word[0] not in "+-" or word == given)


def test_plain_tables_are_written_as_pandas_writes_them() -> None:
    table = pd.DataFrame({"a": ["x", "None", ""], "b": [1.0, float("nan"), -2.5], "c": [1, 2, 3]})
    assert write_csv(table) == table.to_csv(index=False)


@pytest.mark.parametrize("missing", ["", "NA", "nan", "NaN", "None", "NULL", "#N/A"])
def test_missing_numbers_of_other_programs_are_missing(missing: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"word,count,value\nNA,{missing},{missing}\n,3,1.5\n")
    found = read_csv(tmp_path / "a.csv", {"word": "str", "count": "Int64", "value": "float64"})
    assert found["word"].tolist()[0] == "NA" and found["word"].isna().tolist() == [False, True]
    assert found["count"].isna().tolist() == found["value"].isna().tolist() == [True, False]


def test_a_column_without_any_text_stays_missing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("word,value\n,1\n,2\n")
    assert read_csv(tmp_path / "a.csv", {"word": "str"})["word"].isna().all()
