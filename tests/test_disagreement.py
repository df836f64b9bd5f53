"""The benchmark of human disagreement: which images it takes, and what their class alone says."""

from __future__ import annotations

import numpy as np
import pytest

from layerwise.runfile import RunFile
from tests.benchmarks import disagreement
from tests.benchmarks.disagreement import AGREED, CONTESTED, chosen, class_alone, rows_of


def test_as_many_contested_images_as_agreed_ones_are_chosen_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    contested = np.arange(100) < 30
    agreed = np.arange(100) >= 60
    rows, label = chosen(contested, agreed, seed=0)
    assert len(set(rows)) == len(rows) == 60
    assert contested[rows[label == CONTESTED]].all() and agreed[rows[label == AGREED]].all()
    assert (label == CONTESTED).sum() == 30
    monkeypatch.setattr(disagreement, "MOST", 10)
    assert len(chosen(contested, agreed, seed=0)[0]) == 20


def test_the_class_alone_is_fitted_on_what_is_not_tested() -> None:
    classes = np.array([0, 0, 0, 1, 1, 1, 0, 1, 1])
    label = np.array([CONTESTED] * 2 + [AGREED] * 4 + [CONTESTED, CONTESTED, AGREED])
    is_test = np.arange(9) >= 6
    # Of the others, class 0 is contested twice of three, class 1 never: right are the first and the last of the tested.
    assert class_alone(classes, label, is_test) == pytest.approx(2 / 3)


def test_rows_are_found_by_the_official_index_of_a_folder_that_counts_class_by_class(run_path) -> None:  # type: ignore[no-untyped-def]
    class Folder:
        path = run_path
        official = np.array([2, 0, 1, 0, 2])

        def indices(self, split: str) -> np.ndarray:
            return np.arange(5)

        def labels(self, split: str) -> np.ndarray:
            return np.sort(self.official)

    own = Folder()
    rows = rows_of(own, "test", np.array([0, 1, 4]), own.official)  # type: ignore[arg-type]
    assert rows.tolist() == [3, 0, 4]
    with RunFile(run_path) as run, pytest.raises(AssertionError, match="does not have CIFAR-10 in the official order"):
        rows_of(run, "test", np.array([0]), np.zeros(10_000, dtype=np.int64))
