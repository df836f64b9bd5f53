"""A user's own analysis.py, probes/ or figures.py, where Python finds it first, is named with what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from layerwise.hidden import COMMANDS, hidden

ROOT = Path(__file__).resolve().parent.parent


def said(folder: Path, *words: str) -> str:
    """Return what Python says on stderr in a folder whose files it finds before ours."""
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    return done.stderr


def test_nothing_is_said_where_nothing_is_hidden(tmp_path: Path) -> None:
    assert list(hidden()) == []
    (tmp_path / "notes.py").write_text("")
    assert said(tmp_path, "-c", "import layerwise, probes, analysis, figures") == ""


@pytest.mark.parametrize("name", ["figures.py", "probes/__init__.py", "analysis.py"])
def test_importing_layerwise_names_what_is_hidden(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("x = 1\n")
    package = name.partition("/")[0].removesuffix(".py")
    lines = said(tmp_path, "-c", "import layerwise").splitlines()
    expected = f"the package {package} of layerwise-probes is hidden by {file}, which Python finds first. Rename that, "
    assert len(lines) == 1 and expected in lines[0] and lines[0].endswith("or run this from another folder.")


def test_what_needs_the_hidden_package_ends_with_that_line(tmp_path: Path) -> None:
    (tmp_path / "analysis.py").write_text("x = 1\n")
    last = said(tmp_path, "-c", "import figures; figures.draw(['x.h5'])").splitlines()[-1]
    assert last.startswith("ImportError: the package analysis of layerwise-probes is hidden by")


def test_a_command_that_needs_it_says_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "analysis.py").write_text("x = 1\n")
    code = (
        "import sys; sys.argv = ['separability-figure', 'x.h5', '-o', 'f.pdf']\n"
        "from figures.commands.separability import figure_command; figure_command()"
    )
    assert said(tmp_path, "-c", code).splitlines() == [
        f"separability-figure: the package analysis of layerwise-probes is hidden by {tmp_path / 'analysis.py'}, which "
        "Python finds first. Rename that, or run this from another folder."
    ]


@pytest.mark.parametrize("name", ["probes/__init__.py", "analysis.py"])
def test_a_command_that_does_not_need_it_says_it_once(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("x = 1\n")
    code = (
        f"import sys; sys.argv = ['bin/layerwise-inspect', {str(ROOT / 'tests' / 'golden' / 'run-v1.h5')!r}]\n"
        "from layerwise.commands.inspect import inspect_command; inspect_command()"
    )
    (line,) = said(tmp_path, "-c", code).splitlines()
    assert line.startswith("layerwise-inspect: the package ") and f" is hidden by {file}" in line


def test_every_command_is_known_as_one() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert sorted(COMMANDS) == sorted(scripts)
