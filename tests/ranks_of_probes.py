"""What ranks do in tests/test_probes_ranks.py. One process imports all that they need, and is forked into ranks.

Of a real torchrun they see its variables and its store. Each case has its own ranks:

    python ranks_of_probes.py FOLDER '{"NAME": [2, ["RUN.H5", "--probe", "linear"]], "FUNCTION": [3, []]}'

runs probe-depth with words on so many ranks, or without words a function of this file. What rank r prints goes to
FOLDER/NAME.r.out and NAME.r.err.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from linear_problems import blobs
from torch import distributed as dist

import probes.cnn.probe
import probes.linear.codelength
import probes.nearest.probe
import probes.results.report
import probes.shown.evaluate  # noqa: F401 - once for all ranks
from layerwise import commandline, launch, ranks
from layerwise.errors import UserError
from layerwise.runfile import RunFile
from probes.cli import probe
from probes.linear.features import read_depth
from probes.linear.probe import LinearFamily
from probes.nearest.probe import KnnFamily, NcmFamily
from probes.probe import Family, ProbeName
from probes.protocol import Fit
from probes.solver import design_matrix, newton
from probes.solver.path import Fitter
from probes.solver.standardiser import Standardiser
from probes.tasks.task import Task

CPU = torch.device("cpu")
CUTS = (0, 31, 70, 120)  # of 120 rows among three ranks: unequal shards
LAMS = [1e-1, 1e-2]


def cases() -> dict[str, dict[str, Any]]:
    """Return what is fitted by ranks and by one process: X, y and options of a `Fitter`, and what is patched."""
    X, y = blobs()
    wide, labels = blobs(d=200, seed=1)
    # of the second path the last rank holds no sample
    two_paths = {"sample_weight": np.stack([np.arange(120) % 3 != 1, np.arange(120) < 40])}
    return {
        **{loss: {"X": X, "y": y, "loss": loss, "tol": 1e-9} for loss in ("multinomial", "squared_hinge")},
        "float32": {"X": X.astype(np.float32), "y": y, "_SMALL": 0},
        "streamed": {"X": X, "y": y, "max_memory": 100},
        "weighted": {"X": X, "y": y, **two_paths},
        "a class on one rank": {"X": X, "y": np.where((y == 2) & (np.arange(120) > 30), 1, y), "n_classes": 4},
        "more features than rows": {"X": wide, "y": labels},
        "part of the spectrum": {"X": wide, "y": labels, "_GRAM_LIMIT": 50},
    }


def fits(X: np.ndarray, y: np.ndarray, rows: slice, is_shared: bool, **options: Any) -> tuple[list[Any], int]:
    """Return the fits of all paths on some rows, with those that other ranks hold, and how many features are held."""
    before = newton._SMALL, design_matrix._GRAM_LIMIT
    newton._SMALL = options.pop("_SMALL", before[0])
    design_matrix._GRAM_LIMIT = options.pop("_GRAM_LIMIT", before[1])
    if "sample_weight" in options:
        options["sample_weight"] = options["sample_weight"][:, rows]
    fitter = Fitter(X[rows], y[rows], is_shared=is_shared, **({"n_classes": 3} | options))
    held = fitter._joint[0][1].design._held
    found = [fit for path in fitter.fit(LAMS) for fit in path]
    newton._SMALL, design_matrix._GRAM_LIMIT = before
    return [[*vars(fit).values()] for fit in found], 0 if held is None else len(held)


def run(*words: str) -> int:
    return commandline.call(probe, "probe-depth", list(words))


def shards(folder: Path) -> int:
    """Fit every case on the rows of each rank, and say what each holds; what is wrong with one's is raised on all."""
    with ranks.joined(CPU):
        rows = slice(*CUTS[ranks.rank() : ranks.rank() + 2])
        found = {name: fits(rows=rows, is_shared=True, **case) for name, case in cases().items()}
        broken = cases()["multinomial"]["X"].copy()
        broken[40, 2] = np.nan  # of the second rank
        with pytest.raises(UserError, match="^train: found 1 NaN and 0 infinite values in the features"):
            Standardiser(broken[rows], where="train", is_shared=True)
        with RunFile(folder / "run.h5") as run:
            data = read_depth(Task(run), 1, ["train", "test"], side=2, device=CPU, max_memory=None)
        held = {split: (len(x), len(data.y[split])) for split, x in data.x.items()}
        torch.save((found, held), folder / f"shards.{ranks.rank()}.pt")
    return 0


def until(folder: Path, family: type[Family], end: Callable[[], None]) -> int:
    """Run probe-depth until the second rank comes to depth 2 and depth 1 is saved; keep the table as it then is."""
    fit, words, table = family.fit, ended(folder, family.__name__), folder / f"{family.__name__}.probes.csv"

    def ending(self: Family, depth: int, wanted: Sequence[ProbeName]) -> list[tuple[ProbeName, list[Fit]]]:
        if depth == 2 and launch.number() == 1:
            while not table.exists():
                time.sleep(0.1)
            end()
        return fit(self, depth, wanted)

    with mock.patch.object(family, "fit", ending):
        code = run(*words)
    if launch.number() == 0:
        shutil.copy(table, folder / f"{family.__name__}.left.csv")
    return code


def ended(folder: Path, name: str) -> list[str]:
    """Return the words of a command that is ended, and then goes on."""
    kind = {"LinearFamily": "linear", "KnnFamily": "knn", "NcmFamily": "ncm"}[name]
    return [str(folder / f"{name}.h5"), "--device", "cpu", "--probe", kind, "--depths", "1-2"]


def killed_together(folder: Path) -> int:
    return until(folder, LinearFamily, lambda: os.kill(os.getpid(), signal.SIGKILL))


def killed_apart(folder: Path) -> int:
    return until(folder, KnnFamily, lambda: os.kill(os.getpid(), signal.SIGKILL))


def failed_apart(folder: Path) -> int:
    def fail() -> None:
        raise UserError("depth 2 cannot be probed")

    return until(folder, NcmFamily, fail)


def start(name: str, rank: int, world: int, port: int, words: list[str], folder: Path) -> None:
    """Be one rank of a case."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    os.environ |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    for stream, ending in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{name}.{rank}.{ending}", os.O_WRONLY | os.O_CREAT), stream)
    with commandline.stoppable():
        code = run(*words) if words else globals()[name](folder)
    sys.stdout.flush()
    os._exit(code)


def main(folder: Path, asked: dict[str, tuple[int, list[str]]]) -> None:
    for name, (world, words) in asked.items():
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        children = []
        for rank in range(world):
            if not (child := os.fork()):
                try:
                    start(name, rank, world, port, words, folder)
                finally:
                    os._exit(1)
            children.append(child)
        store = dist.TCPStore("localhost", port, is_master=True, wait_for_workers=False)
        while children:
            child, status = os.wait()
            children.remove(child)
            for other in children if status else ():  # as torchrun does
                os.kill(other, signal.SIGTERM)
        del store


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
