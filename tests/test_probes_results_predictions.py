"""run.predictions.h5: what is kept of single images, and that nothing else is ever put in its place."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from layerwise.errors import UserError
from layerwise.runfile import RunFile
from probes.probe import ProbeName
from probes.protocol import Fit, Predictions
from probes.results.predictions import check_predictions, open_correct, predictions_path, save_predictions


def fit(run: RunFile, wrong: int, refit: int = 0) -> Fit:
    """Return a probe that is wrong about the first `wrong` images of the test split."""
    label = run.labels("test")
    predicted = np.where(np.arange(len(label)) < wrong, (label + 1) % 10, label)
    half = np.log(np.full(len(label), 0.5))
    scores = {"test": Predictions(label, predicted, half, half)}
    return Fit(refit=refit, selection="fixed", n_train=9, n_features=4, seconds=0.0, scores=scores)


def save(run: RunFile, *fitted: tuple[ProbeName, list[Fit]]) -> None:
    save_predictions(run, run.indices("test"), fitted)


def test_predictions_are_kept_for_each_probe(own_run: Path) -> None:
    with RunFile(own_run) as run:
        save(run, (ProbeName(depth=1, probe="linear"), [fit(run, 3), fit(run, 4, 1)]))
        save(run, (ProbeName(depth=2, probe="linear"), [fit(run, 5)]))
        expected, index = fit(run, 3).scores["test"], run.indices("test")
        group = f"{run.run_id}/linear/width-0/seed-0/none/pooling-2/native/depth-01/refit-0"
    with h5py.File(predictions_path(own_run)) as file:
        assert np.array_equal(file[group]["index"], index)
        assert np.array_equal(file[group]["label"], expected.label)
        assert np.array_equal(file[group]["predicted"], expected.predicted)
        np.testing.assert_allclose(file[group]["true_log_probability"], expected.true_log_probability, rtol=1e-6)
        assert file[group].attrs["depth"] == 1
        assert file[group].attrs["target"] == "class"
        assert f"{group[:-1]}1" in file
        assert group.replace("depth-01", "depth-02") in file


def test_what_is_right_is_read_by_index_and_probes_of_another_target_stand_apart(own_run: Path) -> None:
    own, other = ProbeName(depth=1, probe="linear"), ProbeName(depth=1, probe="linear", target="side")
    with RunFile(own_run) as run:
        with open_correct(run) as read:
            assert read(own, 0) is None
        save(run, (own, [fit(run, 3)]), (other, [fit(run, 7)]))
        with open_correct(run) as read:
            assert [int((~read(name, 0)).sum()) for name in (own, other)] == [3, 7]  # type: ignore[operator]
            right = read(own, 0)
            assert right is not None
            assert not right[run.indices("test")[:3]].any()
            assert read(own, 1) is None


@pytest.mark.parametrize("content", ["junk", "a run"])
def test_another_file_in_the_place_of_predictions_is_never_replaced(
    own_run: Path, run_path: Path, content: str
) -> None:
    path = own_run.with_name("run.predictions.h5")
    if content == "junk":
        path.write_bytes(b"junk")
    else:
        shutil.copy(run_path, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="holds something else.* Move it away, or give the run"):
        check_predictions(own_run)
    assert path.read_bytes() == before
