"""The linear probe of a depth: its protocol against one written out with scikit-learn, and what chooses."""

from __future__ import annotations

import logging
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_run
from reference import slow_choice
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.multiclass import OneVsRestClassifier

from layerwise import commandline
from layerwise.activations import pooled_features
from layerwise.errors import UserError
from layerwise.runfile import Rows, RunFile
from probes.linear import penalties
from probes.linear import probe as linear
from probes.linear.features import DepthData
from probes.linear.probe import LinearFamily
from probes.linear.problem import DRAWS, FIXED_PENALTY, LinearProblem, random_projection
from probes.probe import ProbeName
from probes.protocol import Fit
from probes.results.table import save
from probes.solver.path import Fitter, fit_path
from probes.solver.standardiser import Standardiser
from probes.tasks.controls import controlled
from probes.tasks.task import Task

CPU = torch.device("cpu")


def probe_linear(run: RunFile, depth: int, probe: str, *, control: str = "none") -> list[Fit]:
    """Return the fits of the one linear probe of A x_j, by the protocol."""
    family = LinearFamily(run, controlled(Task(run), control), probe, device=CPU)
    ((_, fits),) = family.fit(depth, family.names(depth)[:1])
    return fits


def features(run: RunFile, depth: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {split: (pooled_features(run, depth, split), run.labels(split)) for split in run.splits}


@pytest.mark.parametrize("probe", ["linear", "linear-ovr"])
def test_the_refit_is_scikit_learns_at_the_chosen_penalty(run_path: Path, probe: str) -> None:
    with RunFile(run_path) as run:
        first, last = probe_linear(run, 1, probe)
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
        first, last = probe_linear(run, 2, "linear")
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
    fit = Fitter.fit

    def noted(*words: Any, **more: Any) -> Any:
        run.reads.append("fit")
        return fit(*words, **more)

    with RunFile(run_path) as run:
        honest = probe_linear(run, 1, "linear")
    monkeypatch.setattr(Fitter, "fit", noted)
    with Poisoned(run_path) as run:
        run.reads = []
        poisoned = probe_linear(run, 1, "linear")
    last_fit = len(run.reads) - 1 - run.reads[::-1].index("fit")
    assert run.reads[last_fit + 1 :] == ["test features", "test labels"]
    assert not any("test" in read for read in run.reads[:last_fit])
    for a, b in zip(honest, poisoned, strict=True):
        assert a.penalty == b.penalty
        assert a.scores["train"].accuracy == b.scores["train"].accuracy
        assert b.scores["test"].accuracy < 0.1 < a.scores["test"].accuracy


def test_a_path_that_is_cut_while_the_log_loss_falls_says_so(
    monkeypatch: pytest.MonkeyPatch, run_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(penalties, "PENALTIES", (1.0, 10**-0.5, 1e-1))
    commandline.set_verbosity(quiet=True, verbose=False)
    with RunFile(run_path) as run:
        probe_linear(run, 1, "linear")
    assert "depth 1: the log-loss still falls at lambda 1.0e-01, the end of its path" in capsys.readouterr().err


@pytest.mark.parametrize("probe", ["linear", "linear-ovr"])
def test_scikit_learn_on_the_same_path_chooses_the_same_penalty(run_path: Path, probe: str) -> None:
    with RunFile(run_path) as run:
        first, _ = probe_linear(run, 1, probe)
        data = features(run, 1)
    (x, y), (inside, labels) = data["train"], data["validation"]
    mean, scale = x.mean(0), x.std(0)
    candidates = []
    for lam in [10.0 ** (-e / 2) for e in range(1, 13)]:
        oracle: Any = LogisticRegression(C=1 / (len(y) * lam), tol=1e-8, max_iter=20_000)
        oracle = OneVsRestClassifier(oracle) if probe == "linear-ovr" else oracle
        oracle.fit((x - mean) / scale, y)
        loss = log_loss(labels, oracle.predict_proba((inside - mean) / scale), labels=range(10))
        accuracy = oracle.score((inside - mean) / scale, labels)
        candidates.append((lam, loss, accuracy, oracle.score((x - mean) / scale, y) == 1))
    lam, loss, accuracy, _ = slow_choice(candidates)
    assert first.penalty == pytest.approx(lam)
    # a certificate g bounds the distance of the weights by sqrt(2 g / lambda), and so that of the logits
    assert first.certificate is not None
    reach = np.sqrt(2 * first.certificate / lam) * np.linalg.norm((inside - mean) / scale, axis=1).mean()
    assert first.scores["validation"].log_loss_bits * np.log(2) == pytest.approx(loss, abs=min(2 * reach, 2e-3))
    assert first.scores["validation"].accuracy == pytest.approx(accuracy, abs=1 / len(labels))


def test_each_fit_says_one_line_with_lambda_certificate_and_newton_steps(
    run_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RunFile(run_path) as run, caplog.at_level(logging.DEBUG, "layerwise.probes"):
        first, last = probe_linear(run, 1, "linear")
    lines = [message for message in caplog.messages if message.startswith("depth 1, 24 features, ")]
    path = [re.fullmatch(LINE + r", validation \S+ bits, \S+%", line) for line in lines[:-1]]
    assert len(path) > 3 and all(path)
    found = re.fullmatch(LINE, lines[-1])
    assert found is not None
    assert found.groups() == (
        "train + validation",
        f"{last.penalty:.2g}",
        str(last.iterations),
        f"{last.certificate:.1e}",
    )
    assert f"{first.penalty:.2g}" in {match[2] for match in path if match}


LINE = r"depth 1, 24 features, (.+): lambda (\S+), (\d+) Newton steps, objective \S+, certificate ([^ ,]+)"


def test_the_progress_bar_counts_probes_and_names_depth_and_penalty(
    run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, int, str]] = []

    class Bar:
        def add_task(self, description: str, total: int, completed: int) -> int:
            shown.append((completed, total, description))
            return 0

        def update(self, task: int, description: str, completed: int) -> None:
            shown.append((completed, 2, description))

    monkeypatch.setattr(linear, "progress", lambda: nullcontext(Bar()))
    with RunFile(run_path) as run:
        family = LinearFamily(run, Task(run), "linear", device=CPU)
        names = family.names(0)
        family.prepare({0: names})
        family.fit(0, names)
    assert [line for line in shown if "lambda" not in line[2]] == [(0, 2, "depth 0"), (1, 2, "depth 0")]
    assert {line[:2] for line in shown} == {(0, 2), (1, 2)}
    assert shown[1] == (0, 2, "depth 0: lambda 3.2e-01")
    assert (1, 2, "depth 0, raw pixels: lambda 3.2e-01") in shown


def test_without_a_fold_the_penalty_is_the_stated_one_and_nothing_is_refitted(tmp_path: Path) -> None:
    with RunFile(make_run(tmp_path / "run.h5", **{"data.holdout": 0.0, "training.epochs": 1})) as run:
        (only,) = probe_linear(run, 1, "linear")
    assert only.selection == "seen"
    assert only.penalty == FIXED_PENALTY
    assert only.refit == 0
    assert set(only.scores) == {"train", "test"}


def test_permuted_labels_take_the_penalty_of_the_real_ones_fitted_or_found_in_the_table(own_run: Path) -> None:
    with RunFile(own_run) as run:
        real, _ = probe_linear(run, 1, "linear")
        before = probe_linear(run, 1, "linear", control="permuted")
        assert [fit.penalty for fit in before] == [real.penalty] * 2
        stored = replace(real, penalty=0.125)
        save(run, Task(run), [(ProbeName(depth=1, probe="linear"), [stored])])
        after = probe_linear(run, 1, "linear", control="permuted")
        assert [fit.penalty for fit in after] == [0.125] * 2
        assert {fit.selection for fit in after} == {"control"}
        n = len(run.labels("test"))
    assert abs(after[1].scores["test"].accuracy - 0.1) < 3 * (0.1 * 0.9 / n) ** 0.5 + 0.01


def test_projections_are_orthonormal_differ_by_draw_and_depth_and_preserve_what_they_keep() -> None:
    q = random_projection(30, 8, 0, 1)
    np.testing.assert_allclose(q.T @ q, np.eye(8), atol=1e-6)
    assert not np.allclose(q, random_projection(30, 8, 1, 1))
    assert not np.allclose(q, random_projection(30, 8, 0, 2))
    assert np.array_equal(q, random_projection(30, 8, 0, 1))
    square = random_projection(8, 8, 3, 1)
    np.testing.assert_allclose(square @ square.T, np.eye(8), atol=1e-6)


def test_a_rotation_of_the_features_changes_no_probe(run_path: Path) -> None:
    """What lets the ten draws at the least width share one fit."""
    with RunFile(run_path) as run:
        x, y = features(run, 1)["train"]
    z = Standardiser(x)(x)
    turned = z @ random_projection(z.shape[1], z.shape[1], 0, 1)
    (a,), (b,) = (fit_path(part, y, (1e-3,), n_classes=10) for part in (z, turned))
    assert abs(a.objective - b.objective) <= a.certificate + b.certificate
    assert (a.decision_function(z).argmax(1) == b.decision_function(turned).argmax(1)).mean() > 0.995


def test_matched_draws_are_ten_at_each_depth_from_1(run_path: Path) -> None:
    with RunFile(run_path) as run:
        family = LinearFamily(run, Task(run), "linear", features="matched", device=CPU)
        assert family.depths() == [1, 2]
        assert [name.probe_seed for name in family.names(1)] == list(range(DRAWS))


class Broken(RunFile):
    """A run whose stored features of depth 2 hold a NaN and two infinities in the validation split."""

    def pooled(self, depth: int, split: str) -> Any:
        rows = super().pooled(depth, split)
        if depth != 2 or split != "validation" or rows is None:
            return rows
        x = rows[:].astype(np.float32)
        x[3, 0, 0, 0], x[4, 1, 0, 0], x[5, 1, 0, 0] = np.nan, np.inf, -np.inf
        return x.reshape(len(x), -1)


def test_features_that_are_not_finite_are_counted_and_their_depth_is_named(run_path: Path) -> None:
    with (
        Broken(run_path) as run,
        pytest.raises(UserError, match=r"run.h5, depth 2, validation features: found 1 NaN and 2 infinite values"),
    ):
        probe_linear(run, 2, "linear")


def test_raw_pixels_are_left_out_where_there_are_no_images_or_they_are_too_many(
    run_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def sides(path: Path) -> list[int]:
        with RunFile(path) as run:
            return [name.pooling for name in LinearFamily(run, Task(run), "linear", device=CPU).names(0)]

    assert sides(run_path) == [2, 0]
    with RunFile(run_path) as run:
        assert [n.pooling for n in LinearFamily(run, Task(run), "linear", device=CPU, pixels=False).names(0)] == [2]
    bare = make_run(tmp_path / "bare.h5", max_size=300_000, **{"training.epochs": 1})
    assert sides(bare) == [2, 0]  # digits are read again
    monkeypatch.setattr("layerwise.images.data_config", lambda run: None)
    assert sides(bare) == [2]
    monkeypatch.setattr(linear, "MOST_PIXELS", 63)
    assert sides(run_path) == [2]


def test_streamed_features_give_the_same_probe(run_path: Path) -> None:
    with RunFile(run_path) as run:
        found = []
        for memory in (None, 1000):
            family = LinearFamily(run, Task(run), "linear", pools=(2, 4), device=CPU, max_memory=memory)
            found.append(family.fit(1, family.names(1)))
    for (name, whole), (same, streamed) in zip(*found, strict=True):
        assert name == same
        for a, b in zip(whole, streamed, strict=True):
            assert a.penalty == b.penalty
            assert b.converged
            for split, scored in a.scores.items():
                assert (scored.predicted == b.scores[split].predicted).mean() > 0.99


def to_input(run: RunFile, **more: Any) -> LinearFamily:
    return LinearFamily(run, Task(run), "linear", features="input", device=CPU, **more)


def test_features_of_the_inputs_number_are_ten_draws_of_it_at_each_depth_from_1(own_run: Path) -> None:
    with RunFile(own_run) as run:
        family = to_input(run)
        assert family.depths() == [1, 2]
        names = family.names(1)
        assert [(name.probe_seed, name.features) for name in names] == [(draw, "input") for draw in range(DRAWS)]
        fitted = family.fit(1, names)
        assert {fit.n_features for _, fits in fitted for fit in fits} == {4}  # of one channel, 2x2-pooled
        (x, y), (inside, labels) = (features(run, 1)[split] for split in ("train", "validation"))
    # the third draw by hand
    standardise, turn = Standardiser(x), random_projection(24, 4, 2, 1)
    first = fitted[2][1][0]
    assert first.penalty is not None
    (fit,) = fit_path(standardise(x) @ turn, y, (first.penalty,), n_classes=10)
    theirs = fit.decision_function(standardise(inside) @ turn).argmax(1)
    assert (theirs != first.scores["validation"].predicted).sum() <= 1
    assert (theirs == labels).mean() == pytest.approx(first.scores["validation"].accuracy, abs=1 / len(labels))
    assert len({fits[1].scores["test"].accuracy for _, fits in fitted}) > 1


class Narrow(RunFile):
    """A run whose input is said to have four channels more than a digit has, or which has no input."""

    kept = (0, 1, 2)

    @property
    def depths(self) -> list[int]:
        return list(self.kept)

    def pooled(self, depth: int, split: str) -> Rows | None:
        return None

    def depth_shape(self, depth: int) -> tuple[int, int, int]:
        return (7, 8, 8) if depth == 0 else super().depth_shape(depth)


def test_fewer_features_than_the_inputs_are_refused_before_a_fit(run_path: Path) -> None:
    with Narrow(run_path) as run:
        family = to_input(run)
        with pytest.raises(UserError, match=r"run.h5, depth 2: found 24 features \(2x2-pooled\), fewer than the 28 of"):
            family.prepare({2: family.names(2)})
        run.kept = (1, 2)  # type: ignore[misc]
        with pytest.raises(UserError, match=r"run.h5 has no depth 0, so nothing says how many features its input has"):
            family.prepare({2: family.names(2)})


@pytest.mark.parametrize("probe", ["linear", "linear-ovr"])
def test_with_many_classes_a_rough_path_chooses_what_a_certified_one_does(
    monkeypatch: pytest.MonkeyPatch, probe: str
) -> None:
    rng = np.random.default_rng(0)
    n, d, n_classes = 1200, 8, 60
    y = np.arange(n) % n_classes
    x = (rng.normal(size=(n, d)) + rng.normal(size=(n_classes, d))[y]).astype(np.float32)
    parts = {"train": slice(0, 900), "validation": slice(900, n)}
    labels = {split: y[rows] for split, rows in parts.items()}
    data = DepthData({split: x[rows] for split, rows in parts.items()}, labels, labels, "made", 1, CPU, None)
    roughly, asked = Fitter.fit, []

    def counted(self: Fitter, *words: Any, rough: float = 0.0) -> Any:
        asked.append(rough)
        return roughly(self, *words, rough=rough)

    monkeypatch.setattr(Fitter, "fit", counted)
    found = LinearProblem(probe, n_classes, None).fit_best(data, labels, lambda penalty: None).best
    assert 0 < asked.count(0.0) < len(asked) / 2
    monkeypatch.setattr("probes.linear.problem.MANY_CLASSES", n_classes + 1)
    expected = LinearProblem(probe, n_classes, None).fit_best(data, labels, lambda penalty: None).best
    assert found.lam == expected.lam and found.converged
    assert abs(found.objective - expected.objective) <= found.certificate + expected.certificate
