"""Fields of a configuration by dotted path ("training.epochs"): listed, explained, replaced, read from text."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerwise.config import RunConfig
from layerwise.errors import UsageError, unknown


@dataclass(frozen=True)
class Setting:
    """A field of the configuration: its dotted path, type and help, and whether commands have a flag for it."""

    path: str
    kind: Any
    help: str
    has_flag: bool

    @property
    def flag(self) -> str:
        """The option that sets the field, where commands have one."""
        return "--" + self.path.rpartition(".")[2].replace("_", "-")


def settings_of(owner: type[Any] = RunConfig, prefix: str = "") -> Iterator[Setting]:
    """Yield every field of the configuration, in its order."""
    kinds = typing.get_type_hints(owner)
    for field in dataclasses.fields(owner):
        kind = kinds[field.name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from settings_of(kind, f"{field.name}.")
        else:
            yield Setting(prefix + field.name, kind, field.metadata["help"], field.metadata["flag"])


SETTINGS = {setting.path: setting for setting in settings_of()}


def set_fields(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """Return `config` with the named fields replaced, all of them before anything is validated.

    Args:
        values: for each dotted path ("training.epochs") the field's own type, or the text a user typed for it.

    Raises:
        UsageError: an unknown path (listing the fields), or a text that is not of the field's type.
    """
    changed: dict[str, Any] = {}
    for path, value in values.items():
        if path not in SETTINGS and any(known.startswith(f"{path}.") for known in SETTINGS):
            example = next(known for known in SETTINGS if known.startswith(f"{path}."))
            raise UsageError(f"{path} is no field, but a group of them. Give each by its path, such as {example}.")
        if path not in SETTINGS:
            raise unknown("configuration field", path, SETTINGS)
        head, _, rest = path.partition(".")
        value = value_of(path, value)
        if rest:
            changed.setdefault(head, {})[rest] = value
        else:
            changed[head] = value
    parts = {k: dataclasses.replace(getattr(config, k), **v) if isinstance(v, dict) else v for k, v in changed.items()}
    return dataclasses.replace(config, **parts)


def value_of(path: str, value: Any) -> Any:
    """Return the value of a field that a text means, a number of numpy's as Python's own, and any other as it is."""
    if isinstance(value, np.generic):  # of np.arange, say
        value = value.item()
    return _parse(SETTINGS[path], value) if isinstance(value, str) else value


def by_path(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a configuration's tree (of `asdict`, or of its JSON) by dotted path."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def parse_setting(text: str) -> tuple[str, str]:
    """Return path and value of a --set KEY=VALUE; raise UsageError where there is no value."""
    path, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {text!r} has no value; write --set key=value.")
    return path.strip(), value.strip()


def _parse(setting: Setting, text: str) -> Any:
    """Turn the text a user typed into the type of the field."""
    try:
        if setting.kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if typing.get_origin(setting.kind) is tuple:
            (number, _) = typing.get_args(setting.kind)
            return tuple(number(word) for word in text.split(",") if word)
        return setting.kind(text)
    except (ValueError, KeyError):
        words = {
            tuple[int, ...]: "comma-separated integers", tuple[float, ...]: "comma-separated numbers",
            bool: "bool (true or false)",
        }  # fmt: skip
        expected = words.get(setting.kind) or setting.kind.__name__
        raise UsageError(f"{setting.path} is {text!r}, but must be of type {expected}.") from None
