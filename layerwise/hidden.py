"""Packages of this project that a user's file hides: a figures.py beside a notebook is imported in place of ours."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("layerwise", "probes", "analysis", "figures")
COMMANDS = (
    "layerwise-train", "layerwise-inspect", "layerwise-export", "layerwise-extract", "layerwise-corrupt", "probe-depth",
    "analyze-depth", "separability-study", "separability-figure", "attribution-figure", "training-figure",
    "depth-figure", "separability-table", "separability-report", "image-depth",
)  # fmt: skip


def hidden() -> Iterator[str]:
    """Yield a line for each package of this project in whose place Python finds another file."""
    ours = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):  # a module without a spec, as of a test
            continue
        places = [] if found is None else [found.origin, *(found.submodule_search_locations or [])]
        paths = [Path(place).resolve() for place in places if place]
        if paths and not any(path == ours / name or path.parent == ours / name for path in paths):
            yield (
                f"the package {name} of layerwise-probes is hidden by {paths[0]}, which Python finds first. Rename "
                "that, or run this from another folder."
            )


def is_command() -> bool:
    """Return whether this process is a command of this project, which says such a line itself, once."""
    return bool(sys.argv) and Path(sys.argv[0]).name in COMMANDS


def require_shown() -> None:
    """Raise ImportError, in one line, where one of these packages is hidden."""
    if line := next(hidden(), None):
        raise ImportError(line)
