"""README and docs: every file they link to exists, and nothing in them waits to be filled in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from layerwise import export_network, open_run
from layerwise.export.predictor import build_predictor

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_paths_of_source_files_exist(document: Path) -> None:
    if document.name == "CHANGELOG.md":
        pytest.skip("it names the files of earlier versions")
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


def test_the_examples_of_an_exported_network_run(run_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    text = (ROOT / "docs" / "export.md").read_text()
    by_pytorch, by_onnxruntime = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    with open_run(run_path) as run:
        for name in ("model.pt2", "model.onnx"):
            export_network(run, out=tmp_path / name)
        black = np.zeros((1, 1, 8, 8), dtype=np.uint8)
        network = build_predictor(run)
        said = run.dataset["classes"][int(network(torch.from_numpy(black)).argmax())]
    done = subprocess.run(
        [sys.executable, "-c", by_pytorch + by_onnxruntime], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{said}\n{said}\n"), done.stderr


def test_the_example_in_the_readme_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example + "\nassert x.shape[2:] == (2, 2) and len(table)\n"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = {"greedy.h5", "other.h5", "greedy.probes.csv", "other.probes.csv", "figure.pdf"}
    assert made <= {path.name for path in tmp_path.iterdir()}
