"""The linear probe of a depth: its protocol against one written out with scikit-learn, and what chooses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_run
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from layerwise import commandline
from layerwise.activations import pooled_features
from layerwise.runfile import Rows, RunFile
from probes import linear
from probes.linear import FIXED_PENALTY, PENALTIES, Standardiser, probe_linear

CPU = torch.device("cpu")


def features(run: RunFile, depth: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {split: (pooled_features(run, depth, split), run.labels(split)) for split in run.splits}


def test_standardised_features_have_mean_0_and_deviation_1_and_constants_become_0() -> None:
    x = np.random.default_rng(0).normal(3, 5, (200, 4)).astype(np.float32)
    x[:, 2] = 7
    z = Standardiser(x)(x)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(0), [1, 1, 0, 1], atol=1e-5)
    assert z.dtype == np.float32


@pytest.mark.parametrize("probe", ["linear", "linear-ovr"])
def test_the_refit_is_scikit_learns_at_the_chosen_penalty(run_path: Path, probe: str) -> None:
    with RunFile(run_path) as run:
        first, last = probe_linear(run, 1, probe, device=CPU)
        data = features(run, 1)
    assert (first.refit, last.refit) == (0, 1)
    assert first.penalty == last.penalty
    x, y = (np.concatenate([data["train"][i], data["validation"][i]]) for i in (0, 1))
    mean, scale = x.mean(0), x.std(0)
    assert first.penalty is not None
    oracle = LogisticRegression(C=1 / (len(y) * first.penalty), tol=1e-8, max_iter=20_000)
    oracle = OneVsRestClassifier(oracle) if probe == "linear-ovr" else oracle
    oracle.fit((x - mean) / scale, y)
    theirs = oracle.predict((data["test"][0] - mean) / scale)
    # Two solutions within 1e-4 of the optimum may differ on an image that lies on a boundary.
    assert (last.scores["test"].predicted != theirs).mean() <= 2 / len(theirs)
    assert last.converged
    assert last.certificate is not None
    assert 0 <= last.certificate < 1e-2


def test_splits_reported_and_counts(run_path: Path) -> None:
    with RunFile(run_path) as run:
        first, last = probe_linear(run, 2, "linear", device=CPU)
    assert {s: len(p.label) for s, p in first.scores.items()} == {"train": 1295, "validation": 143, "test": 359}
    assert {s: len(p.label) for s, p in last.scores.items()} == {"train": 1438, "test": 359}
    assert (first.n_train, last.n_train) == (1295, 1438)
    assert first.n_features == 4 * 6
    assert first.selection == last.selection == "validation"


class Poisoned(RunFile):
    """A run whose test labels are wrong, and which notes what is read of it in which order."""

    reads: list[str]

    def labels(self, split: str) -> np.ndarray:
        self.reads.append(f"{split} labels")
        label = super().labels(split)
        return (label + 1) % 10 if split == "test" else label

    def pooled(self, depth: int, split: str) -> Rows | None:
        self.reads.append(f"{split} features")
        return super().pooled(depth, split)


def test_the_test_split_chooses_nothing_and_is_read_once_after_the_choice(
    run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_path = linear.fit_path

    def noted(*words: Any, **more: Any) -> Any:
        run.reads.append("fit")
        return fit_path(*words, **more)

    with RunFile(run_path) as run:
        honest = probe_linear(run, 1, "linear", device=CPU)
    monkeypatch.setattr(linear, "fit_path", noted)
    with Poisoned(run_path) as run:
        run.reads = []
        poisoned = probe_linear(run, 1, "linear", device=CPU)
    last_fit = len(run.reads) - 1 - run.reads[::-1].index("fit")
    assert run.reads[last_fit + 1 :] == ["test features", "test labels"]
    assert not any("test" in read for read in run.reads[:last_fit])
    for a, b in zip(honest, poisoned, strict=True):
        assert a.penalty == b.penalty
        assert a.scores["train"].accuracy == b.scores["train"].accuracy
        assert b.scores["test"].accuracy < 0.1 < a.scores["test"].accuracy


def test_a_best_penalty_at_the_end_of_its_path_is_said(
    monkeypatch: pytest.MonkeyPatch, run_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(linear, "PENALTIES", (1e-1, 10**-0.5, 1.0))
    monkeypatch.setattr(linear, "EXTENSIONS", 0)
    commandline.set_verbosity(quiet=True, verbose=False)
    with RunFile(run_path) as run:
        probe_linear(run, 1, "linear", device=CPU)
    assert "depth 1: the best lambda, 1.0e-01, lies at the end of its path" in capsys.readouterr().err


def test_the_chosen_penalty_has_the_best_validation_accuracy_of_the_path(run_path: Path) -> None:
    with RunFile(run_path) as run:
        first, _ = probe_linear(run, 1, "linear", device=CPU)
        data = features(run, 1)
    standardise = Standardiser(data["train"][0])
    fits = linear.fit_path(standardise(data["train"][0]), data["train"][1], PENALTIES, n_classes=10)
    inside = standardise(data["validation"][0])
    accuracies = [(fit.decision_function(inside).argmax(1) == data["validation"][1]).mean() for fit in fits]
    assert first.scores["validation"].accuracy >= max(accuracies)
    assert len(PENALTIES) >= 10


def test_the_path_is_extended_while_its_end_is_best(monkeypatch: pytest.MonkeyPatch, run_path: Path) -> None:
    monkeypatch.setattr(linear, "PENALTIES", (1e-1, 10**-0.5, 1.0))
    with RunFile(run_path) as run:
        first, _ = probe_linear(run, 1, "linear", device=CPU)
    assert first.penalty is not None
    assert 1e-1 * 10 ** (-linear.EXTENSIONS / 2) * 0.99 < first.penalty < 1e-1


def test_without_a_fold_the_penalty_is_the_stated_one_and_nothing_is_refitted(tmp_path: Path) -> None:
    with RunFile(make_run(tmp_path / "run.h5", **{"data.holdout": 0.0, "training.epochs": 1})) as run:
        (only,) = probe_linear(run, 1, "linear", device=CPU)
    assert only.selection == "seen"
    assert only.penalty == FIXED_PENALTY
    assert only.refit == 0
    assert set(only.scores) == {"train", "test"}
