"""Options that several commands take, and those built from the fields of the configuration."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer

from layerwise import commandline
from layerwise.commandline import INPUT, MACHINE, NETWORK, OUTPUT, TRAINING
from layerwise.config import RunConfig
from layerwise.errors import UsageError
from layerwise.settings import SETTINGS, Setting, by_path

Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Leave out progress and notes on stderr; warnings and errors stay.",
        rich_help_panel=OUTPUT,
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more of what is done.", rich_help_panel=OUTPUT)]
Force = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.", rich_help_panel=OUTPUT)]
Device = Annotated[
    str, typer.Option("--device", help="auto (a GPU where there is one), cpu or cuda.", rich_help_panel=MACHINE)
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="LAYERWISE_DATA",
        help="Folder that holds the data set, where it is not bundled.",
        rich_help_panel=INPUT,
    ),
]
RunDataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder of the images, where the run file holds none; each file is compared with its digest.",
        show_default="where they were",
        rich_help_panel=INPUT,
    ),
]
Download = Annotated[
    bool,
    typer.Option("--download", help="Fetch the data set into --data-dir if it is not there.", rich_help_panel=INPUT),
]
Read = Annotated[
    str,
    typer.Option(
        "--read",
        help="Images of an imagefolder: auto, memory, or stream (decoded anew in each epoch); the results are equal.",
        rich_help_panel=MACHINE,
    ),
]
SkipBroken = Annotated[
    bool,
    typer.Option(
        "--skip-broken",
        help="Leave out files of an imagefolder that cannot be read, and count them.",
        rich_help_panel=INPUT,
    ),
]
RunOut = Annotated[Path, typer.Option("--out", "-o", help="Run file to write.", rich_help_panel=OUTPUT)]
MaxSize = Annotated[str, typer.Option("--max-size", help="Most that the run file may take.", rich_help_panel=OUTPUT)]
RunNetwork = Annotated[
    str | None,
    typer.Option(
        "--network",
        metavar="FILE.py:FACTORY",
        help="The file that defines the blocks, for a run trained with --network.",
        rich_help_panel=INPUT,
    ),
]


def is_typed(data_dir: Path | None) -> bool:
    """Tell whether a folder of data was typed, and is not only the environment variable that stands for it."""
    return data_dir is not None and str(data_dir) != os.environ.get("LAYERWISE_DATA")


def warn_of_unread(data_dir: Path | None, dataset: str) -> None:
    """Say so where a folder of data was typed, but the data set is the bundled one."""
    if is_typed(data_dir) and dataset == "digits":
        commandline.log.warning(
            "--data-dir %s is not read, for the data set is digits, which is bundled. --dataset imagefolder reads a "
            "folder of images.",
            data_dir,
        )


# The group of a field, by its path or by the part of the configuration that it belongs to.
_PANELS = {
    "data": INPUT, "network": NETWORK, "training": TRAINING, "": TRAINING, "store": OUTPUT, "dtype": OUTPUT,
    "precision": MACHINE,
}  # fmt: skip


Command = Callable[..., None]


def takes_fields(*parts: str, defaults: RunConfig | None = None) -> Callable[[Command], Command]:
    """Return a decorator that gives a command an option for each field that has a flag, in place of its `**fields`.

    The command then gets in `fields`, by dotted path, what was typed.

    Args:
        parts: "data", "training" and so on, or paths of single fields; none for all.
        defaults: shown by --help, and not passed on; None where they depend on the recipe.
    """
    chosen = [
        setting
        for path, setting in SETTINGS.items()
        if setting.has_flag and (not parts or path in parts or path.partition(".")[0] in parts)
    ]
    values = by_path(dataclasses.asdict(defaults)) if defaults else {}

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        kept = [p.replace(kind=p.KEYWORD_ONLY) for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        options = [_option(setting, values.get(setting.path)) for setting in chosen]

        @functools.wraps(command)
        def called(**words: Any) -> None:
            found = {setting.path: words.pop(_name(setting)) for setting in chosen}
            command(**words, **{path: value for path, value in found.items() if value != values.get(path)})

        called.__signature__ = own.replace(parameters=[*options, *kept])  # type: ignore[attr-defined]
        return called

    return decorate


def _option(setting: Setting, default: object) -> inspect.Parameter:
    panel = _PANELS.get(setting.path) or _PANELS[setting.path.rpartition(".")[0]]
    option = typer.Option(setting.flag, help=setting.help, rich_help_panel=panel)
    one: Any = str if get_origin(setting.kind) is tuple else setting.kind  # numbers with commas are read as of --set
    kind: Any = one if default is not None else one | None
    annotation: Any = Annotated[kind, option]
    return inspect.Parameter(_name(setting), inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _name(setting: Setting) -> str:
    return setting.path.rpartition(".")[2]


def check_run_name(out: Path) -> None:
    """Raise UsageError where a run file is to be written under a name that its readers do not expect."""
    if out.suffix != ".h5" or out.name.endswith(".predictions.h5"):
        raise UsageError(f"--out is {str(out)!r}, but a run file's name ends in .h5, and not in .predictions.h5.")
