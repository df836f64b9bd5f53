"""Configurations as files: that of a finished run, or a TOML file as `layerwise-train --print-config` writes it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from layerwise.config import RunConfig
from layerwise.errors import UserError, no_file
from layerwise.recipes import recipe
from layerwise.runfile import RunFile
from layerwise.settings import by_path, set_fields


def read_config(path: Path) -> RunConfig:
    """Return the configuration of a run file (.h5), or of a TOML file, whose missing fields are those of its recipe.

    Raises UserError for a file that is missing, no TOML, or of a network that was not trained here; UsageError for a
    field that there is not, or a value that it cannot have.
    """
    if path.suffix == ".h5":
        with RunFile(path) as run:
            if run.config is None:
                raise UserError(
                    f"{path} holds a network that was built elsewhere, so it has no configuration to train by."
                )
            return run.config
    if not path.is_file():
        raise no_file(path, "a run file (.h5), or a configuration in TOML")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no TOML file ({error}). `layerwise-train --print-config` writes one.") from None
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in by_path(tree).items()}
    return set_fields(recipe(str(values.get("recipe", "digits"))), values)


def to_toml(config: RunConfig) -> str:
    """Return a configuration as TOML, which `read_config` reads back."""
    tree = asdict(config)
    parts = {name: value for name, value in tree.items() if isinstance(value, Mapping)}
    lines = _lines({name: value for name, value in tree.items() if name not in parts})
    for name, part in parts.items():
        lines += ["", f"[{name}]", *_lines(part)]
    return "\n".join(lines)


def _lines(fields: Mapping[str, Any]) -> list[str]:
    # TOML writes numbers, text, booleans and lists of these as JSON does.
    return [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
