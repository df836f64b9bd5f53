"""What every test shares: the folder of real data sets, a small run, and that no figure opens a window."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from layerwise.config import RunConfig
from layerwise.datasets import Dataset
from layerwise.model.network import LayerwiseNetwork, freeze
from layerwise.recipes import digits
from layerwise.runfile.place import Place
from layerwise.settings import set_fields
from layerwise.training.checkpoint import Checkpoint
from layerwise.training.history import Epoch
from layerwise.training.loop import DeviceSplit, train, train_stage
from layerwise.training.report import Report
from layerwise.training.run import train_run
from layerwise.training.stages import stages

# Set before anything imports matplotlib; subprocesses inherit it.
os.environ["MPLBACKEND"] = "Agg"

# Where several processes run the tests, they share the cores.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))


# What takes longest. Begun last, one of them would be run by one process while the others have nothing left.
LONGEST = ("figures_study_definition", "howtos", "layerwise_ranks", "probes_cli", "layerwise_training_checkpoint",
           "torture", "probes_solver_path_real", "probes_solver_path_awkward")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the order within a file, and of the others, stays."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in LONGEST)


@pytest.fixture(autouse=True)
def log_as_at_the_start() -> Iterator[None]:
    """Give each test the log as it is when a process starts: commands, also those of shared fixtures, set it up."""
    log = logging.getLogger("layerwise")
    log.handlers[:], log.propagate = [], True
    log.setLevel(logging.NOTSET)
    yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real data sets that LAYERWISE_DATA names, or skip the test where it is not set."""
    folder = os.environ.get("LAYERWISE_DATA")
    if not folder:
        pytest.skip("LAYERWISE_DATA is not set: no real data sets here")
    if not Path(folder).is_dir():
        pytest.fail(f"LAYERWISE_DATA names {folder}, which is no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def some_cifar10(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 30 real images of each class and split of CIFAR-10, unpacked from its archives."""
    archives = sorted((data_dir / "cifar10").glob("*.tar.gz"))
    if not archives:
        pytest.skip(f"{data_dir / 'cifar10'} holds no archives")
    root = tmp_path_factory.mktemp("cifar10")
    taken: Counter[str] = Counter()
    for archive in archives:
        with tarfile.open(archive) as tar:
            for member in tar:
                place = str(Path(member.name).parent)
                if member.isfile() and taken[place] < 30:
                    taken[place] += 1
                    tar.extract(member, root, filter="data")
    return root


def small_config(**fields: Any) -> RunConfig:
    """Return a configuration that trains on digits in a second: J = 2, M = 6, two epochs; fields by dotted path."""
    small = {"network.depth": 2, "network.width": 6, "network.aux_width": 5, "training.epochs": 2, "precision": "fp32"}
    return set_fields(digits(), small | fields)


def train_network(network: LayerwiseNetwork, dataset: Dataset, config: RunConfig) -> list[Epoch]:
    """Train a network without keeping any state; return its history."""
    checkpoint = Checkpoint(None, config, {})
    with Report(config.training.epochs) as report:
        train(network, dataset, config, checkpoint, report)
    return checkpoint.history


def train_block(network: LayerwiseNetwork, data: dict[str, DeviceSplit], config: RunConfig, j: int) -> None:
    """Solve auxiliary problem j alone, on the blocks below it as they are, and freeze its parts."""
    if j < config.network.first_trained:
        return freeze(network.blocks[j - 1])
    stage = next(stage for stage in stages(network, config) if stage.depths == (j,))
    with Report(config.training.epochs) as report:
        report.start(stage.name, 1)
        train_stage(network, data, config, stage, j - 1, Checkpoint(None, config, {}), report)
    freeze(network.blocks[j - 1])
    freeze(network.auxiliaries[j - 1])


def make_run(path: Path, max_size: int = 10**9, **fields: Any) -> Path:
    """Train `small_config(**fields)` on the CPU and publish it under `path`."""
    train_run(small_config(**fields), Place(out=path, device=torch.device("cpu"), max_size=max_size))
    return path


@pytest.fixture(scope="session")
def warm() -> Iterator[list[str]]:
    """Return what starts a Python in place of sys.executable, in milliseconds: a fork of one that has loaded all."""
    script, root = Path(__file__).parent / "warm.py", Path(__file__).parent.parent
    with tempfile.TemporaryDirectory() as folder:  # of a short name: a socket's has 107 letters at most
        path = Path(folder) / "socket"
        environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
        server = subprocess.Popen([sys.executable, str(script), "--serve", str(path)], env=environment)
        while not path.exists():
            assert server.poll() is None
            time.sleep(0.01)
        yield [sys.executable, "-I", "-S", str(script), str(path)]
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small greedy run with whole maps; tests read it and never write beside it."""
    return make_run(tmp_path_factory.mktemp("run") / "run.h5", store="maps")


@pytest.fixture
def own_run(run_path: Path, tmp_path: Path) -> Path:
    """Return a copy of the small run in the test's own folder, to write beside or to damage."""
    return Path(shutil.copy(run_path, tmp_path / "run.h5"))
