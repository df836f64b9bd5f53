"""Functions in a user's own file: the file is run, and its imports find what lies beside it."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layerwise.errors import UserError, no_file


def function_of(path: Path, name: str) -> Callable[..., Any]:
    """Return the function `name` of a file, which is run to find it.

    Raises UserError if there is no such file or function, or the file fails.
    """
    if not path.is_file():
        raise no_file(path, "a file of Python")
    module_spec = importlib.util.spec_from_file_location(f"layerwise_factory_{path.stem}", path)
    assert module_spec is not None and module_spec.loader is not None
    file = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = file  # dataclasses, among others, look up the module of a class there
    try:
        with _beside(path):
            module_spec.loader.exec_module(file)
    except Exception as error:  # of any kind: it is the user's code
        reason = f"{type(error).__name__}: {error} ({place_of(error)})"
        raise UserError(f"{path} failed while it was read: {reason}.") from error
    function = getattr(file, name, None)
    if not callable(function):
        names = [key for key, value in vars(file).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{path} has no function {name!r}; it has {', '.join(names) or 'none'}.")

    def called(**arguments: Any) -> Any:
        with _beside(path):
            return function(**arguments)

    return called


def place_of(error: BaseException) -> str:
    """Return the file and line where an error was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}, line {frame.lineno}"


@contextmanager
def _beside(path: Path) -> Iterator[None]:
    """Let imports search the folder of a file first, as they do when Python runs that file."""
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
