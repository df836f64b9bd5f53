"""Holds the house to its plan: who may import whom, docstrings, no utils.py, no path of one machine."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# figures -> analysis -> probes -> layerwise: a package may import itself and what stands left of it.
ORDER = ("layerwise", "probes", "analysis", "figures")
WITHOUT_TORCH = ("analysis", "figures")
TORCH = {"torch", "torchvision"}

# The floors inside a package, the lowest first: a file or folder may import only what stands on floors below its own.
FLOORS = {
    "layerwise": (
        {"errors", "notebook", "hidden", "launch"},
        {"ranks"},
        {"config", "commandline", "hardware", "units", "publication", "hdf5", "locks", "top5"},
        {"settings", "sharing"},
        {"spoken"},
        {"recipes", "datasets", "runfile"},
        {"model", "images"},
        {"training", "extraction"},
        {"activations", "forecast", "configfile"},
        {"export"},
        {"api", "commands"},
    ),
    "probes": (
        {"names", "protocol", "csvfile"},
        {"tasks", "solver"},
        {"probe", "logistic"},
        {"pooled", "results", "trained"},
        {"linear", "cnn", "nearest", "estimator"},
        {"families", "sweep", "shown"},
        {"api", "cli"},
    ),
    "figures": (
        {"kit"},
        {"accuracy_table"},
        {"tables", "file_set"},
        {"output", "plots"},
        {"api"},
        {"parts", "depths", "images"},
        {"study"},
        {"page"},
        {"commands"},
    ),
}

# A path that only one machine has. A URL or a relative path that holds such a word is none.
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|root|work|Users|mnt)/\w")

# Where a package and its distribution have different names.
DISTRIBUTION = {"sklearn": "scikit-learn", "PIL": "pillow", "huggingface_hub": "huggingface-hub"}


def modules(root: Path, packages: tuple[str, ...] = ORDER) -> list[Path]:
    return sorted(path for package in packages for path in (root / package).rglob("*.py"))


def name_of(path: Path, root: Path) -> str:
    """Return the dotted name under which `path` is imported."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Return the top-level packages that a module imports by absolute name, anywhere in its text."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Call) and _is_dynamic_import(node.func) and node.args:
            argument = node.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                found.add(argument.value)
    return {name.partition(".")[0] for name in found}


def _is_dynamic_import(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in {"import_module", "__import__"}


def violations(root: Path) -> list[str]:
    """Return a line for each breach of the plan by the packages under `root`."""
    lines = []
    for path in modules(root):
        name = name_of(path, root)
        package = name.partition(".")[0]
        allowed = ORDER[: ORDER.index(package) + 1]
        found = imports(path)
        lines += [f"{name} imports {other}" for other in ORDER if other in found and other not in allowed]
        if package in WITHOUT_TORCH:
            lines += [f"{name} imports {other}" for other in sorted(found & TORCH)]
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))):
            lines.append(f"{name} has no docstring")
        if path.name == "utils.py":
            lines.append(f"{name} is a utils.py")
        lines += [f"{name} names a machine's path: {found}" for found in machine_paths(path)]
    return lines


def upward(root: Path) -> list[str]:
    """Return a line for each import inside a package that does not point to a lower floor."""
    lines = []
    for package, floors in FLOORS.items():
        floor = {name: number for number, names in enumerate(floors) for name in names}
        for path in modules(root, (package,)):
            own = path.relative_to(root / package).parts[0].removesuffix(".py")
            if own == "__init__":
                continue
            names = {name.split(".")[1] for name in imported_modules(path) if name.startswith(f"{package}.")}
            above = [name for name in sorted(names - {own, "__version__"}) if floor[name] >= floor[own]]
            lines += [f"{name_of(path, root)} imports {package}.{name}" for name in above]
    return lines


def imported_modules(path: Path) -> set[str]:
    """Return the dotted names that a module imports by absolute name: modules, and what `from` takes of them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def circle(root: Path) -> list[str]:
    """Return modules that import each other in a circle, also by imports inside functions; [] for none."""
    known = {name_of(path, root): path for path in modules(root)}
    arrows = {}
    for name, path in known.items():
        taken = imported_modules(path) - {"layerwise.__version__"}  # a constant of the package itself
        arrows[name] = {other if other in known else other.rpartition(".")[0] for other in taken} & set(known) - {name}
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def machine_paths(path: Path) -> list[str]:
    """Return each line of a text file that names a path of one machine."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if MACHINE_PATH.search(line)]


def loads_torch(root: Path, names: list[str]) -> str:
    """Import modules one by one in a new process; return the first after which torch is loaded, or ""."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules:\n"
        "        sys.exit(print(name, end=''))\n"
    )
    command = [sys.executable, "-c", code, *names]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_packages_keep_the_plan() -> None:
    assert violations(ROOT) == []


def test_arrows_inside_a_package_point_down() -> None:
    assert upward(ROOT) == []


def test_every_file_and_folder_stands_on_a_floor() -> None:
    for package, floors in FLOORS.items():
        found = {path.relative_to(ROOT / package).parts[0].removesuffix(".py") for path in modules(ROOT, (package,))}
        assert found - {"__init__"} == set().union(*floors)


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circle(ROOT) == []


def test_no_folder_holds_more_than_twenty_files() -> None:
    folders = {path.parent for path in modules(ROOT)}
    assert {str(folder): count for folder in folders if (count := len(list(folder.glob("*.py")))) > 20} == {}


@pytest.mark.parametrize("package", WITHOUT_TORCH)
def test_importing_loads_no_torch(package: str) -> None:
    assert loads_torch(ROOT, [name_of(path, ROOT) for path in modules(ROOT, (package,))]) == ""


def test_documents_and_tests_name_no_machine() -> None:
    texts = [path for end in ("*.md", "*.toml", "*.cff", "Makefile", ".ci/*") for path in ROOT.glob(end)]
    texts += [path for folder in ("docs", "tests") for path in (ROOT / folder).rglob("*.[mp][dy]")]
    assert {str(path): machine_paths(path) for path in texts if machine_paths(path)} == {}
    assert Path(__file__) in texts


def test_dependencies_are_those_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # What is imported only where it is asked for; onnx and onnxscript are imported by torch.
    names = ("timm", "safetensors", "slurm", "onnx", "tensorboard")
    extras = [line for name in names for line in project["optional-dependencies"][name]]
    extras = [line for line in extras if not line.startswith(("onnx>", "onnxscript>"))]
    declared = {re.split(r"[<>=!~ \[]", line)[0] for line in project["dependencies"] + extras}
    found = set().union(*(imports(path) for path in modules(ROOT))) - sys.stdlib_module_names - set(ORDER)
    assert {DISTRIBUTION.get(name, name) for name in found} == declared


BREACHES = {
    "layerwise/a.py": ("import probes.linear", "layerwise.a imports probes"),
    "probes/a.py": ("def f():\n    from analysis import b", "probes.a imports analysis"),
    "analysis/a.py": (
        "import importlib as i\ni.import_module('figures.a')",
        "analysis.a imports figures",
    ),
    "analysis/b.py": ("from torch.nn import Linear", "analysis.b imports torch"),
    "figures/deep/a.py": ("def f():\n    import torchvision as v", "figures.deep.a imports torchvision"),
    "layerwise/utils.py": ("", "layerwise.utils is a utils.py"),
    "probes/b.py": ("DATA = '/" + "home/somebody/data'", "probes.b names a machine's path"),
}


@pytest.mark.parametrize("path", BREACHES)
def test_a_breach_is_found(path: str, tmp_path: Path) -> None:
    text, expected = BREACHES[path]
    module = tmp_path / path
    module.parent.mkdir(parents=True)
    module.write_text(f'"""Docstring."""\n{text}\n')
    (line,) = violations(tmp_path)
    assert line.startswith(expected)


def test_a_missing_docstring_is_found(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "__init__.py").write_text("import analysis, probes.linear, layerwise\n")
    assert violations(tmp_path) == ["figures has no docstring"]


def test_an_arrow_upward_and_one_across_are_found(tmp_path: Path) -> None:
    package = tmp_path / "layerwise"
    (package / "model").mkdir(parents=True)
    (package / "model" / "blocks.py").write_text("from layerwise.training.loop import solve\n")
    (package / "units.py").write_text("def f():\n    import layerwise.hardware\n")
    (package / "recipes.py").write_text("from layerwise import units\nfrom layerwise.config import RunConfig\n")
    assert upward(tmp_path) == [
        "layerwise.model.blocks imports layerwise.training",
        "layerwise.units imports layerwise.hardware",
    ]


def test_a_circle_is_found(tmp_path: Path) -> None:
    (tmp_path / "probes").mkdir()
    for name, text in {"a": "from probes.b import f", "b": "from probes import c", "c": "import probes.a"}.items():
        (tmp_path / "probes" / f"{name}.py").write_text(text + "\n")
    (tmp_path / "probes" / "d.py").write_text("import probes.a\n")
    assert set(circle(tmp_path)) == {"probes.a", "probes.b", "probes.c"}


def test_torch_loaded_by_way_of_another_module_is_found(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "between.py").write_text("import torch\n")
    (tmp_path / "clean.py").write_text("")
    (tmp_path / "guilty.py").write_text("import between\n")
    assert loads_torch(tmp_path, ["clean"]) == ""
    assert loads_torch(tmp_path, ["clean", "guilty"]) == "guilty"
