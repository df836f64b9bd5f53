"""The protocol: how a candidate is chosen, what a run allows, and that nothing else opens the test split."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_run

from layerwise.runfile import Rows, RunFile
from probes.cnn.depth import CnnKind
from probes.families import families
from probes.linear.depth import LinearKind
from probes.names import TRAINED, Settings
from probes.nearest.probe import NearestKind
from probes.protocol import Fit, Kind, Predictions, best_candidate, play, predictions
from probes.tasks.controls import controlled
from probes.tasks.task import Task
from probes.trained import TrainedKind

PROBES = ("linear", "linear-ovr", "cnn-1", "knn", "ncm")
SMALL = Settings(
    pools=(2,), features="native", widths=(4,), seeds=1, epochs=1, source="stored", device=torch.device("cpu"),
    pixels=False,
)  # fmt: skip


def test_predictions_keep_class_and_probability_of_the_truth() -> None:
    probability = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.5, 0.25, 0.25]])
    found = predictions(np.log(probability), np.array([0, 1, 2]))
    assert found.predicted.tolist() == [0, 2, 0]
    assert found.correct == 1
    assert found.accuracy == pytest.approx(1 / 3)
    np.testing.assert_allclose(np.exp(found.top_log_probability), [0.7, 0.6, 0.5])
    assert found.log_loss_bits == pytest.approx(-np.log2([0.7, 0.3, 0.25]).mean())


def scored(correct: int, probability: float) -> Predictions:
    predicted = np.array([0] * correct + [1] * (4 - correct))
    log_probability = np.full(4, np.log(probability))
    return Predictions(np.zeros(4, dtype=int), predicted, log_probability, log_probability)


def test_the_best_validation_accuracy_is_chosen_and_ties_go_to_the_lower_loss() -> None:
    candidates = [scored(2, 0.9), scored(3, 0.2), scored(3, 0.5), scored(1, 0.99)]
    assert best_candidate(candidates, lambda c: c) == 2


def fits_of(run: RunFile, probe: str, control: str = "none", depth: int = 1, settings: Settings = SMALL) -> list[Fit]:
    """Return the fits of one probe of a depth, by the protocol."""
    (family,) = families(run, controlled(Task(run), control), [probe], settings)
    names = family.names(depth)[:1]
    family.prepare({depth: names})
    ((_, fits),) = family.fit(depth, names)
    return fits


@pytest.mark.parametrize("probe", PROBES)
def test_a_run_without_a_fold_allows_no_choice(probe: str, foldless: Path, own_run: Path) -> None:
    with RunFile(own_run) as run:
        assert {fit.selection for fit in fits_of(run, probe)} == {"fixed" if probe == "ncm" else "validation"}
        assert {fit.selection for fit in fits_of(run, probe, "permuted")} == {"fixed" if probe == "ncm" else "control"}
    with RunFile(foldless) as run:
        (only,) = fits_of(run, probe)
    assert (only.refit, only.selection) == (0, "fixed" if probe == "ncm" else "seen")
    assert list(only.scores) == ["train", "test"]


@pytest.fixture(scope="module")
def foldless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run trained with --holdout 0, with whole maps."""
    fields = {"data.holdout": 0.0, "training.epochs": 1, "store": "maps"}
    return make_run(tmp_path_factory.mktemp("foldless") / "run.h5", **fields)


class Noted(Kind[str, list[str], str]):
    """A kind of one probe that notes its calls; its data are the names of their splits, with two images each."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def open_splits(self, splits: Sequence[str]) -> list[str]:
        self.events.append(f"open {'+'.join(splits)}")
        return list(splits)

    def choose(self, data: list[str]) -> dict[str, str]:
        self.events.append("choose")
        return {"probe": "first"}

    def refit(self, data: list[str], chosen: Mapping[str, str]) -> dict[str, str]:
        self.events.append("refit")
        return {name: f"{fitted}, again" for name, fitted in chosen.items()}

    def counts(self, data: list[str]) -> dict[str, int]:
        return dict.fromkeys(data, 2)

    def predict(self, fitted: Sequence[str], data: list[str]) -> list[Predictions]:
        self.events.append(f"predict {'+'.join(data)}")
        return [predictions(np.log(np.full((2 * len(data), 2), 0.5)), np.arange(2 * len(data)) % 2) for _ in fitted]

    def report(self, fitted: str, refit: int) -> Fit:
        return Fit(refit=refit, selection="validation", n_train=4, n_features=1, seconds=0.0, distance=fitted)


def test_the_order_is_fold_choice_refit_test() -> None:
    kind = Noted()
    first, last = play(kind, kind.open_splits, ["train", "validation", "test"])["probe"]
    assert kind.events == [
        "open train+validation", "choose", "refit", "predict train+validation", "open test", "predict test",
    ]  # fmt: skip
    assert (first.refit, first.distance, last.refit, last.distance) == (0, "first", 1, "first, again")
    assert {split: len(scored.label) for split, scored in first.scores.items()} == dict.fromkeys(
        ("train", "validation", "test"), 2
    )
    assert {split: len(scored.label) for split, scored in last.scores.items()} == {"train": 4, "test": 2}


def test_without_a_fold_nothing_is_refitted() -> None:
    kind = Noted()
    (only,) = play(kind, kind.open_splits, ["train", "test"])["probe"]
    assert kind.events == ["open train", "choose", "predict train", "open test", "predict test"]
    assert list(only.scores) == ["train", "test"]


class Sealed(RunFile):
    """A run whose test rows cannot be read, neither labels nor activations, while it is sealed."""

    is_sealed = True

    def _look(self, split: str) -> None:
        assert split != "test" or not self.is_sealed, "the test split is read before the choice is fixed"

    def labels(self, split: str) -> np.ndarray:
        self._look(split)
        return super().labels(split)

    def images(self, split: str) -> Rows | None:
        self._look(split)
        return super().images(split)

    def pooled(self, depth: int, split: str) -> Rows | None:
        self._look(split)
        return super().pooled(depth, split)

    def maps(self, depth: int, split: str) -> Rows | None:
        self._look(split)
        return super().maps(depth, split)

    def outputs(self, j: int, split: str) -> np.ndarray | None:
        self._look(split)
        return super().outputs(j, split)


@pytest.mark.parametrize("control", ["none", "permuted", "teacher"])
@pytest.mark.parametrize("probe", PROBES)
def test_no_test_row_is_read_before_the_refit_is_done(
    probe: str, control: str, own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sealed(own_run) as run:
        for kind in (LinearKind, CnnKind, NearestKind):
            monkeypatch.setattr(kind, "refit", unsealing(run, kind.refit))
        fits = fits_of(run, probe, control)
        assert not run.is_sealed
    assert all(len(fit.scores["test"].label) == 359 for fit in fits)


@pytest.mark.parametrize("probe", TRAINED)
def test_the_trainings_own_classifiers_are_scored_by_the_same_function(
    probe: str, own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sealed(own_run) as run:
        monkeypatch.setattr(TrainedKind, "refit", unsealing(run, TrainedKind.refit))
        (only,) = fits_of(run, probe, depth=2)
    assert list(only.scores) == ["validation", "test"]


def test_a_sealed_run_notices(own_run: Path) -> None:
    with Sealed(own_run) as run, pytest.raises(AssertionError, match="before the choice is fixed"):
        fits_of(run, "linear")


def unsealing(run: Sealed, refit: Callable[..., Any]) -> Callable[..., Any]:
    """Return the refit of a kind of probe, after which the run may be read whole."""

    def then_unseal(self: object, data: object, chosen: object) -> object:
        again = refit(self, data, chosen)
        run.is_sealed = False
        return again

    return then_unseal


class Scrambled(RunFile):
    """A run whose test labels are wrong and whose test rows are those of the train split."""

    def labels(self, split: str) -> np.ndarray:
        return (super().labels(split) + 1) % 10 if split == "test" else super().labels(split)

    def pooled(self, depth: int, split: str) -> Any:
        return self._swapped(super().pooled, depth, split)

    def maps(self, depth: int, split: str) -> Any:
        return self._swapped(super().maps, depth, split)

    def _swapped(self, rows_of: Callable[[int, str], Any], depth: int, split: str) -> Any:
        return Few(rows_of(depth, "train"), len(self.indices("test"))) if split == "test" else rows_of(depth, split)


class Few:
    """The first n rows of a stored array."""

    is_contiguous, nbytes = False, 0

    def __init__(self, rows: Rows, n: int):
        self.rows, self.shape = rows, (n, *rows.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.rows[slice(*rows.indices(len(self))) if isinstance(rows, slice) else rows]


@pytest.mark.parametrize("probe", PROBES)
def test_another_test_split_changes_no_choice_and_no_fit(probe: str, run_path: Path, tmp_path: Path) -> None:
    found = []
    for kind in (RunFile, Scrambled):
        path = tmp_path / kind.__name__ / "run.h5"
        path.parent.mkdir()
        path.symlink_to(run_path)
        with kind(path) as run:
            found.append(fits_of(run, probe))
    for honest, scrambled in zip(*found, strict=True):
        assert facts(honest) == facts(scrambled)
        assert scrambled.scores["test"].accuracy < 0.5 < honest.scores["test"].accuracy
        for split in ("train", "validation"):
            if split in honest.scores:
                a, b = honest.scores[split], scrambled.scores[split]
                np.testing.assert_array_equal(a.true_log_probability, b.true_log_probability)


def facts(fit: Fit) -> Fit:
    """Return a fit without its scores and its time."""
    return replace(fit, scores={}, seconds=0.0)


# What reads labels or activations of a split that an argument names.
READERS = {
    "labels", "images", "pooled", "maps", "class_token", "outputs", "pooled_features", "pooled_batches",
    "open_activations", "read_activations", "read_pooled",
    "open_splits", "features", "read_depth", "Labelled", "_read", "_data",
}  # fmt: skip


def readings_of_test(text: str) -> list[str]:
    """Return each call of a reader, in a module's text, that names the test split or takes every split of a run."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and called(node) in READERS:
            found += [ast.unparse(node)] if any(map(names_test, [*node.args, *node.keywords])) else []
        loops = [node] if isinstance(node, ast.For) else getattr(node, "generators", [])
        if any(names_test(loop.iter) for loop in loops):
            inside = [other for other in ast.walk(node) if isinstance(other, ast.Call) and called(other) in READERS]
            found += [ast.unparse(call) for call in inside]
    return found


def called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def names_test(node: ast.AST) -> bool:
    """Return whether an expression holds "test", the constant TEST, or all splits of a run."""
    return any(
        getattr(part, "value", None) == "test"
        or getattr(part, "id", "") == "TEST"
        or getattr(part, "attr", "") == "splits"
        for part in ast.walk(node)
    )


def test_no_other_module_opens_the_test_split() -> None:
    root = Path(__file__).parents[1] / "probes"
    found = {str(path.relative_to(root)): readings_of_test(path.read_text()) for path in root.rglob("*.py")}
    assert {name: calls for name, calls in found.items() if calls} == {"protocol.py": ["open_splits([TEST])"]}


@pytest.mark.parametrize(
    "text",
    [
        "run.labels('test')",
        "def f(run):\n    return [Labelled(task, 1, ['train', 'test'])]",
        "{s: task.labels(s) for s in run.splits}",
        "for split in run.splits:\n    x = pooled_features(run, 1, split)",
        "open_activations(run, 1, split=TEST)",
    ],
)
def test_a_reading_of_the_test_split_is_found(text: str) -> None:
    assert len(readings_of_test(text)) == 1
    assert readings_of_test(text.replace("'test'", "'train'").replace("run.splits", "fold").replace("TEST", "s")) == []
