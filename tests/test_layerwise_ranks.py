"""Several ranks train what one process trains: gradients, weights and scores, and files that repeat to the bit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from conftest import small_config
from ranks_of_a_run import CPU, RUN, cases, steps, until_killed

from layerwise import ranks
from layerwise.runfile import RunFile
from layerwise.runfile.place import Place
from layerwise.training.run import train_run

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", params=[2, 3], ids=["two ranks", "three ranks"])
def found(
    request: pytest.FixtureRequest, warm: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, Path, dict[str, Any]]:
    """Return the number of ranks, the folder they wrote into, and what each case gave."""
    folder, world = tmp_path_factory.mktemp("ranks"), request.param
    until_killed(Place(out=folder / "given.h5", device=CPU), after=4)
    shutil.copytree(folder / "given.h5.state", folder / "one.h5.state")
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(world),
        "--no-python",
    ]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, *warm, str(ROOT / "tests" / "ranks_of_a_run.py"), str(folder)],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return world, folder, torch.load(folder / f"world{world}.pt", weights_only=True)


def difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Return the largest difference, relative to the largest value of all."""
    scale = max(float(value.abs().max()) for value in theirs.values() if value.is_floating_point())
    return (
        max(float((ours[name] - theirs[name]).abs().max()) for name in theirs if theirs[name].is_floating_point())
        / scale
    )


@pytest.mark.parametrize("case", cases())
def test_a_step_of_several_ranks_is_that_of_one_process(found: tuple[int, Path, dict[str, Any]], case: str) -> None:
    one, several = steps(*cases()[case]), found[2][case]
    bound = 1e-12 if case.endswith("float64") else 1e-5
    assert difference(several["gradients"], one["gradients"]) < bound
    assert several["score"][2] == one["score"][2]
    if case.endswith("float64"):
        assert difference(several["weights"], one["weights"]) < 1e-12
        assert several["score"][:2] == pytest.approx(one["score"][:2], rel=1e-6)


def test_two_runs_of_as_many_ranks_have_one_digest(found: tuple[int, Path, dict[str, Any]]) -> None:
    world, folder, _ = found
    digests = set()
    for name in ("first", "second", "killed"):
        with RunFile(folder / f"world{world}-{name}.h5") as run:
            list(run.verify())
            digests.add(run.content_digest)
        assert not (folder / f"world{world}-{name}.h5.state").exists()
    assert len(digests) == 1


def test_what_several_ranks_left_one_process_goes_on_with(found: tuple[int, Path, dict[str, Any]]) -> None:
    world, folder, _ = found
    path = folder / f"world{world}-left.h5"
    with open_state(path) as file:
        assert (file.attrs["stage"], file.attrs["epochs_done"]) == (1, 1)
        history = file["history"][:]
    train_run(small_config(**RUN), Place(out=path, device=CPU))
    with RunFile(path) as run:
        list(run.verify())
        again = run.history()
        assert again is not None
        assert np.array_equal(again["train_loss"][: len(history)], history[:, 3])
        assert len(again) == 4


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only Linux has files in memory")
def test_ranks_of_one_machine_hold_images_and_kept_maps_once(found: tuple[int, Path, dict[str, Any]]) -> None:
    world, _, every = found
    held = every["held"]
    assert held["whole"] and not held["left"]
    for size, own in held["sizes"]:
        assert size == pytest.approx(3_000_000 + 4_000_000 + 1_200_000, rel=0.01)
        assert own <= 1.1 * size / world


def test_scores_and_dump_of_given_weights_are_those_of_one_process(found: tuple[int, Path, dict[str, Any]]) -> None:
    _, folder, _ = found
    if not (folder / "one.h5").exists():
        train_run(small_config(**RUN), Place(out=folder / "one.h5", device=CPU))
    with RunFile(folder / "given.h5") as shared, RunFile(folder / "one.h5") as alone:
        list(shared.verify())
        assert shared.content_digest == alone.content_digest
    assert not list(folder.glob(".*.partial"))


def open_state(path: Path) -> h5py.File:
    return h5py.File(path.with_name(path.name + ".state") / "state.h5")


TRAIN = "import sys; sys.argv[0] = 'layerwise-train'; from layerwise.commands.train import train_command as c; c()"
TOY = ["--width", "4", "--depth", "1", "--set", "network.aux_width=4", "--epochs", "4000"]


EXTRACT = TRAIN.replace("train", "extract")
DIES = """
import os, signal
from layerwise.training import dump
batches = dump.depth_batches
def dying(network, split):
    for found in batches(network, split):
        yield found
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
dump.depth_batches = dying
"""


def started(warm: list[str], folder: Path, *words: str, program: str = TRAIN) -> subprocess.Popen[str]:
    """Start a command on two ranks, layerwise-train if no other."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command = [*torchrun, *warm, "-c", program, *words, "--out", str(folder / "run.h5")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the process numbers of the ranks that a torchrun started, in order of their rank."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = {}
    for pid in children:
        environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
        found |= {int(line.removeprefix("RANK=")): int(pid) for line in environment if line.startswith("RANK=")}
    return [found[rank] for rank in sorted(found)]


def own_lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("layerwise-train:")]


def test_a_rank_that_is_killed_ends_all_in_one_line(warm: list[str], tmp_path: Path) -> None:
    with started(warm, tmp_path, *TOY) as process:
        state, until = tmp_path / "run.h5.state" / "state.h5", time.monotonic() + 120
        while not state.exists() and time.monotonic() < until:
            time.sleep(0.1)
        os.kill(ranks_of(process)[1], signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    (line,) = own_lines(output)
    assert line == (
        "layerwise-train: rank 1 of 2 ended without a word: killed, or out of memory? What was finished is kept; the "
        "same command goes on from there, with any number of ranks."
    )


def test_a_rank_that_dies_in_the_dump_leaves_nothing_and_the_same_command_goes_on(
    warm: list[str], tmp_path: Path
) -> None:
    words = [*TOY[:-1], "1"]
    with started(warm, tmp_path, *words, program=DIES + TRAIN) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    (line,) = own_lines(output)
    assert "rank 1 of 2 ended without a word" in line
    assert [path.name for path in tmp_path.iterdir()] == ["run.h5.state"]
    with started(warm, tmp_path, *words) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert [path.name for path in tmp_path.iterdir()] == ["run.h5"]


def test_an_extraction_of_two_ranks_is_that_of_one_process(warm: list[str], tmp_path: Path) -> None:
    network = tmp_path / "net.py"
    network.write_text(
        # Another network on every rank, were it not for that of the first.
        "import os, torch\ndef make():\n"
        "    torch.manual_seed(int(os.environ.get('RANK', 0)))\n    return torch.nn.Sequential("
        "torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())\n"
    )
    words = [f"{network}:make", "--dataset", "digits", "--trained-on", "nothing", "--batch-size", "100"]
    alone = [*warm, "-c", EXTRACT, *words, "--out", str(tmp_path / "one.h5")]
    subprocess.run(alone, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    with started(warm, tmp_path, *words, program=EXTRACT) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert output.count("wrote ") == 1
    with RunFile(tmp_path / "run.h5") as shared, RunFile(tmp_path / "one.h5") as one:
        list(shared.verify())
        assert shared.content_digest == one.content_digest
        assert (shared.provenance["ranks"], one.provenance["ranks"]) == (2, 1)
    assert sorted(path.name for path in tmp_path.glob("*run.h5*")) == ["run.h5"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "network.wdith=4"], "unknown configuration field 'network.wdith'"),
        ([*TOY, "--set", "training.learning_rate=1e30"], "the loss is not finite at block 1, epoch 0, step"),
    ],
    ids=["words", "training"],
)
def test_what_ends_all_ranks_alike_is_said_once(
    warm: list[str], tmp_path: Path, words: list[str], message: str
) -> None:
    with started(warm, tmp_path, *words) as process:
        output, _ = process.communicate(timeout=120)
    (line,) = own_lines(output)
    assert message in line


def test_the_gradient_of_a_single_number_keeps_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "world", lambda: 2)
    monkeypatch.setattr(ranks, "add_up", lambda tensor: tensor.mul_(2))  # two ranks with the same
    one, several = torch.nn.Parameter(torch.tensor(1.0)), torch.nn.Parameter(torch.ones(2))
    one.grad, several.grad = torch.tensor(6.0), torch.tensor([3.0, 9.0])
    ranks.average_gradients([one, several], 3)
    assert torch.equal(one.grad, torch.tensor(2.0)) and torch.equal(several.grad, torch.tensor([1.0, 3.0]))
