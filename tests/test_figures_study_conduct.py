"""A study in Python: the same folder as the command's, and its probe results in hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

import analysis
import figures
from figures.commands.study import separability_study
from figures.study.budgets import BUDGETS
from figures.study.conduct import types_subset
from layerwise.commandline import call
from layerwise.datasets import reading
from layerwise.errors import UsageError, UserError

SMALL = {
    "data.subset": 100, "network.depth": 2, "network.aux_width": 4, "training.epochs": 1, "precision": "fp32",
}  # fmt: skip


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw features in the inputs' number twice and not ten times, which would take as long as all else here."""
    monkeypatch.setattr("probes.linear.probe.DRAWS", 2)


def test_a_study_in_python_is_that_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "study"
    options = {
        "k": [2], "width": [4], "seeds": 1, "beside": (), "probes": ["linear"], "grid": "none", "settings": SMALL,
    }  # fmt: skip
    rows = figures.run_study(folder, **options, device="cpu", quiet=True)  # type: ignore[arg-type]
    assert capsys.readouterr() == ("", "")
    assert {"greedy", "untrained"} <= set(rows["mode"]) and (folder / "study.json").exists()
    runs = sorted((folder / "runs").glob("*.h5"))
    assert set(rows["run_id"]) == set(analysis.read([run for run in runs if "predictions" not in run.name])["run_id"])
    words = "--k 2 --width 4 --seeds 1 --with none --probe linear --grid none --subset 100 --depth 2 --aux-width 4"
    words += f" --epochs 1 --set precision=fp32 --device cpu --dry-run -o {folder}"
    assert call(separability_study, "separability-study", words.split()) == 0
    assert "networks, all complete" in capsys.readouterr().out
    again = figures.run_study(folder, **options, device="cpu", quiet=True)  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(again, rows)
    with pytest.raises(UserError, match="width"):
        figures.run_study(folder, **{**options, "width": [6]}, device="cpu")  # type: ignore[arg-type]


def test_a_study_of_a_folder_is_forecast_without_decoding_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pictures"
    for path in (folder / split / name / f"{i}.png" for split in ("train", "test") for name in "ab" for i in range(20)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 5).save(path)
    monkeypatch.setattr(reading, "decode", lambda *words: pytest.fail("an image was decoded"))
    words = "--k 2 --width 4 --seeds 1 --with none --probe linear --grid none --subset 30 --depth 2 --aux-width 4"
    words += f" --epochs 1 --device cpu --dataset imagefolder --data-dir {folder} --dry-run -o {tmp_path / 'study'}"
    assert call(separability_study, "separability-study", words.split()) == 0
    assert "greedy k=2 M=4" in capsys.readouterr().out


def test_what_the_command_refuses_is_refused_in_words_of_python(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown budget 'huge'"):
        figures.run_study(tmp_path / "s", "huge")
    with pytest.raises(UsageError, match=r"unknown launcher 'ssh'. Choices: local, slurm"):
        figures.run_study(tmp_path / "s", launcher="ssh")
    with pytest.raises(UsageError, match="slurm=... is of launcher='slurm'. Give both"):
        figures.run_study(tmp_path / "s", slurm={"timeout_min": 3})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"k": "1"}, "k is '1'; expected a whole number, or several in a list"),
        ({"width": [4.5]}, r"width is \[4.5\]; expected a whole number, or several in a list"),
        ({"seeds": [0, 1]}, r"seeds is \[0, 1\]; expected a whole number\."),
        ({"probe_epochs": "2"}, r"probe_epochs is '2'; expected a whole number\."),
        ({"probes": 3}, "probes is 3; expected a word, or several in a list"),
        ({"beside": [None]}, r"beside is \[None\]; expected a word, or several in a list"),
        # One stands for a list of one, and is taken: what is refused comes after it.
        ({"width": 4, "k": 1, "probes": "linear", "beside": "parallel", "grid": "x"}, "unknown grid 'x'"),
        ({"probes": "linaer"}, "unknown probe 'linaer'"),
    ],
)
def test_one_is_a_list_of_one_and_anything_else_is_one_line(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        figures.run_study(tmp_path / "s", **given)


def test_a_budget_takes_at_most_its_subset_and_a_typed_one_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smoke = BUDGETS["smoke"]
    more = replace(smoke.study, settings={**smoke.study.settings, "data.subset": 5000})
    monkeypatch.setitem(BUDGETS, "smoke", smoke._replace(study=more))
    settings = {name: value for name, value in SMALL.items() if name != "data.subset"}
    options: dict[str, Any] = {
        "k": [2], "width": [4], "seeds": 1, "beside": (), "probes": ["linear"], "grid": "none", "device": "cpu",
        "quiet": True,
    }  # fmt: skip
    rows = figures.run_study(tmp_path / "study", **options, settings=settings)
    assert rows["n_train"].max() == 1438  # all that digits has
    again = figures.run_study(tmp_path / "study", **options, settings=settings)
    pd.testing.assert_frame_equal(again, rows)
    with pytest.raises(UserError, match="cannot be taken: the train split has 1438 images"):
        figures.run_study(tmp_path / "other", **options, settings={**settings, "data.subset": 5000})
    assert types_subset({}, ["end-to-end:data.subset=3"]) and not types_subset({"data.subset": None}, ["seed=1"])
