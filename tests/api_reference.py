"""Writes docs/api.md from the code's own signatures and docstrings: python tests/api_reference.py > docs/api.md"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import analysis
import figures
import layerwise
import probes
from analysis.separability import curves
from analysis.tables import read
from layerwise.activations import Activations, open_activations, pooled_features
from layerwise.datasets import Dataset, Split, load_dataset
from layerwise.errors import UsageError, UserError
from layerwise.export import Exported
from layerwise.runfile import Rows, RunFile
from probes.logistic import CertifiedLogisticRegression, LinearFit, fit_path
from probes.protocol import Fit, Predictions

HEAD = """# The Python API

Written from the code by `python tests/api_reference.py > docs/api.md`; a test compares the two. An example that a
test runs stands in the README. Names are imported from where they stand here; `layerwise`, `probes`, `analysis` and
`figures` load torch, pandas and matplotlib only when a function of theirs is asked for, and `dir()` shows these. Each
object shows what it is, without its arrays, where Python or a notebook prints it.

`Run` is the path of a run file, or a run that is open; `Runs` one of them, or several. Accuracies are in [0, 1], but
where a table says percent. What a command would say is said on stderr, and its progress shown on a terminal or under
the cell of a notebook; `quiet=True`, where a function has it, or
`logging.getLogger("layerwise").setLevel("WARNING")` for all, silences both, but for warnings. Errors that you
can mend are a `UserError` of one line, which names arguments as they are written here.
"""


def _public(package: Any, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(package, name) for name in names or package.__all__)


SECTIONS: dict[str, dict[str, tuple[Any, ...]]] = {
    "Train, extract, open": {
        "layerwise": _public(layerwise, "train", "extract_network", "extract_arrays", "open_run"),
    },
    "Export a trained network": {"layerwise": _public(layerwise, "export_network"), "layerwise.export": (Exported,)},
    "Read a run": {
        "layerwise.runfile": (RunFile, Rows),
        "layerwise.activations": (open_activations, Activations, pooled_features),
    },
    "Data": {"layerwise.datasets": (load_dataset, Dataset, Split)},
    "Fit probes": {
        "probes": _public(probes, "fit", "estimators", "compare"),
        "probes.protocol": (Fit, Predictions),
        "probes.logistic": (CertifiedLogisticRegression, fit_path, LinearFit),
    },
    "Tables of numbers": {
        "analysis": _public(analysis),
        "analysis.tables": (read,),
        "analysis.separability": (curves,),
    },
    "Figures, captions and tables of a paper": {"figures": _public(figures)},
    "Errors": {"layerwise.errors": (UserError, UsageError)},
}


def reference() -> str:
    """Return the text of docs/api.md."""
    lines = [HEAD]
    for title, modules in SECTIONS.items():
        lines.append(f"## {title}\n")
        for module, members in modules.items():
            for member in members:
                lines += _entry(module, member)
    return "\n".join(lines)


def _entry(module: str, member: Any) -> Iterator[str]:
    yield f"### {module}.{member.__name__}\n"
    if inspect.isclass(member):
        yield _text(member)
        yield from _members(member)
    else:
        yield f"```python\n{_signature(member.__name__, member)}\n```\n"
        yield _text(member)


def _members(kind: type) -> Iterator[str]:
    """Yield a line for each public method and property that the class defines itself, in its own order."""
    listed = []
    for name, value in vars(kind).items():
        if isinstance(value, property):
            value = value.fget
            called = name
        elif inspect.isfunction(value) and not name.startswith("_"):
            called = f"{name}{_short(value)}"
        elif name in ("__getitem__", "__len__") and value.__doc__:
            called = name
        else:
            continue
        first = inspect.getdoc(value)
        if first:
            listed.append(f"- `{called}`: {' '.join(first.split(chr(10) + chr(10))[0].split())}")
    if listed:
        yield "\n".join(listed) + "\n"


def _short(function: Any) -> str:
    names = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
    return f"({', '.join(names)})"


def _signature(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    shown: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        shown.append(f"{parameter.name}: {parameter.annotation}{default}")
    flat = f"{name}({', '.join(shown)}) -> {signature.return_annotation}"
    if len(flat) <= 110:
        return flat
    return "\n".join([f"{name}(", *(f"    {part}," for part in shown), f") -> {signature.return_annotation}"])


def _text(member: Any) -> str:
    """Return a docstring as Markdown; its indented parts become blocks."""
    text = inspect.cleandoc(member.__doc__ or "")
    lines = []
    for line in text.splitlines():
        if line in ("Args:", "Returns:", "Raises:", "Attributes:"):
            lines.append(f"**{line[:-1]}**\n")
        elif line.startswith("    ") and not line.startswith("     ") and ":" in line:
            lines.append(f"- {line.strip()}")
        else:
            lines.append(line if not line.startswith("    ") else f"  {line.strip()}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
