"""Messages in a Python call name arguments and functions, where commands name flags and commands."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path

import pytest

from layerwise.errors import UserError, option
from layerwise.spoken import FUNCTIONS, Python, python_call

ROOT = Path(__file__).resolve().parent.parent
FLAG = re.compile(r"(?<![\w/.-])--[a-z]")


@pytest.mark.parametrize(
    ("command", "written", "spoken"),
    [
        ("probe-depth", "Use --probe linear or cnn-1.", "Use probe='linear' or cnn-1."),
        ("probe-depth", "Leave it out by --depths, or give a smaller --pool.", "Leave it out by depths=..., or give a "
         "smaller pools=...."),
        ("probe-depth", "`probe-depth run.h5 --probe cnn-1 --probe-width 64,128` makes them.",
         "`probes.fit('run.h5', probe='cnn-1', widths=(64, 128))` makes them."),
        ("separability-figure", "Give --no-refit with --split validation.",
         "Give refit=False with split='validation'."),
        ("separability-figure", "or leave out --relative.", "or leave out relative=True."),
        ("layerwise-train", "change them by --set network.downsample=...",
         'change them by settings={"network.downsample": ...}'),
        ("layerwise-train", "Give --views N to augment, or use --prefix recompute.",
         """Give settings={"training.views": 'N'} to augment, or use settings={"training.prefix": 'recompute'}."""),
        ("layerwise-train", "--download fetches published data", "download=True fetches published data"),
        ("layerwise-train", "the file /tmp/--k/a--b.h5 is left", "the file /tmp/--k/a--b.h5 is left"),
        ("layerwise-train", "`layerwise-train digits --set network.k=1 --force`",
         """`layerwise.train('digits', settings={"network.k": 1}, force=True)`"""),
        ("layerwise-train", "`layerwise-train --mode untrained --set network.activation=none --out u.h5`",
         """`layerwise.train(settings={"mode": 'untrained', "network.activation": 'none'}, out='u.h5')`"""),
        ("layerwise-train", "`layerwise-train --config a.h5 --mode untrained`",
         """`layerwise.train(config='a.h5', settings={"mode": 'untrained'})`"""),
        ("probe-depth", "Move it away, and run probe-depth again.", "Move it away, and run probes.fit again."),
        ("layerwise-train", "/tmp/layerwise-train/x.h5 and layerwise-train.log", "/tmp/layerwise-train/x.h5 and "
         "layerwise-train.log"),
        ("layerwise-export", "-o is 'n.pth', but", "out=... is 'n.pth', but"),
        ("separability-study", "or give another -o.", "or give another folder=...."),
        ("layerwise-extract", "--image-size is 0, but", "image_size=... is 0, but"),
    ],
)  # fmt: skip
def test_flags_are_arguments_and_commands_are_calls(command: str, written: str, spoken: str) -> None:
    parameters = {"image_size": 0, "split": "", "relative": False, "download": False}
    assert Python(FUNCTIONS[command], parameters).text(written) == spoken


def test_while_a_function_runs_errors_and_the_log_speak_its_language(capsys: pytest.CaptureFixture[str]) -> None:
    @python_call("layerwise-train")
    def call(holdout: float = 0.1, quiet: bool = False) -> None:
        logging.getLogger("layerwise.x").info("%s, --mode greedy", option("trained_on", "nothing"))
        raise UserError(f"{option('holdout')} beside {option('subset', '10')}: give --holdout 0")

    with pytest.raises(UserError) as error:
        call()
    assert str(error.value) == """holdout beside settings={"data.subset": 10}: give holdout=0"""
    with pytest.raises(UserError):
        call(quiet=True)
    logging.getLogger().handlers.clear()
    with pytest.raises(UserError):
        call()
    with pytest.raises(UserError):
        call(quiet=True)
    assert capsys.readouterr().err == """trained_on='nothing', settings={"mode": 'greedy'}\n"""
    assert option("holdout") == "--holdout"


def messages() -> list[str]:
    """Return every text in the code of the packages that names a flag, but for help and docstrings of commands."""
    found = []
    for package in ("layerwise", "probes", "analysis", "figures"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if {"commands", "recipes"} & set(path.parts) or path.name == "spoken.py":
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(node, ast.JoinedStr):
                    text = "".join(p.value if isinstance(p, ast.Constant) else "7" for p in node.values)  # type: ignore[misc]
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    text = node.value
                else:
                    continue
                if FLAG.search(text):
                    found.append(text)
    return found


@pytest.mark.parametrize("command", FUNCTIONS)
def test_no_message_of_a_python_call_names_a_flag(command: str) -> None:
    written = messages()
    assert len(written) > 50
    speech = Python(FUNCTIONS[command], {})
    assert [spoken for text in written if FLAG.search(spoken := speech.text(text))] == []
