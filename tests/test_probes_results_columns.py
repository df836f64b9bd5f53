"""The schema of the tables beside a run: what docs/format.md says of each column, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from probes.cnn.rates import CANDIDATES
from probes.results.columns import COLUMNS, KEY, PROBE_KEY, SCHEMA, Column, dtypes

FORMAT = (Path(__file__).parents[1] / "docs" / "format.md").read_text()


def rows(schema: Sequence[Column]) -> list[str]:
    """Return the rows of the table of columns as the document has them."""
    return [f"| `{c.name}` | {c.type} | {c.since} | {c.empty or '-'} | {c.meaning} |" for c in schema]


@pytest.mark.parametrize(
    ("section", "schema"), [("## run.probes.csv", SCHEMA), ("## run.candidates.csv", CANDIDATES)], ids=["probes", "cnn"]
)
def test_the_document_lists_the_columns_of_the_schema(section: str, schema: Sequence[Column]) -> None:
    text = FORMAT.partition(f"{section}\n")[2].partition("\n## ")[0]
    assert [line for line in text.splitlines() if line.startswith("| `")] == rows(schema)


def test_the_document_names_the_key() -> None:
    assert f"The key of a number: {', '.join(f'`{name}`' for name in KEY)}." in FORMAT


def test_types_follow_from_the_schema() -> None:
    types = dtypes(SCHEMA)
    assert list(types) == list(COLUMNS)
    assert (types["run_id"], types["depth"], types["k"], types["test_reads"], types["value"]) == (
        "str", "int64", "Int64", "Int64", "float64",
    )  # fmt: skip
    assert set(PROBE_KEY) <= set(KEY) <= set(COLUMNS)
