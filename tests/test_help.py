"""Tests of every command's --help: that it answers, teaches each option, fits a terminal and loads little."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import shellingham

from layerwise import __version__, commandline
from layerwise.commandline import call

ROOT = Path(__file__).resolve().parent.parent
COMMANDS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

# Each takes a second or more to load, which a --help should not cost.
HEAVY = {"torch", "pandas", "h5py", "matplotlib"}

# Runs the entry point as its console script does, in a process that reports what was loaded at its end.
AS_SCRIPT = """
import atexit, importlib, json, pathlib, sys
report, module, function, prog = sys.argv[1:5]
atexit.register(lambda: pathlib.Path(report).write_text(json.dumps(sorted(sys.modules))))
sys.argv = [prog, *sys.argv[5:]]
getattr(importlib.import_module(module), function)()
"""

# Hears of the function and name that each entry point hands to commandline.run; prints the words it takes.
PARAMETERS = """
import importlib, json, sys, typer
from layerwise import commandline
def call(command, prog, words):
    app = typer.Typer(add_completion=False)
    app.command()(command)
    parameters = typer.main.get_command(app).params
    shown = [p for p in parameters if not getattr(p, "hidden", False)]
    words = [[p.name, [*p.opts, *p.secondary_opts], p.param_type_name, p.help] for p in shown]
    print(json.dumps({"prog": prog, "words": words}))
commandline.call = call
for entry in sys.argv[1:]:
    module, function = entry.split(":")
    try:
        getattr(importlib.import_module(module), function)()
    except SystemExit:
        pass
"""


def run_python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "80"}
    # What would make rich answer a pipe as if it were a terminal of another width.
    for name in ("FORCE_COLOR", "TERMINAL_WIDTH", "GITHUB_ACTIONS", "PY_COLORS"):
        environment.pop(name, None)
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@functools.cache
def helped(prog: str) -> tuple[str, set[str]]:
    """Return what a command answers to --help, and the modules that were loaded for it."""
    module, function = COMMANDS[prog].split(":")
    with tempfile.NamedTemporaryFile("r") as report:
        done = run_python(AS_SCRIPT, report.name, module, function, prog, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout, set(json.loads(report.read()))


def help_text(prog: str) -> str:
    return helped(prog)[0]


@functools.cache
def every_parameter() -> list[dict[str, Any]]:
    done = run_python(PARAMETERS, *COMMANDS.values())
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def parameters(prog: str) -> dict[str, Any]:
    return every_parameter()[list(COMMANDS).index(prog)]


@pytest.mark.parametrize("prog", COMMANDS)
def test_help_answers_within_80_columns(prog: str) -> None:
    text = help_text(prog)
    assert f"Usage: {prog} " in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


@pytest.mark.parametrize("prog", COMMANDS)
def test_each_word_is_named_and_explained(prog: str) -> None:
    assert parameters(prog)["prog"] == prog
    words = parameters(prog)["words"]
    options = [name for _, names, kind, _ in words if kind == "option" for name in names]
    assert len(options) > 1
    shown = help_text(prog).split()
    assert [name for name in options if name not in shown] == []
    assert [name for name, _, _, explanation in words if not (explanation or "").strip()] == []
    flat = " ".join(help_text(prog).replace("│", " ").split())
    assert [name for name, _, _, explanation in words if explanation.split()[0] not in flat] == []


@pytest.mark.parametrize("prog", COMMANDS)
def test_help_loads_nothing_heavy(prog: str) -> None:
    loaded = helped(prog)[1]
    assert COMMANDS[prog].partition(":")[0] in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("prog", COMMANDS)
def test_the_version_is_said_and_nothing_done(prog: str, tmp_path: Path) -> None:
    module, function = COMMANDS[prog].split(":")
    done = run_python(AS_SCRIPT, str(tmp_path / "loaded.json"), module, function, prog, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{prog} {__version__}\n", "")
    assert not HEAVY & {name.partition(".")[0] for name in json.loads((tmp_path / "loaded.json").read_text())}


def test_a_shell_that_cannot_be_told_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown() -> None:
        raise shellingham.ShellDetectionFailure

    monkeypatch.setattr(shellingham, "detect_shell", unknown)
    assert call(lambda: pytest.fail("ran"), "layerwise-train", ["--show-completion"]) == 1
    assert capsys.readouterr().err == (
        "layerwise-train: the shell that this runs in cannot be told, so that nothing can be completed in it. Run this "
        "in bash, zsh, fish or PowerShell.\n"
    )


def test_a_shell_completes_options() -> None:
    module, function = COMMANDS["layerwise-train"].split(":")
    asked = {"_LAYERWISE_TRAIN_COMPLETE": "complete_bash", "COMP_WORDS": "layerwise-train --mo", "COMP_CWORD": "1"}
    code = f"import os; os.environ.update({asked!r})\n{AS_SCRIPT}"
    assert run_python(code, os.devnull, module, function, "layerwise-train").stdout.split() == ["--mode"]


# What every command takes alike; all else has a group.
COMMON = {"--version", "--install-completion", "--show-completion", "--help"}


@pytest.mark.parametrize("prog", COMMANDS)
def test_options_stand_in_groups_in_one_order(prog: str) -> None:
    groups: dict[str, list[str]] = {}
    for line in help_text(prog).splitlines():
        if line.startswith("╭─ "):
            groups[line.strip("╭─╮ ")] = []
        elif option := re.match(r"│ (?:\*  |   )?(--[a-z-]+)", line):
            groups[next(reversed(groups))].append(option[1])
    assert COMMON - {"--install-completion", "--show-completion"} <= set(groups.pop("Options")) <= COMMON
    groups.pop("Arguments", None)
    assert list(groups) == [name for name in commandline._GROUPS if name in groups]
    assert "--quiet" in groups["Output"]
    assert all(groups.values())
