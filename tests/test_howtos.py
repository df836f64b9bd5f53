"""The how-tos of docs/howto and the notebook: commands are taken from the pages and run on small folders made here.

Shell functions of the commands' names add what makes them small, after what the page says.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from shlex import join

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from nbclient import NotebookClient
from PIL import Image

from tests.torture.commands import ENTRIES, fresh_words

ROOT = Path(__file__).resolve().parent.parent
HOWTOS = ROOT / "docs" / "howto"
SMALL = """
set -euo pipefail
layerwise-train() { command layerwise-train "$@" --device cpu --width 4 --aux-width 4 --epochs 1; }
layerwise-extract() { command layerwise-extract "$@" --device cpu; }
probe-depth() { command probe-depth "$@" --device cpu --quick; }
separability-study() { command separability-study "$@" --device cpu --width 4 --k 1 --epochs 1; }
"""


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of code of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", (HOWTOS / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def commands(warm: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of all commands, and of python, that begin warm: a page has ten, which load for 4 s each."""
    folder = tmp_path_factory.mktemp("commands")
    starts = {name: [*warm, *fresh_words(name)[1:]] for name in ENTRIES} | {"python": warm}
    for name, words in starts.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {join(words)} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def follow(commands: Path, page: str, folder: Path, small: str = SMALL, **variables: str) -> str:
    """Run every command of a page, in its order, in a folder; return what they printed."""
    return run(commands, small + "\n".join(blocks(page, "sh")), folder, **variables)


def run(commands: Path, script: str, folder: Path, **variables: str) -> str:
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(folder: Path, run: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{run}.probes.csv")


def test_the_quickstart_of_the_readme(commands: Path, tmp_path: Path) -> None:
    (lines,) = re.findall(r"## Quickstart\n\n```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    clone, install, *work = lines.splitlines()
    assert clone.startswith("git clone ") and "pip install ." in install and len(work) == 3
    run(commands, SMALL + "\n".join(work), tmp_path)
    assert {"run.h5", "run.probes.csv", "figure.pdf"} <= {path.name for path in tmp_path.iterdir()}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Make pictures/CLASS of three classes, each of its own colour; return the folder that holds it."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("cat", "dog", "horse")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 100, (40, 36, 3), dtype=np.uint8)
            pixels[..., number] += 60
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i:03d}.png")
    return tmp_path


def test_figure_2_on_your_own_images(commands: Path, pictures: Path) -> None:
    said = follow(commands, "your-images.md", pictures)
    assert "nothing was done: the same command without --dry-run does it" in said
    made = {path.name for path in pictures.iterdir()}
    assert {f"figure2.{end}" for end in ("pdf", "svg", "png", "csv", "txt")} <= made
    points = pd.read_csv(pictures / "figure2.csv")
    assert set(points["probe"]) == {"linear", "cnn-1", "cnn-2"}
    assert set(points["k"].dropna()) == {1, 2, 3}
    assert "study" not in made


def test_a_pretrained_network(commands: Path, pictures: Path) -> None:
    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    kept = pictures / "torch" / "hub" / "checkpoints" / Path(url).name  # where torch looks before it fetches
    kept.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), kept)
    torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), pictures / "mine.pt")
    smaller = SMALL.replace('layerwise-extract "$@"', 'layerwise-extract "$@" --image-size 32')
    follow(commands, "pretrained.md", pictures, smaller, TORCH_HOME=str(pictures / "torch"))
    assert (pictures / "layers.pdf").exists()
    assert set(numbers(pictures, "resnet18")["selection"].dropna()) == {"validation"}
    assert set(numbers(pictures, "mine")["selection"].dropna()) == {"seen"}


def test_features_from_elsewhere(commands: Path, tmp_path: Path) -> None:
    (code,) = blocks("features.md", "python")
    (tmp_path / "save.py").write_text(code)
    follow(commands, "features.md", tmp_path)
    assert (tmp_path / "features.pdf").exists()
    for run, selection in (("no", "validation"), ("some", "validation"), ("all", "seen")):
        rows = numbers(tmp_path, run)
        assert set(rows["selection"].dropna()) == {selection}
        test = rows[(rows["split"] == "test") & (rows["metric"] == "accuracy") & (rows["probe"] == "linear")]
        best = test.groupby("depth")["value"].max()
        assert best[2] > best[1]  # the late layer has its classes further apart


def test_the_notebook_runs_from_nothing_and_is_kept_without_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in cells if cell.outputs or cell.execution_count] == []
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert any("text/html" in output.get("data", {}) for output in cells[3].outputs)
    assert any("image/png" in output.get("data", {}) for output in cells[-1].outputs)
    assert {"k1.h5", "k3.probes.csv", "figure.pdf"} <= {path.name for path in tmp_path.iterdir()}
