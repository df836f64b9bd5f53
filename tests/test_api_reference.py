"""docs/api.md is what the code says of itself today, and names all that the packages export."""

from __future__ import annotations

from pathlib import Path

import api_reference

import analysis
import figures
import layerwise
import probes

ROOT = Path(__file__).resolve().parent.parent


def test_the_reference_is_the_codes_own_text() -> None:
    assert (ROOT / "docs" / "api.md").read_text() == api_reference.reference(), (
        "docs/api.md is not what the code says: python tests/api_reference.py > docs/api.md writes it anew"
    )


def test_it_names_everything_that_is_exported() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    exported = [f"{m.__name__}.{name}" for m in (layerwise, probes, analysis, figures) for name in m.__all__]
    assert len(exported) >= 25
    assert [name for name in exported if f"### {name}\n" not in text] == []


def test_every_entry_is_explained() -> None:
    entries = api_reference.reference().split("### ")[1:]
    assert len(entries) > 20
    assert [entry.splitlines()[0] for entry in entries if len(entry) < 80] == []
