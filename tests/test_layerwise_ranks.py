"""Several ranks train what one process trains: gradients, weights and scores, and files that repeat to the bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks_of_a_run import cases, steps

from layerwise.runfile import RunFile

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", params=[2, 3], ids=["two ranks", "three ranks"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path, dict[str, Any]]:
    """Return the number of ranks, the folder they wrote into, and what each case gave."""
    folder, world = tmp_path_factory.mktemp("ranks"), request.param
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, str(ROOT / "tests" / "ranks_of_a_run.py"), str(folder)],
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
    for name in ("first", "second"):
        with RunFile(folder / f"world{world}-{name}.h5") as run:
            list(run.verify())
            digests.add(run.content_digest)
    assert len(digests) == 1
    assert not list(folder.glob("*.state"))
