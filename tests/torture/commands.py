"""How a console command is found and called: by its entry point in pyproject.toml, as its script would."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

# From the source and not from the installed metadata, which knows nothing of a file that has moved since.
ENTRIES: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]

SCRIPT = "import importlib, sys; sys.argv[0] = {name!r}; importlib.import_module({module!r}).{function}()"


def entry(command: str) -> Callable[[], object]:
    """Return the function that the console script of a command calls."""
    module, _, function = ENTRIES[command].partition(":")
    found: Callable[[], object] = getattr(importlib.import_module(module), function)
    return found


def fresh_words(command: str) -> list[str]:
    """Return the words that start a command in a Python of its own; those of the command line follow them."""
    module, _, function = ENTRIES[command].partition(":")
    return [sys.executable, "-c", SCRIPT.format(name=command, module=module, function=function)]


def code() -> str:
    """Return a digest of the packages and of this tool: records of other code say nothing of this one."""
    packages = {module.partition(".")[0] for module in ENTRIES.values()}
    folders = [*(ROOT / name for name in sorted(packages)), Path(__file__).parent]
    digest = hashlib.sha256()
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def environment() -> dict[str, str]:
    """Return the environment of a Python of its own: the packages of this working tree, whatever is installed."""
    before = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *([before] if before else [])])}
