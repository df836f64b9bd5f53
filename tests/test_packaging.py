"""Tests of what is installed: the wheel's content, its one version, its commands far from this repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import layerwise

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("layerwise", "probes", "analysis", "figures")


def run(*words: str | Path, cwd: Path) -> str:
    """Run a command that must succeed, without this repository on its path; return its standard output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source archive, and from it, as a distributor would, the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a new environment with this one's dependencies; return its scripts' folder.

    They come by a .pth file. What it names comes after the environment's own packages, and .pth files found
    there are not read: an editable install of this repository, in the borrowed folder, is not seen.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    return folder / "bin"


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """Return a folder in which our packages' names are files of somebody else."""
    for package in PACKAGES:
        (tmp_path / f"{package}.py").write_text(f"raise RuntimeError('the wrong {package}')\n")
    return tmp_path


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    information = f"layerwise_probes-{layerwise.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {*PACKAGES, information}
    here = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == here
    data = {f"figures/page/templates/page.{kind}" for kind in ("html", "css", "js")}
    data |= {f"{package}/py.typed" for package in PACKAGES}
    assert {name for name in names if not name.endswith(".py") and information not in name} == data
    assert f"{information}/licenses/LICENSE" in names


def test_there_is_one_version(wheel: Path) -> None:
    (distribution,) = metadata.distributions(path=[str(wheel)])
    assert distribution.version == layerwise.__version__
    assert f"\nversion: {layerwise.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"version = {{{layerwise.__version__}}}" in (ROOT / "README.md").read_text()
    newest = re.search(r"^## (\d\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == layerwise.__version__


def test_each_dependency_has_a_minimum_and_no_maximum() -> None:
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    extras = [line for line in extras if not line.startswith(f"{PROJECT['name']}[")]  # an extra that takes in another
    for line in PROJECT["dependencies"] + extras:
        assert re.fullmatch(r"[a-z0-9-]+>=[0-9.]+", line)


def test_what_is_imported_is_the_wheel(scripts: Path, trap: Path) -> None:
    code = f"import {', '.join(PACKAGES)}\nfor p in ({', '.join(PACKAGES)}): print(p.__file__)"
    found = run(scripts / "python", "-c", code, cwd=scripts).split()
    assert len(found) == len(PACKAGES)
    assert all(Path(path).is_relative_to(scripts.parent) for path in found)
    # The trap does catch who looks into the current folder first.
    with pytest.raises(AssertionError, match="the wrong layerwise"):
        run(scripts / "python", "-c", code, cwd=trap)


@pytest.mark.parametrize("command", PROJECT["scripts"])
def test_each_command_answers_among_files_of_the_same_name(command: str, scripts: Path, trap: Path) -> None:
    assert f"Usage: {command} " in run(scripts / command, "--help", cwd=trap)


def test_a_run_is_trained_probed_and_drawn_among_files_of_the_same_name(scripts: Path, trap: Path) -> None:
    words = ("digits", "--epochs", "1", "--width", "4", "--depth", "2", "--out", "run.h5")
    run(scripts / "layerwise-train", *words, cwd=trap)
    run(scripts / "layerwise-inspect", "run.h5", cwd=trap)
    run(scripts / "probe-depth", "run.h5", "--probe", "linear", cwd=trap)
    run(scripts / "separability-figure", "run.h5", "-o", "figure.pdf", cwd=trap)
    made = {path.name for path in trap.iterdir()}
    assert {"run.h5", "run.probes.csv", "figure.pdf"} <= made
    assert (trap / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_no_test_is_left_out_for_want_of_a_package() -> None:
    # It is in the extra `test`; only a machine (a GPU, data, a clone) can lack something.
    skipping = [path.name for path in (ROOT / "tests").glob("*.py") if "pytest.importor" + "skip" in path.read_text()]
    assert skipping == []
