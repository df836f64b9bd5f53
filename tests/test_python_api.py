"""The Python API as broad as the commands: what is public shows itself, and a function does what each command does."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import matplotlib.axes
import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

import analysis
import figures
import layerwise
import probes
from layerwise.errors import UsageError, UserError
from layerwise.runfile import RunFile

PACKAGES = (layerwise, probes, analysis, figures)
PUBLIC = [(package.__name__, name) for package in PACKAGES for name in package.__all__]


@pytest.mark.parametrize("package", PACKAGES)
def test_dir_shows_the_public_names_and_no_others(package: Any) -> None:
    assert sorted(package.__all__) == [name for name in dir(package) if not name.startswith("__")]
    assert len(set(package.__all__)) == len(package.__all__)


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_each_public_name_is_a_function_with_hints_and_an_explanation(package: str, name: str) -> None:
    function = getattr(importlib.import_module(package), name)
    names = [one for one in inspect.signature(function).parameters if one != "options"]
    own = vars(importlib.import_module(inspect.unwrap(function).__module__))
    deferred = {"Figure": matplotlib.figure.Figure, "Axes": matplotlib.axes.Axes, "np": np, "pd": pd}
    hints = typing.get_type_hints(inspect.unwrap(function), vars(typing) | own | deferred)
    assert set(names) <= set(hints) and "return" in hints
    documented = inspect.getdoc(function) or ""
    assert len(documented) > 60
    # No file or folder has the name of a public function: importing it would stand in the function's place.
    folder = Path(importlib.import_module(package).__file__ or "").parent
    assert not (folder / name).exists() and not (folder / f"{name}.py").exists()


def given_as(path: Path) -> list[Any]:
    """Return a run in every form in which it may be given."""
    return [path, str(path), [path], (str(path),)]


def test_every_function_takes_runs_alike_and_returns_tables_figures_and_text(own_run: Path, tmp_path: Path) -> None:
    probes.fit(own_run, "linear", depths=[1, 2], pixels=False)
    with RunFile(own_run) as run:
        for given in [*given_as(own_run), run, [run]]:
            assert len(analysis.read(given)) == len(pd.read_csv(own_run.with_name("run.probes.csv")))
            points = analysis.curves(given)
            assert list(points["depth"]) == [1, 2] and points["accuracy"].between(0, 1).all()
            assert isinstance(figures.draw(given), matplotlib.figure.Figure)
            assert figures.caption(given).startswith("Accuracy of probes against depth j on digits, test split (359 ")
            assert isinstance(figures.draw_training(given), matplotlib.figure.Figure)
            assert "digits" in figures.training_caption(given)
            assert set(analysis.training_curves(given)["measure"]) == {"loss", "accuracy"}
            pd.testing.assert_frame_equal(figures.table(given), analysis.accuracies(given))
            assert len(analysis.trends(given)) == 1
        found = analysis.run_differences(run, own_run)
        np.testing.assert_array_equal(found["difference"], 0)
    assert len(analysis.curves(analysis.read(own_run).query("depth == 1"))) == 1
    assert sorted(path.name for path in own_run.parent.iterdir() if "run" not in path.name) == []


def test_files_are_written_only_where_they_are_asked_for(own_run: Path, tmp_path: Path) -> None:
    probes.fit(own_run, "linear", depths=[1, 2], pixels=False)
    figures.draw_training(own_run, out=tmp_path / "training.pdf")
    figures.table(own_run, out=tmp_path / "accuracy")
    written = {path.name for path in tmp_path.iterdir() if path.stem in ("training", "accuracy")}
    assert written == {f"training{end}" for end in (".pdf", ".svg", ".png", ".csv", ".txt")} | {
        f"accuracy{end}" for end in (".md", ".tex", ".csv")
    }
    with pytest.raises(UserError, match=r"exist already. Give another name, or force=True to replace them"):
        figures.table(own_run, out=tmp_path / "accuracy")
    figures.table(own_run, out=tmp_path / "accuracy", force=True)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda run: figures.table(run, "trend"), "unknown table 'trend'. Did you mean 'trends'"),
        (lambda run: figures.table(), r"no run file was given. `figures.table\('RUN.H5...', what='accuracy', out="),
        (lambda run: figures.table(run, "contrasts", bound=0), "bound=... is 0, but takes percentage points above 0"),
        (lambda run: figures.table(run, "differences"), "differences are between two runs, but 1 were given"),
        (lambda run: figures.table(run, "published"), "published numbers are of no run"),
        (lambda run: figures.draw_training(run, "untrained"), "unknown mode 'untrained'"),
        (lambda run: figures.draw_training(run, size="huge"), "unknown size 'huge'. Choices: single, double"),
        (lambda run: analysis.read([]), "no run was given"),
        (lambda run: figures.draw(run, split="validation"), "Give refit=False with split='validation'"),
        (lambda run: figures.draw(run, ["knn"]), r"`probes.fit\('.*run.h5', probe='knn'\)` makes them"),
        (
            lambda run: figures.draw_attribution(run),
            r"layerwise.train\(settings=\{\"mode\": 'untrained'\}, out='untrained.h5'\)",
        ),
    ],
)
def test_errors_speak_python(own_run: Path, call: Any, words: str) -> None:
    probes.fit(own_run, "linear", depths=[1, 2], pixels=False)
    with pytest.raises(UserError, match=words) as error:
        call(own_run)
    assert " --" not in str(error.value)


def test_published_numbers_are_a_table() -> None:
    numbers = analysis.published_numbers()
    pd.testing.assert_frame_equal(numbers, figures.table(what="published"))
    assert {"dataset", "top1", "source"} <= set(numbers)


def test_what_is_wrong_usage_of_a_command_is_wrong_usage_of_its_function(own_run: Path) -> None:
    with pytest.raises(UsageError):
        figures.table(own_run, "trend")


def test_mypy_sees_the_types_of_the_public_functions(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(
        "import figures, layerwise, probes\n"
        "run = layerwise.train(out='a.h5', network=3)\n"
        "figures.draw(run, siz='single')\n"
        "run.pooled(1, 2)\n"
    )
    root = Path(__file__).resolve().parent.parent
    assert all((root / package.__name__ / "py.typed").exists() for package in PACKAGES)
    words = [sys.executable, "-m", "mypy", "--config-file", str(root / "pyproject.toml"), str(tmp_path / "user.py")]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True)
    errors = [line.partition("user.py:")[2].partition(":")[0] for line in done.stdout.splitlines() if "error:" in line]
    assert errors == ["2", "3", "4"], done.stdout
