"""The layout of run.h5 is spelled in one module, and is what docs/format.md says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from layerwise.runfile import layout

ROOT = Path(__file__).resolve().parent.parent
LAYOUT = ROOT / "layerwise" / "runfile" / "layout.py"
# The state of a stopped training is a file of its own, with its own layout.
OTHER_FILES = {ROOT / "layerwise" / "training" / "checkpoint.py"}

FOLDERS = "samples|images|depths|blocks|auxiliaries|outputs|compression|provenance"
NAMES = f"{FOLDERS}|history|manifest"
PATH = re.compile(rf"/?({FOLDERS})/|/({NAMES})$")
# Methods of the writer and the reader that take a path.
TAKE_A_PATH = {"attributes", "rows", "array", "_rows", "_rows_or_none"}


def spelled(text: str) -> list[str]:
    """Return the paths of run.h5 that a module spells: as text with a slash, or as what a writer is given."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and PATH.match(node.value):
            found.append(node.value)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in TAKE_A_PATH:
            found += [ast.unparse(a) for a in node.args[:1] if re.search(rf"/|^'({NAMES})'$", ast.unparse(a))]
    return found


def test_no_other_module_spells_a_path() -> None:
    modules = {
        path for package in ("layerwise", "probes", "analysis", "figures") for path in ROOT.glob(f"{package}/**/*.py")
    }
    found = {str(path): spelled(path.read_text()) for path in modules - {LAYOUT} - OTHER_FILES}
    assert {path: lines for path, lines in found.items() if lines} == {}
    assert spelled(LAYOUT.read_text())


@pytest.mark.parametrize(
    "line",
    ["f'depths/{j:02d}'", "file['/provenance']", "writer.array('history', rows)", "writer.rows(f'{path}/kept', 1)"],
)
def test_a_spelled_path_is_found(line: str) -> None:
    assert spelled(line)


def test_the_document_names_every_path() -> None:
    told = (ROOT / "docs" / "format.md").read_text()
    paths = [layout.labels("{split}"), layout.indices("{split}"), layout.images("{split}"), layout.PROVENANCE]
    paths += [layout.HISTORY, layout.MANIFEST, layout.DEPTHS, layout.outputs(99, "{split}"), layout.pruning(99)]
    paths += [layout.activations(99, "{split}", kind) for kind in ("pooled", "maps", "class_token")]
    paths += [layout.weights(kind, 99, "{name}") for kind in ("blocks", "auxiliaries")]
    assert [path for path in paths if path.removeprefix("/").replace("99", "NN") not in told] == []
