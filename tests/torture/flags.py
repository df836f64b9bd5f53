"""The flags trials: command lines drawn by hypothesis from the commands' own parameters."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import typer

from tests.torture.children import Limits, call, in_fork
from tests.torture.commands import ENTRIES, entry
from tests.torture.jobs import ARRAYS, NETWORK, RUN, TABLES
from tests.torture.material import Material
from tests.torture.verdicts import Outcome, trouble

KINDS = [f"flags: {command}" for command in ENTRIES]
SECONDS = 30.0
BATCH = 20  # command lines drawn together

# Never drawn: they fetch from the network, hand work to a cluster, or write into the home of who runs this.
FORBIDDEN = ("--download", "--launcher", "--slurm", "--install-completion", "--show-completion")

RUNS = (RUN, "untrained.h5", "maps.h5", "arrays.h5")
OUTPUTS = ("new.pdf", "new.md", "new.h5")
INTEGERS = ("-1", "0", "1", "2", "3", "4", "8", "300", "1000000000", "9223372036854775808", "1.5", "one", "")
NUMBERS = ("0", "0.1", "0.5", "1", "1.5", "-0.1", "nan", "inf", "1e-9", "1e400", "x", "")
PATHS = (
    RUN, "untrained.h5", "maps.h5", "arrays.h5", ARRAYS, NETWORK, "run.probes.csv", "run.predictions.h5", "missing.h5",
    ".", "folder", "folder/new.h5", "new.h5", "new.pdf", "new.md", "new.onnx", "new.pt2", "new", "", "missing/new.h5",
    "/dev/null", "/dev/full", "-", "é.h5", "a b.h5", "x" * 300, f"{NETWORK}:make", f"{NETWORK}:nothing",
)  # fmt: skip
WORDS = """
    auto none all 0 1 2 -1 1,2 0-2 2-0 64,128 linear linear,ncm knn cnn-1 cnn-0 cnn-99999 auxiliary ensemble greedy
    parallel end-to-end untrained digits mnist imagefolder cpu cuda fp32 bf16 pooled maps cache recompute stored native
    matched input permuted teacher test train validation k mode width seed pool probe-width single double smoke cpu,cpu
    epochs operations 1GB 1kB -1GB 1e99GB nothing other-data train-fold train-split patch class data accuracy trends
    contrasts differences published logits softmax uniform uint8 float normalised torchvision:resnet18
    torchvision:nothing torchvision: timm:x net.py:make net.py:nothing net.py , = * é -- -o [ 0.5,0.5,0.5 nan
"""
TEXTS = ("", "a\nb", "\x1b[31m", *WORDS.split())
SETTINGS = (
    "training.epochs=1", "training.epochs=0", "training.batch_size=0", "training.batch_size=1000000000", "training.x=1",
    "training.learning_rate=nan", "training.learning_rate=0", "training.learning_rate=1e30", "network.k=0",
    "network.width=0", "network.depth=100", "data.subset=1", "data.subset=9", "data.image_size=4", "data.label=x",
    "data.label=", "data.dataset=", "mode=greedy", "seed=-1", "seed=x", "store=maps", "nothing", "=", "a=b=c",
    "a.b.c=1", "data=1", "training=", "num_classes=10", "num_classes=0", "timeout_min=1",
)  # fmt: skip

# What keeps a command small where nothing else was drawn, so that a trial is no training of minutes.
SMALL = {
    "layerwise-train": "--width 4 --depth 2 --aux-width 4 --epochs 1 --subset 300",
    "separability-study": "--budget smoke --k 1 --width 4 --seeds 1 --depth 2 --epochs 1 --subset 200 --dry-run -o new",
    "probe-depth": "--probe ncm --probe-width 4 --probe-seeds 1 --epochs 1",
    "layerwise-extract": "--subset 300",
}


def trial(kind: str, rng: np.random.Generator, material: Material) -> Outcome:
    """Run one drawn command line; it must succeed, or fail in one line."""
    command = kind.removeprefix("flags: ")
    words = drawn(command, int(rng.integers(0, 2**31)))
    inputs = (RUN, "untrained.h5", "maps.h5", "arrays.h5", ARRAYS, NETWORK, *TABLES)
    with material.trial(inputs, "flags") as folder:
        (folder / "folder").mkdir()
        done = call(command, words, folder, Limits(seconds=SECONDS))
    # A usage error may be told in words that click chose, which stand on one line all the same.
    verdict = trouble(done) or ("refused" if done.code else "answered")
    return Outcome(kind=kind, tried=" ".join(map(repr, words)), verdict=verdict, done=done)


def drawn(command: str, seed: int) -> list[str]:
    """Return the words of a command line that follows from a seed."""
    import hypothesis
    from hypothesis import strategies as st

    lines: list[list[str]] = []
    parameters = {p["name"]: p for p in _parameters(command) if p["options"][0] not in FORBIDDEN}

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=BATCH, database=None, phases=[hypothesis.Phase.generate], deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(st.data())
    def draw(data: Any) -> None:
        chosen = data.draw(st.lists(st.sampled_from(sorted(parameters)), max_size=6, unique=True))
        needed = [name for name, p in parameters.items() if p["required"] and data.draw(st.integers(0, 9))]
        lines.append(_line(command, [parameters[n] for n in dict.fromkeys([*needed, *chosen])], data, st))

    draw()
    return lines[seed % len(lines)]


def _line(command: str, chosen: list[dict[str, Any]], data: Any, st: Any) -> list[str]:
    words: list[str] = []
    for parameter in chosen:
        value = data.draw(st.sampled_from(_pool(parameter))) if not parameter["flag"] else None
        if parameter["argument"]:
            words = [*([value] if value is not None else []), *words]
            continue
        name = data.draw(st.sampled_from(parameter["options"]))
        words += [name] if value is None else [name, value]
    return words + _small(command, words)


def _small(command: str, words: list[str]) -> list[str]:
    """Return the flags that keep a command small, without those that were drawn."""
    added: list[str] = []
    for part in f" {SMALL.get(command, '')}".split(" -")[1:]:
        name, *value = f"-{part}".split()
        added += [] if name in words else [name, *value]
    return added


def _pool(parameter: dict[str, Any]) -> tuple[str, ...]:
    """Return what a parameter is drawn from: anything, and more often what makes sense there."""
    kind, metavar = parameter["type"], parameter["metavar"]
    if "=" in metavar:
        return SETTINGS
    if "path" in kind or "." in metavar:
        sensible = RUNS if "RUN" in metavar else OUTPUTS if "--output" in parameter["options"] else ()
        return (*PATHS, *sensible * (len(PATHS) // 2))
    if "int" in kind:
        return (*INTEGERS, *("1", "2", "3", "4") * 5)
    if "float" in kind:
        return NUMBERS
    named = tuple(word for word in TEXTS if word and word in parameter["help"].replace(",", " ").split())
    return (*TEXTS, *named * (len(TEXTS) // max(len(named), 1)) * 2)


@functools.cache
def _parameters(command: str) -> list[dict[str, Any]]:
    """Return what a command takes, as the console script would hand it to typer."""
    found: list[dict[str, Any]] = json.loads(in_fork(lambda: _asked(command)))
    return found


def _asked(command: str) -> str:
    class Heard(BaseException):
        pass

    def hear(app: typer.Typer, *args: Any, **words: Any) -> None:
        described = [_described(parameter) for parameter in typer.main.get_command(app).params]
        raise Heard(json.dumps([one for one in described if one["name"] != "help"]))

    typer.Typer.__call__ = hear  # type: ignore[method-assign]
    try:
        entry(command)()
    except Heard as heard:
        return str(heard)
    raise AssertionError(f"{command} asked typer for nothing")


def _described(parameter: Any) -> dict[str, Any]:
    # Newer versions of typer keep the annotation, older ones the type of click.
    about = getattr(parameter, "type_descriptor", None)
    kind = parameter.type.name if about is None else about.annotation
    return {
        "name": parameter.name,
        "options": [*parameter.opts, *parameter.secondary_opts],
        "argument": parameter.param_type_name == "argument",
        "required": bool(parameter.required),
        "type": str(kind).lower(),
        "flag": bool(getattr(parameter, "is_flag", False)),
        "metavar": str(parameter.metavar or ""),
        "help": str(parameter.help or ""),
    }
