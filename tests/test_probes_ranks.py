"""probe-depth on several ranks: linear probes certified over the rows of all, other probes to the bit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_run
from linear_problems import objective_of
from ranks_of_probes import CUTS, cases, ended, fits
from test_probes_shown import write_images

from layerwise import ranks
from layerwise.commandline import call
from layerwise.errors import UserError
from layerwise.runfile import RunFile
from probes.cli import probe
from probes.linear.features import read_depth
from probes.solver.fit import LinearFit
from probes.solver.samples import Samples
from probes.tasks.task import Task

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
QUICK = ["--device", "cpu", "--no-pixels", "--probe-width", "4", "--probe-seeds", "1", "--epochs", "1"]
COMMANDS = {
    "all": ["--probe", "linear,cnn-1,knn", "--depths", "1-2"],
    "permuted": ["--probe", "linear", "--control", "permuted", "--pool", "1", "--depths", "1"],
    "target": [
        "--probe",
        "codelength,linear-ovr",
        "--target",
        "FOLDER/parity.csv",
        "--depths",
        "2",
        "--max-memory",
        "1KB",
    ],
    "evaluate": ["--probe", "linear,ncm", "--depths", "1-2", "--evaluate", "FOLDER/shown"],
}
BAD = {
    "no run": ("1.h5", [], "1.h5 does not exist"),
    "no depth": ("run.h5", ["--depths", "x"], "--depths has 'x', but takes depths"),
    "bad probe": ("1.h5", ["--probe", "linnear"], "unknown probe 'linnear'"),
}
DEAD = (
    "rank 1 of 2 ended without a word: killed, or out of memory? What was finished is kept; the same command goes on "
    "from there, with any number of ranks."
)
ENDED = {
    "killed_together": ("LinearFamily", DEAD),
    "killed_apart": ("KnnFamily", DEAD),
    "failed_apart": ("NcmFamily", "depth 2 cannot be probed"),
}


def words(name: str, folder: Path, path: Path) -> list[str]:
    return [str(path), *QUICK, *(word.replace("FOLDER", str(folder)) for word in COMMANDS[name])]


@pytest.fixture(scope="module")
def folder(warm: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder where ranks did what the tests ask: beside each command of two ranks that of one process."""
    folder = tmp_path_factory.mktemp("ranks")
    run = make_run(folder / "run.h5", **{"data.subset": 250, "training.epochs": 1, "store": "maps"})
    write_images(folder / "shown", run, only=50, shift=20)
    with RunFile(run) as opened:
        parts = [pd.DataFrame({"index": opened.indices(s), "label": opened.labels(s) % 2}) for s in opened.splits]
        published = ["test" if split == "test" else "train" for split in opened.splits]
    labels = pd.concat([part.assign(split=split) for part, split in zip(parts, published, strict=True)])
    labels.iloc[::2].to_csv(folder / "parity.csv", index=False)
    asked: dict[str, tuple[int, list[str]]] = {"shards": (3, [])}
    for name in COMMANDS:
        for ending in ("1", "2"):
            shutil.copy(run, folder / f"{name}{ending}.h5")
        asked[name] = 2, words(name, folder, folder / f"{name}2.h5")
    asked |= {name: (2, [str(folder / file), *QUICK, *more]) for name, (file, more, _) in BAD.items()}
    for name, (family, _) in ENDED.items():
        shutil.copy(run, folder / f"{family}.h5")
        asked |= {name: (2, []), f"{name} goes on": (3, ended(folder, family))}
    command = [*warm, str(ROOT / "tests" / "ranks_of_probes.py"), str(folder), json.dumps(asked)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def said(folder: Path, name: str, rank: int, ending: str) -> str:
    return (folder / f"{name}.{rank}.{ending}").read_text()


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.probes.csv").drop(columns=["seconds", "digest"])


def predicted(path: Path) -> dict[str, np.ndarray]:
    found = {}

    def see(name: str, one: Any) -> None:
        if isinstance(one, h5py.Dataset):
            found[name.partition("/")[2]] = one[()]

    with h5py.File(path) as file:
        file.visititems(see)
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_of_two_ranks_gives_what_one_process_gives(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert call(probe, "probe-depth", words(name, folder, folder / f"{name}1.h5")) == 0
    torch.set_num_threads(threads)
    assert said(folder, name, 0, "out") == capsys.readouterr().out.replace(f"{name}1.", f"{name}2.")
    assert said(folder, name, 1, "out") + said(folder, name, 1, "err") == ""
    one, two = table(folder, f"{name}1"), table(folder, f"{name}2")
    shared = one.probe.str.match("linear|codelength")
    pd.testing.assert_frame_equal(two[~shared], one[~shared])
    pd.testing.assert_frame_equal(two[shared], one[shared], check_exact=False, rtol=1e-5, atol=1e-7)
    ours, theirs = predicted(folder / f"{name}2.predictions.h5"), predicted(folder / f"{name}1.predictions.h5")
    assert ours.keys() == theirs.keys()
    for key, values in theirs.items():
        if key.startswith("linear") and key.endswith("true_log_probability"):
            np.testing.assert_allclose(ours[key], values, atol=1e-4)
        else:
            np.testing.assert_array_equal(ours[key], values)


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_once(folder: Path, name: str) -> None:
    (line,) = [line for rank in (0, 1) for line in said(folder, name, rank, "err").splitlines()]
    assert line.startswith("probe-depth: ") and BAD[name][2] in line


@pytest.fixture(scope="module")
def by_rank(folder: Path) -> list[Any]:
    """Return what each of three ranks found, and how many images of a run it held, of how many."""
    return [torch.load(folder / f"shards.{rank}.pt", weights_only=False) for rank in range(3)]


@pytest.mark.parametrize("name", cases())
def test_fits_of_three_unequal_shards_are_certified_over_all_rows(by_rank: list[Any], name: str) -> None:
    case = cases()[name]
    alone = [LinearFit(*fit) for fit in fits(rows=slice(None), is_shared=False, **cases()[name])[0]]
    every = [[LinearFit(*fit) for fit in found[name][0]] for found, _ in by_rank]
    for one, *several in zip(alone, *every, strict=True):
        for fit in several:
            assert np.array_equal(fit.coef, several[0].coef) and np.array_equal(fit.intercept, several[0].intercept)
        assert (fit.lam, fit.converged) == (one.lam, one.converged)
        assert fit.iterations == one.iterations or name == "part of the spectrum"  # of 20 steps, badly preconditioned
        assert abs(fit.objective - one.objective) <= fit.certificate + one.certificate
        if "sample_weight" not in case and name != "a class on one rank":
            assert objective_of(fit, case["X"], case["y"]) == pytest.approx(fit.objective, rel=1e-12)
        # Each lies within sqrt(2 bound / lambda) of the optimum, by the strong convexity of the penalty.
        reach = sum(np.sqrt(2 * found.certificate / found.lam) for found in (fit, one))
        assert np.linalg.norm(fit.coef - one.coef) <= reach


def test_each_rank_holds_its_own_rows_only(by_rank: list[Any], folder: Path) -> None:
    with RunFile(folder / "run.h5") as run:
        images = {split: len(run.indices(split)) for split in ("train", "test")}
    for rank, (found, held) in enumerate(by_rank):
        own = CUTS[rank + 1] - CUTS[rank]
        assert {name: rows for name, (_, rows) in found.items()} == dict.fromkeys(cases(), own) | {"streamed": 0}
        assert held == {split: (n * (rank + 1) // 3 - n * rank // 3, n) for split, n in images.items()}


@pytest.mark.parametrize("name", ENDED)
def test_what_ends_one_rank_ends_all_in_one_line_and_the_same_command_goes_on(folder: Path, name: str) -> None:
    family, message = ENDED[name]
    (line,) = [line for rank in (0, 1) for line in said(folder, name, rank, "err").splitlines()]
    assert line == f"probe-depth: {message}"
    left, done = (pd.read_csv(folder / f"{family}.{ending}.csv") for ending in ("left", "probes"))
    assert set(left.depth) == {1} and set(done.depth) == {1, 2}
    assert set(done.test_reads.dropna()) == {1}
    kept = done[(done.depth == 1) & done.metric.isin(left.metric)].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept.drop(columns="digest"), left.drop(columns="digest"))


def test_more_ranks_than_images_are_refused(run_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "world", lambda: 5000)
    with RunFile(run_path) as run, pytest.raises(UserError, match="1295 labelled train images, of which each of 5000"):
        read_depth(Task(run), 1, ["train"], side=2, device=torch.device("cpu"), max_memory=None)


def test_ranks_that_computed_different_weights_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, weights = Samples(4), torch.randn(2, 3, dtype=torch.float64)
    samples.ranks = 2
    monkeypatch.setattr(ranks, "least", lambda bits: bits)  # the other has the same
    samples.require_same(weights)
    monkeypatch.setattr(ranks, "least", lambda bits: torch.minimum(bits, bits + torch.tensor([1, -1])))
    with pytest.raises(UserError, match="^the ranks computed different weights from the same sums, so nothing is"):
        samples.require_same(weights)


def test_ranks_of_other_kinds_of_processors_fit_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "all_of", lambda own: [own, (own[0], (*own[1][:2], own[1][2] + 3))])
    message = r"^the ranks would compute different weights from the same sums \(rank 0: torch .* threads; rank 1: torch"
    with pytest.raises(UserError, match=message):
        Samples(5, is_shared=True)
