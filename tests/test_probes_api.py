"""The Python API of probes: the rows of probe-depth, in hand and beside the run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.naive_bayes import GaussianNB

import analysis
import probes
from layerwise.errors import UsageError, UserError
from layerwise.runfile import RunFile
from probes.logistic import fit_path
from probes.protocol import predictions


def test_rows_are_returned_and_kept(own_run: Path) -> None:
    with RunFile(own_run) as run:
        table = probes.fit(run, "linear", depths=[1, 2], device="cpu")
    kept = pd.read_csv(own_run.with_name("run.probes.csv"))
    assert sorted(table["depth"].unique()) == [1, 2] and len(kept) == len(table)
    test = table[(table["split"] == "test") & (table["metric"] == "accuracy") & (table["refit"] == 1)]
    found = kept[(kept["split"] == "test") & (kept["metric"] == "accuracy") & (kept["refit"] == 1)]
    np.testing.assert_allclose(test.set_index("depth")["value"], found.set_index("depth")["value"])


def test_one_number_is_a_list_of_one_and_twice_is_once(own_run: Path) -> None:
    with RunFile(own_run) as run:
        alone = probes.fit(run, "ncm", depths=1, pools=1, device=torch.device("cpu"))
        listed = probes.fit(run, "ncm", depths=[1, 1], pools=[1])
    pd.testing.assert_frame_equal(alone, listed)
    assert alone["depth"].unique() == [1] and alone["pooling"].unique() == [1]
    assert len(probes.estimators(own_run, depths=1, pools=2)) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"depths": "1"}, "depths is '1'; expected a whole number, or several in a list"),
        ({"depths": [1.0]}, "depths is .1.0.; expected a whole number, or several"),
        ({"depths": []}, "depths names none; expected one or several, or None for all"),
        ({"pools": ()}, "found poolings none, expected positive integers"),
        ({"widths": "8"}, "widths is '8'; expected a whole number, or several"),
        ({"seeds": [0, 1]}, "seeds is .0, 1.; expected a whole number"),
        ({"epochs": 1.5}, "epochs is 1.5; expected a whole number"),
        ({"max_memory": "1GB"}, "max_memory is '1GB'; expected a whole number"),
        ({"probe": GaussianNB(), "name": 3}, "a classifier cannot be called 3 in the rows"),
    ],
)
def test_numbers_of_another_kind_are_refused(own_run: Path, words: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        probes.fit(own_run, **words)


def test_what_is_not_there_is_refused(own_run: Path) -> None:
    with RunFile(own_run) as run:
        with pytest.raises(UsageError, match="unknown depth '7'. Choices: 0, 1, 2"):
            probes.fit(run, depths=[7])
        with pytest.raises(UsageError, match="unknown probe 'lineal'. Did you mean 'linear'"):
            probes.fit(run, "lineal")
        with pytest.raises(UsageError, match="target is a dict; expected a data frame, or a CSV file, with index"):
            probes.fit(run, target={"train": [1]})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the table lacks run, which rows of analysis.read have"):
        analysis.curves(probes.fit(own_run, "ncm"))


def test_errors_name_the_arguments_and_not_the_options_of_the_command(own_run: Path) -> None:
    with (
        RunFile(own_run) as run,
        pytest.raises(UserError, match=r"^probe='ensemble' is .* Use probe='linear'"),
    ):
        probes.fit(run, "ensemble", control="permuted")
    with Small(own_run) as run, pytest.raises(UserError, match=r"by depths=\.\.\., or give a smaller pools=\.\.\."):
        probes.fit(run, pools=(8,), pixels=False)


class Small(RunFile):
    """A run whose maps are said to be of 4x4 pixels."""

    def depth_shape(self, depth: int) -> tuple[int, int, int]:
        return (super().depth_shape(depth)[0], 4, 4)


def test_fits_and_predictions_have_a_repr_without_their_arrays() -> None:
    x, y = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32), np.arange(60) % 3
    (fit,) = fit_path(x, y, (1e-2,), n_classes=3, loss="multinomial")
    assert repr(fit).startswith("LinearFit(multinomial, 2 features, 3 classes, lambda 0.01: objective 1.0")
    assert "above the optimum, converged in" in repr(fit) and len(repr(fit)) < 200
    assert repr(predictions(np.log([[0.8, 0.2], [0.6, 0.4]]), np.array([0, 1]))) == (
        "Predictions(2 samples, accuracy 0.5000)"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"features": "foo"}, "unknown kind of features 'foo'. Choices: native, matched, input"),
        ({"pools": (3,)}, "unknown pooling '3'. Choices: 1, 2, 4, 8"),
        ({"source": "disk"}, "unknown source 'disk'"),
        ({"widths": ()}, "found probe widths none, expected positive integers"),
        ({"widths": (64, 0)}, "found probe widths 64, 0, expected positive integers"),
        ({"seeds": 0}, "found number of seeds 0, expected positive integers"),
        ({"epochs": -1}, "found epochs -1, expected positive integers"),
    ],
)
def test_settings_that_no_probe_has_are_refused(own_run: Path, words: dict[str, Any], message: str) -> None:
    with RunFile(own_run) as run, pytest.raises(UserError, match=re.escape(message)):
        probes.fit(run, "cnn-1", **words)
    assert not own_run.with_name("run.probes.csv").exists()
