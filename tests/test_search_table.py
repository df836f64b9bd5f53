"""The table of a search: a row for each depth, what differs from the recipe, and no test accuracy."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import make_run

from layerwise.runfile import RunFile
from tests.benchmarks import seeds_table
from tests.benchmarks.search_table import rows


def test_a_row_for_each_depth_with_what_differs_from_the_recipe(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a.h5", **{"training.cutout": 2, "training.block_epochs": (1, 2)})
    first, second = rows(path, "digits")
    assert first["changed"] == "network.depth=2; network.width=6; network.aux_width=5; training.cutout=2"
    assert [(row["depth"], row["epochs"]) for row in (first, second)] == [(1, 1), (2, 2)]
    with RunFile(path) as run:
        assert [row["validation"] for row in (first, second)] == [run.scores(j)["validation_accuracy"] for j in (1, 2)]
    assert not [name for name in first if "test" in name]


def test_a_run_without_a_fold_is_refused(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a.h5", **{"data.holdout": 0.0})
    with pytest.raises(SystemExit, match="a.h5 is no run that was trained beside a validation fold"):
        rows(path, "digits")


def test_seeds_beside_each_other_with_test_accuracies(tmp_path: Path) -> None:
    path = make_run(tmp_path / "b.h5", mirrored=True, seed=3)
    found = seeds_table.rows(path)
    assert [(row["recipe"], row["seed"], row["depth"]) for row in found] == [("digits", 3, 1), ("digits", 3, 2)]
    with RunFile(path) as run:
        for name, attribute in (("test", "test_accuracy"), ("mirrored", "mirrored_test_accuracy")):
            assert [row[name] for row in found] == [run.scores(j)[attribute] for j in (1, 2)]
