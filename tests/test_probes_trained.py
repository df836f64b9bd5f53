"""Rows of the trained auxiliaries and their ensembles, from the outputs in the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_run
from reference import slow_ensemble

from layerwise.commandline import call
from layerwise.errors import UserError
from layerwise.runfile import RunFile
from probes.cli import probe
from probes.protocol import Fit
from probes.trained import WEIGHTINGS, TrainedFamily, auxiliary_depths


def score_auxiliary(run: RunFile, depth: int, probe: str) -> Fit:
    """Return the one fit of a probe of the training's own at a depth."""
    family = TrainedFamily(run, probe)
    ((_, (fit,)),) = family.fit(depth, family.names(depth))
    return fit


def test_the_auxiliarys_score_is_the_one_in_the_run(run_path: Path) -> None:
    with RunFile(run_path) as run:
        for depth in (1, 2):
            fit = score_auxiliary(run, depth, "auxiliary")
            assert set(fit.scores) == {"validation", "test"}
            for split, scored in fit.scores.items():
                assert scored.accuracy == run.scores(depth)[f"{split}_accuracy"]
            assert (fit.refit, fit.selection) == (0, "fixed")


@pytest.mark.parametrize(("name", "weighting"), [(n, w) for n, w in WEIGHTINGS.items() if w])
def test_the_ensemble_joins_all_auxiliaries_up_to_the_depth(run_path: Path, name: str, weighting: str) -> None:
    with RunFile(run_path) as run:
        logits = [run.outputs(j, "test") for j in (1, 2)]
        label = run.labels("test")
        scored = score_auxiliary(run, 2, name).scores["test"]
        expected = slow_ensemble(logits, weighting)
        np.testing.assert_array_equal(scored.predicted, expected.argmax(1))
        truth = np.log(expected[np.arange(len(label)), label])
        np.testing.assert_allclose(scored.true_log_probability, truth, rtol=1e-6)


def test_rows_of_all_of_them_from_one_command(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(probe, "probe-depth", [str(own_run), "--probe", ",".join(WEIGHTINGS)]) == 0
    table = pd.read_csv(own_run.with_name("run.probes.csv"))
    assert set(table.probe) == set(WEIGHTINGS)
    assert set(table.depth) == {1, 2}
    assert set(table.split) == {"validation", "test"}
    assert all(len(line.replace(str(own_run.parent), "")) <= 80 for line in capsys.readouterr().out.splitlines())


def test_end_to_end_has_one_auxiliary_and_untrained_none(tmp_path: Path) -> None:
    with RunFile(make_run(tmp_path / "e2e.h5", mode="end-to-end")) as run:
        assert auxiliary_depths(run) == TrainedFamily(run, "auxiliary").depths() == [2]
        with pytest.raises(UserError, match="has one trained auxiliary classifier, at depth 2, and so no ensemble"):
            TrainedFamily(run, "ensemble").depths()
        assert not any(name.startswith("ensemble") for name in run.scores(2))
    with (
        RunFile(make_run(tmp_path / "raw.h5", mode="untrained")) as run,
        pytest.raises(UserError, match=r"has no trained auxiliary classifier to score: .* Use --probe linear"),
    ):
        auxiliary_depths(run)
