"""What the parts of a configuration are made of: fields that carry their help, and the checks of their values.

The options of commands are built from the help (layerwise.commands.options), and the table of docs/settings.md is
written from it, so that help and flags cannot drift from the fields.
"""

from __future__ import annotations

import dataclasses

from layerwise.errors import UsageError


def setting(help: str) -> dict[str, object]:
    """Return the metadata of a field that --set alone replaces."""
    return {"help": help, "flag": False}


def flag(help: str) -> dict[str, object]:
    """Return the metadata of a field that has an option of its name in the commands that take it."""
    return {"help": help, "flag": True}


def at_default(config: object, name: str) -> bool:
    """Return whether a field is at its default."""
    (field_,) = (f for f in dataclasses.fields(config) if f.name == name)  # type: ignore[arg-type]
    return bool(getattr(config, name) == field_.default)


def check_integers(section: str, config: object) -> None:
    """Raise UsageError where a field that counts something is no whole number, as 1.5 by the Python API."""
    for field_ in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field_.name)
        if field_.type == "int":
            check(type(value) is int, f"{section}.{field_.name}", value, "an integer")


def check(holds: bool, name: str, found: object, expected: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {found!r}, but must be {expected}.")
