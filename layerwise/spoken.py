"""Messages as a Python call says them: probe='linear' for --probe linear, and commands as calls of functions.

Messages are written once, in the words of the commands. `python_call` marks every public function: while it runs, what
is raised or said names the function's own arguments, and what a command would say is heard.
"""

from __future__ import annotations

import functools
import inspect
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from layerwise.commandline import heard
from layerwise.errors import speaking
from layerwise.settings import SETTINGS

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Function:
    """The function that does in Python what a command does.

    names: options by another name than that of the argument. takes_fields: whether fields of the configuration are
    given to it as settings={"training.epochs": 3}.
    """

    name: str
    names: Mapping[str, str] = field(default_factory=dict)
    takes_fields: bool = False


_OPENED = {"data_dir": "layerwise.open_run(run, data_dir=...)"}
_PROBES = {"pool": "pools", "probe_width": "widths", "probe_seeds": "seeds"} | _OPENED
_FIGURE = {"probe": "probes", "output": "out"}
FUNCTIONS = {
    "layerwise-train": Function("layerwise.train", takes_fields=True),
    "layerwise-extract": Function(
        "layerwise.extract_network", {"model_arg": "its own arguments", "list_layers": "model.named_modules()"}
    ),
    "layerwise-export": Function("layerwise.export_network", _OPENED),
    "probe-depth": Function("probes.fit", _PROBES),
    "separability-figure": Function("figures.draw", _FIGURE),
    "attribution-figure": Function("figures.draw_attribution", {"output": "out"}),
    "training-figure": Function("figures.draw_training", {"output": "out"}),
    "separability-table": Function("figures.table", _FIGURE),
    "analyze-depth": Function("figures.draw_geometry", {"output": "out"}),
    "depth-figure": Function("figures.draw_depths", {"output": "out"}),
    "image-depth": Function("figures.draw_images", {"output": "out", "probe": "probes"} | _OPENED),
    "separability-report": Function("figures.separability_report", {"output": "out"}),
    "separability-study": Function(
        "figures.run_study",
        {"probe_width": "widths", "probe": "probes", "output": "folder", "with": "beside"},
        takes_fields=True,
    ),
}
# Flags that take no value; as an argument they are True, or, as --no-refit, False.
_SWITCHES = {
    "force", "relative", "quick", "download", "dry_run", "vary_fold", "allow_other", "quiet", "verbose", "keep_failed",
}  # fmt: skip
# What follows a flag is its value where it is a number, a word in capitals that stands for one, or one of these. Any
# other word goes on with the sentence: "--download fetches published data sets".
_VALUES = (
    "linear(?:-ovr)?|cnn-(?:[0-9]+|p)|knn|ncm|codelength|auxiliary|ensemble(?:-softmax|-uniform)?|permuted|teacher|native|matched|"
    "greedy|parallel|end-to-end|untrained|operations|maps|pooled|recompute|cache|stored|cpu|cuda|fp32|bf16|float32|"
    "single|double|train|validation|nothing|other-data|train-(?:fold|split)|data|none|slurm|local|input"
)
_FLAG = re.compile(
    r"(?<![\w/.'\"-])--(?P<name>[a-z][a-z0-9-]*)"
    rf"(?:[ =](?P<value>-?[0-9][\w.,]*\w|[0-9]|[A-Z][A-Z0-9.:/]*\b|(?:{_VALUES})\b(?![-\w])))?"
)
_SET = re.compile(r"--set (?P<path>[a-z][\w.]*\w)=(?P<value>\.\.\.|[\w-][\w.-]*[\w-]|\w)?")
_COMMAND = re.compile(rf"`(?P<words>(?:{'|'.join(FUNCTIONS)})(?: [^`]*)?)`")
# A command by its name alone, and no part of a path.
_NAMED = re.compile(rf"(?<![\w/.'\"`-])(?P<command>{'|'.join(FUNCTIONS)})(?![\w/'\"-]|\.\w)")
_OUTPUT = re.compile(r"(?<![\w/.'\"-])-o(?![\w-])")


class Python:
    """Options as the arguments of a function: a `layerwise.errors.Speech`."""

    def __init__(self, function: Function, parameters: Mapping[str, object]):
        self._function, self._parameters = function, parameters

    def option(self, name: str, value: str | bool | None) -> str:
        """Return name='value', or the name alone; a field of the configuration as an item of `settings`."""
        if value is not None and name in self._function.names and " " in self._function.names[name]:
            value = None
        called = self._function.names.get(name, name)
        if name.startswith("no_") and called not in self._parameters:
            called, value = self._function.names.get(name[3:], name[3:]), False
        shown = value if isinstance(value, str | None) and value in (None, "...") else _literal(value)
        path = None if called in self._parameters else self._field(name)
        if path is not None:
            return _setting(path, value if isinstance(value, str) else None)
        return called if shown is None else f"{called}={shown}"

    def text(self, message: str) -> str:
        """Return a message in which commands are calls, and flags are arguments."""
        message = message.replace("the same command", "the same call")
        message = _COMMAND.sub(lambda found: _call(found["words"]), message)
        message = _SET.sub(lambda found: self._set(found["path"], found["value"]), message)
        message = _NAMED.sub(lambda found: FUNCTIONS[found["command"]].name, message)
        message = _OUTPUT.sub(f"{self._function.names.get('output', 'out')}=...", message)
        return _FLAG.sub(self._spoken, message)

    def _spoken(self, found: re.Match[str]) -> str:
        name = found["name"].replace("-", "_")
        if found["value"] is None and name in _SWITCHES:
            return self.option(name, True)
        bare = self.option(name, found["value"])
        is_name = found["value"] is None and bare.isidentifier()
        return f"{bare}=..." if is_name else bare

    def _set(self, path: str, value: str | None) -> str:
        """Return a field of --set: the argument of its name, where data are loaded by one, or an item of `settings`."""
        head, _, name = path.partition(".")
        if head == "data" and name in self._parameters:
            return f"{name}={_literal(value or '...')}"
        return _setting(path, value)

    def _field(self, name: str) -> str | None:
        if not self._function.takes_fields:
            return None
        return next((path for path in SETTINGS if path.rpartition(".")[2] == name), None)


def _setting(path: str, value: str | None) -> str:
    return f'settings={{"{path}": {_literal(value or "...")}}}'


def _literal(value: str | bool | None) -> str:
    """Return the text of a value as Python writes it."""
    if not isinstance(value, str):
        return repr(value)
    if value == "..." or re.fullmatch(r"-?[0-9]+(\.[0-9]+)?(e-?[0-9]+)?", value):
        return value
    if re.fullmatch(r"[0-9]+(,[0-9]+)+", value):
        return f"({value.replace(',', ', ')})"
    if re.fullmatch(r"[a-z][\w-]*(,[a-z][\w-]*)+", value):  # names, as of probes
        return repr(tuple(value.split(",")))
    return {"true": "True", "false": "False", "none": repr("none")}.get(value, repr(value))


def _call(command: str) -> str:
    """Return a command line as the call that does the same."""
    program, *words = shlex.split(command)
    function = FUNCTIONS[program]
    speech = Python(function, {})
    given: list[str] = []
    while words:
        word = words.pop(0)
        if word == "-o" and words:
            given.append(speech.option("output", words.pop(0)))
        elif not word.startswith("--"):
            given.append(repr(word))
        elif word == "--set" and words:
            path, _, value = words.pop(0).partition("=")
            given.append(_setting(path, value))
        else:
            name = word[2:].replace("-", "_")
            has_value = bool(words) and not words[0].startswith("--")
            given.append(speech.option(name, words.pop(0) if has_value else True if name in _SWITCHES else "..."))
    fields = [words for words in given if words.startswith("settings={")]
    if len(fields) > 1:  # one argument, however many fields it has
        given[given.index(fields[0])] = f"settings={{{', '.join(words[10:-1] for words in fields)}}}"
        given = [words for words in given if words not in fields]
    return f"`{function.name}({', '.join(given)})`" if given else f"`{function.name}`"


def python_call(command: str) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Return the decorator of a public function that does what a command does.

    Its errors name its arguments; what it says is heard, as `layerwise.commandline.heard` says, unless it is called
    with quiet=True.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        speech = Python(FUNCTIONS[command], inspect.signature(function).parameters)

        @functools.wraps(function)
        def called(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            with speaking(speech), heard(quiet=bool(kwargs.get("quiet"))):
                return function(*args, **kwargs)

        return called

    return decorate
