"""Features as the linear probe reads them: stored or computed, in memory or not, all images or those with a label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_run

from layerwise.activations import pooled_features
from layerwise.runfile import RunFile
from probes.pooled import features
from probes.solver.rows import Features, View
from probes.solver.standardiser import Standardiser
from probes.tasks.target import Target
from probes.tasks.task import Task

CPU = torch.device("cpu")


def whole(source: object) -> np.ndarray:
    return Features(source).whole(CPU).numpy()  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [2, 4, 0])
@pytest.mark.parametrize("memory", [None, 100])
def test_they_are_those_of_the_depth_wherever_they_lie(
    run_path: Path, tmp_path: Path, side: int, memory: int | None
) -> None:
    bare = make_run(tmp_path / "bare.h5", store="pooled")
    for path in (run_path, bare):
        with RunFile(path) as run:
            source = features(run, Task(run), 1, "test", side=side, device=CPU, max_memory=memory)
            assert np.array_equal(whole(source), pooled_features(run, 1, "test", side=side))
            assert isinstance(source, np.memmap) == (side != 2 and memory is not None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bare.h5"]  # nothing is left beside the run


def test_images_without_a_label_are_left_out(run_path: Path, tmp_path: Path) -> None:
    table = pd.DataFrame({"index": range(0, 1797, 3), "label": [i % 2 for i in range(599)]})
    table.to_csv(tmp_path / "third.csv", index=False)
    with RunFile(run_path) as run:
        target = Target(run, tmp_path / "third.csv")
        for side in (2, 4):
            source = features(run, target, 2, "train", side=side, device=CPU)
            expected = pooled_features(run, 2, "train", side=side)[run.indices("train") % 3 == 0]
            assert len(source) == len(expected) == len(target.labels("train"))
            assert np.array_equal(whole(source), expected)


def test_projected_features_are_standardised_first() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (50, 2, 2, 2)).astype(np.float16)
    q = np.linalg.qr(rng.normal(size=(8, 3)))[0].astype(np.float32)
    flat = x.reshape(50, 8).astype(np.float64)
    source = View(x, affine=Standardiser(flat), projection=q)
    assert (len(source), source.shape) == (50, (50, 3))
    expected = (flat - flat.mean(0)) / flat.std(0) @ q
    np.testing.assert_allclose(source[10:30], expected[10:30], rtol=1e-4, atol=1e-4)
