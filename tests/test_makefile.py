"""Tests of the Makefile and of .ci/run: which Python is taken, when it installs, what it says if not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Stands in for Python: it notes its words in a log, and `-m venv` puts a copy of it into .venv/bin.
PYTHON = """#!/bin/sh
echo "$*" >> "{log}"
case "$*" in
  -V) echo "Python {version}" ;;
  *"import pip"*) exit {usable} ;;
  *"import sys"*) exit {recent} ;;
  "-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
  "-m pip"*) test ! -e no-network ;;
esac
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


class Project:
    """A folder, with a space in its name, that holds the Makefile and nothing to install."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a folder"
        self.log = folder / "log"
        self.folder.mkdir()
        shutil.copy(ROOT / "Makefile", self.folder)
        (self.folder / "pyproject.toml").touch()

    def python(self, name: str = "python3", version: str = "3.12.1", recent: bool = True) -> str:
        """Return the path of a Python that is no Python."""
        path = self.folder.parent / name
        path.write_text(PYTHON.format(log=self.log, version=version, usable=0, recent=int(not recent)))
        path.chmod(0o755)
        return str(path)

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run make with its log of Python's words emptied first."""
        self.log.write_text("")
        # Under `make test` this make is no part of that one, and knows nothing of its words.
        inherited = ("PYTHON", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
        environment = {name: value for name, value in os.environ.items() if name not in inherited}
        command = ["make", *words]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def did(self, words: str) -> bool:
        return words in self.log.read_text()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_installs_once_and_again_when_pyproject_changes(project: Project) -> None:
    python = f"PYTHON={project.python('a python')}"
    first = project.make("test", python)
    assert first.returncode == 0, first.stderr
    assert project.did("-m venv --clear .venv")
    assert project.did("-m pip install --disable-pip-version-check --editable .[test]")
    assert project.did("-m pytest")

    assert project.make("test", python).returncode == 0
    assert not project.did("-m pip install")
    assert project.did("-m pytest")

    stamp = project.folder / ".venv" / "installed-test"
    pyproject = project.folder / "pyproject.toml"
    os.utime(stamp, (0, 0))
    assert project.make("test", python).returncode == 0
    assert project.did("-m pip install")
    assert not project.did("-m venv")
    assert stamp.stat().st_mtime >= pyproject.stat().st_mtime


@pytest.mark.parametrize("order", [("study", "test", "docs", "lint"), ("test", "lint", "study", "docs")])
def test_each_aim_gets_what_it_needs_and_no_more_in_any_order(order: tuple[str, ...], project: Project) -> None:
    python = f"PYTHON={project.python()}"
    (project.folder / ".venv" / "bin").mkdir(parents=True)
    command = project.folder / ".venv" / "bin" / "separability-study"
    command.symlink_to("/bin/true")
    needed = {"study": ".", "test": ".[test]", "lint": ".[dev]", "docs": ".[docs]"}
    for target in order:
        done = project.make(target, python)
        assert done.returncode == 0, done.stderr
        installed = [line for line in project.log.read_text().splitlines() if "pip install" in line]
        assert [line.partition("--editable ")[2] for line in installed] == [needed[target]]
    for target in order:
        assert project.make(target, python).returncode == 0
        assert not project.did("pip install")


def test_an_install_that_fails_is_tried_again(project: Project) -> None:
    python = f"PYTHON={project.python()}"
    stamp = project.folder / ".venv" / "installed-test"
    stamp.parent.mkdir()
    stamp.touch()
    os.utime(stamp, (0, 0))
    (project.folder / "no-network").touch()
    assert project.make("test", python).returncode != 0
    assert project.did("-m pip install")
    assert not project.did("-m pytest")
    assert not stamp.exists()
    (project.folder / "no-network").unlink()
    assert project.make("test", python).returncode == 0
    assert project.did("-m pip install")


def test_a_python_that_is_too_old_is_answered_in_one_line(project: Project) -> None:
    done = project.make("lint", f"PYTHON={project.python('python3.9', recent=False)}")
    said = [line for line in done.stderr.splitlines() if "***" not in line]
    assert done.returncode != 0
    assert len(said) == 1
    assert "python3.9 is too old or does not run: Python 3.11 or newer is needed" in said[0]
    assert not project.did("-m venv")


def test_a_python_that_is_missing_is_answered_in_one_line(project: Project) -> None:
    done = project.make("lint", "PYTHON=no-such-python")
    said = [line for line in done.stderr.splitlines() if "***" not in line]
    assert done.returncode != 0
    assert said == [
        "make: no-such-python not found: Python 3.11 or newer is needed; name it with PYTHON=/path/to/python3"
    ]


def test_another_python_than_the_environments_is_refused(project: Project) -> None:
    assert project.make("lint", f"PYTHON={project.python()}").returncode == 0
    other = project.python("python3.13", version="3.13.0")
    done = project.make("lint", f"PYTHON={other}")
    assert done.returncode != 0
    assert f"make: .venv has Python 3.12.1, PYTHON={other} is Python 3.13.0: rm -r .venv" in done.stderr
    assert not project.did("-m ruff")


def test_without_a_target_it_names_each(project: Project) -> None:
    done = project.make()
    assert done.returncode == 0
    for target in ("demo", "study", "test", "torture", "lint", "docs", "bench", "clean"):
        assert f"make {target} " in done.stdout
    assert project.log.read_text() == ""


def test_clean_removes_what_was_made_and_keeps_the_environment(project: Project) -> None:
    assert project.make("lint", f"PYTHON={project.python()}").returncode == 0
    for package in ("layerwise", "probes", "analysis", "figures", "tests"):
        (project.folder / package / "__pycache__").mkdir(parents=True)
    (project.folder / "demo").mkdir()
    done = project.make("clean")
    assert done.returncode == 0, done.stderr
    left = {path.name for path in project.folder.rglob("*")}
    assert "demo" not in left
    assert "__pycache__" not in left
    assert {"installed-dev", "layerwise", "Makefile"} <= left


def run_ci(project: Project, failing: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run .ci/run with a make that notes its target and LAYERWISE_DATA, and fails at one target."""
    (project.folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", project.folder / ".ci")
    tools = project.folder.parent / "tools"
    tools.mkdir()
    stand_in = f'#!/bin/sh\necho "made $1 with <$LAYERWISE_DATA>"\ntest "$1" != "{failing}"\n'
    (tools / "make").write_text(stand_in)
    (tools / "make").chmod(0o755)
    variables = {name: value for name, value in os.environ.items() if name != "LAYERWISE_DATA"}
    variables |= {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", **environment}
    command = ["bash", str(project.folder / ".ci" / "run")]
    return subprocess.run(command, cwd="/", env=variables, capture_output=True, text=True, check=False)


def test_ci_runs_what_people_run(project: Project) -> None:
    done = run_ci(project)
    made = [line for line in done.stdout.splitlines() if line.startswith("made")]
    assert done.returncode == 0, done.stderr
    assert made == [f"made {target} with <>" for target in ("lint", "test", "docs", "demo", "study")]


@pytest.mark.parametrize("failing", ["lint", "test", "docs", "demo", "study"])
def test_ci_fails_with_any_and_still_runs_all(failing: str, project: Project) -> None:
    done = run_ci(project, failing)
    assert done.returncode == 1
    assert done.stderr == f"failed: {failing}\n"
    assert done.stdout.count("made ") == 5


def test_ci_finds_the_data_beside_the_clone(project: Project) -> None:
    data = project.folder.parent / "shared" / "data"
    data.mkdir(parents=True)
    assert f"made test with <{data}>" in run_ci(project).stdout


def test_ci_keeps_the_data_it_is_given(project: Project) -> None:
    (project.folder.parent / "shared" / "data").mkdir(parents=True)
    assert "made test with <elsewhere>" in run_ci(project, LAYERWISE_DATA="elsewhere").stdout
