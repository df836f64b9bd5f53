"""Ensembles against their formula, image by image, and what stands in a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from reference import slow_ensemble

from layerwise.model.ensemble import WEIGHTINGS, ensemble, log_softmax
from layerwise.runfile import RunFile


def some_logits(depths: int) -> list[np.ndarray]:
    return [np.random.default_rng(j).normal(0, 3, (7, 4)).astype(np.float32) for j in range(depths)]


def test_log_softmax_sums_to_1_and_survives_large_logits() -> None:
    z = np.array([[1e4, 0.0], [-1e4, 0.0], [1.0, 2.0]], dtype=np.float32)
    np.testing.assert_allclose(np.exp(log_softmax(z)).sum(1), 1, rtol=1e-12)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("depths", [1, 2, 5])
def test_each_weighting_is_its_formula(weighting: str, depths: int) -> None:
    logits = some_logits(depths)
    np.testing.assert_allclose(np.exp(ensemble(logits, weighting)), slow_ensemble(logits, weighting), rtol=1e-9)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_an_ensemble_of_one_is_the_auxiliary_itself(weighting: str) -> None:
    logits = some_logits(1)
    np.testing.assert_allclose(ensemble(logits, weighting), log_softmax(logits[0]), atol=1e-12)


def test_the_run_holds_the_ensembles_of_its_outputs(run_path: Path) -> None:
    with RunFile(run_path) as run:
        for split in ("validation", "test"):
            logits = [run.outputs(j, split) for j in (1, 2)]
            label = run.labels(split)
            assert all(z is not None for z in logits)
            for j in (1, 2):
                assert run.scores(j)[f"{split}_accuracy"] == (logits[j - 1].argmax(1) == label).mean()
                for weighting in WEIGHTINGS:
                    joined = slow_ensemble(logits[:j], weighting).argmax(1)
                    assert run.scores(j)[f"ensemble_{weighting}_{split}_accuracy"] == (joined == label).mean()
