"""README and docs: every file and heading they link to exists, and nothing in them waits to be filled in."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from layerwise import export_network, open_run
from layerwise.export.predictor import build_predictor

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def anchors(document: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"\]\([^)]*\)|[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"\s+", "-", words) for words in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_headings_lead_to_one(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]*)#([^)]+)\)", document.read_text())
    assert [link for link in links if link[1] not in anchors(document.parent / link[0] if link[0] else document)] == []


def test_the_anchors_that_docs_link_to_are_found_by_the_check() -> None:
    assert "arrays-made-elsewhere" in anchors(ROOT / "docs" / "format.md")
    assert "no-such-heading" not in anchors(ROOT / "docs" / "format.md")


def pages(entries: list[Any]) -> list[str]:
    """Return the pages that the navigation of mkdocs.yml names, those in sections too."""
    found = []
    for entry in entries:
        for target in entry.values():
            found += [target] if isinstance(target, str) else pages(target)
    return found


def test_the_site_and_its_index_lead_to_every_page() -> None:
    docs = ROOT / "docs"
    expected = sorted(str(path.relative_to(docs)) for path in docs.rglob("*.md"))
    assert sorted(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])) == expected
    linked = set(re.findall(r"\]\(([^)#]+)", (docs / "index.md").read_text()))
    assert linked == {*expected, "quickstart.ipynb"} - {"index.md"}


def test_links_of_the_docs_stay_in_the_site() -> None:
    docs = ROOT / "docs"
    for document in docs.rglob("*.md"):
        for link in re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text()):
            assert (document.parent / link).resolve().is_relative_to(docs), (document, link)


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.name != "CHANGELOG.md"], ids=lambda p: p.name)
def test_paths_of_source_files_exist(document: Path) -> None:
    paths = re.findall(r"(?<![\w/.])(?:layerwise|probes|analysis|figures|tests|docs)/[\w/]*\.\w+", document.read_text())
    assert [path for path in paths if not (ROOT / path).exists()] == []


def named_by_the_architecture() -> set[Path]:
    """Return the source files that the tables of docs/architecture.md name, whether they exist or not."""
    folders = (ROOT / "docs" / "architecture.md").read_text().split("## The folders")[1].split("## Decisions")[0]
    package, named = "", set()
    for place, words in re.findall(r"^\| (\S.*?) \|(.*)\|$", folders, re.MULTILINE):
        package = place if not words.strip() else package
        folder = ROOT / package / (place if place.endswith("/") else "")
        named |= {folder / f"{name}.py" for name in re.findall(r"`(\w+)`", words)}
    return named


def test_the_architecture_names_files_where_they_are() -> None:
    assert sorted(path for path in named_by_the_architecture() if not path.exists()) == []


def test_the_architecture_names_every_source_file() -> None:
    packages = ("layerwise", "probes", "analysis", "figures")
    sources = {path for package in packages for path in (ROOT / package).rglob("*.py") if path.stem != "__init__"}
    assert sorted(sources - named_by_the_architecture()) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_nothing_waits_to_be_filled_in(document: Path) -> None:
    assert re.findall(r"\b[A-Z]+_(?:TIME|EXPECT|PROBE)\b|\bTODO\b|\bTBD\b", document.read_text()) == []


def test_a_readme_reader_finds_the_three_commands_first() -> None:
    first_screen = (ROOT / "README.md").read_text()[:3000]
    for words in (
        "`layerwise-train`",
        "`probe-depth run.h5 --probe linear`",
        "`separability-figure run.h5 -o figure.pdf`",
    ):
        assert words in first_screen


def test_the_examples_of_an_exported_network_run(warm: list[str], run_path: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "export.md").read_text()
    by_pytorch, by_onnxruntime = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    with open_run(run_path) as run:
        for name in ("model.pt2", "model.onnx"):
            export_network(run, out=tmp_path / name)
        black = np.zeros((1, 1, 8, 8), dtype=np.uint8)
        network = build_predictor(run)
        said = run.dataset["classes"][int(network(torch.from_numpy(black)).argmax())]
    done = subprocess.run(
        [*warm, "-c", by_pytorch + by_onnxruntime], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{said}\n{said}\n"), done.stderr


def test_the_example_in_the_readme_runs(warm: list[str], tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    done = subprocess.run(
        [*warm, "-c", example + "\nassert x.shape[2:] == (2, 2) and len(table)\n"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = {"greedy.h5", "other.h5", "greedy.probes.csv", "other.probes.csv", "figure.pdf"}
    assert made <= {path.name for path in tmp_path.iterdir()}
