"""Runs as Python hands them over: paths, open files, lists; and through a pickle to a worker."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from layerwise.activations import open_activations, pooled_features
from layerwise.errors import UsageError, UserError
from layerwise.runfile import Rows, RunFile
from layerwise.runfile.given import opened, paths_of

GOLDEN = Path(__file__).parent / "golden" / "run-v1.h5"


def test_paths_open_runs_and_lists_of_them_are_taken_alike(own_run: Path) -> None:
    with RunFile(own_run) as run:
        for given in (own_run, str(own_run), run, [run], (str(own_run),), iter([own_run])):
            assert paths_of(given) == [own_run]
        with opened(run) as same:
            assert same is run
        assert not run.is_closed  # it was open before
    with opened(run) as again:  # closed meanwhile
        assert again is not run and not again.is_closed
    assert again.is_closed


@pytest.mark.parametrize(("given", "words"), [([], "no run was given"), (3, "found int in the place of a run")])
def test_what_is_no_run_is_refused(given: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        paths_of(given)


def first_of(run: RunFile, rows: Rows) -> tuple[str, np.ndarray]:
    """Return what a worker reads of a run that came to it by a pickle."""
    return run.run_id, rows[:2]


class Features(Dataset[np.ndarray]):
    """The pooled features of a run, as a user's own data set holds them."""

    def __init__(self, run: RunFile):
        self.rows = run.pooled(1, "test")

    def __len__(self) -> int:
        assert self.rows is not None
        return len(self.rows)

    def __getitem__(self, i: int) -> np.ndarray:
        assert self.rows is not None
        return self.rows[i]


def test_a_run_reaches_processes_that_begin_anew(own_run: Path) -> None:
    with RunFile(own_run) as run:
        rows = run.pooled(1, "test")
        assert rows is not None
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            identity, found = pool.apply(first_of, (run, rows))
        assert identity == run.run_id
        np.testing.assert_array_equal(found, rows[:2])
        loader = DataLoader(Features(run), batch_size=100, num_workers=1, multiprocessing_context="spawn")
        np.testing.assert_array_equal(np.concatenate([batch.numpy() for batch in loader]), rows[:])


def test_a_file_that_changed_is_refused(own_run: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(own_run, tmp_path / "x.h5"))
    with RunFile(path) as run:
        rows = run.pooled(1, "test")
        kept, kept_rows = pickle.dumps(run), pickle.dumps(rows)
    with pickle.loads(kept) as again:
        assert again.run_id == run._identity[1]
    path.unlink()
    shutil.copy(GOLDEN, path)
    for one in (kept, kept_rows):
        with pytest.raises(UserError, match=r"is another run now \(run_id .*, expected .*layerwise.open_run"):
            pickle.loads(one)


def test_activations_are_opened_of_paths_too(own_run: Path) -> None:
    with RunFile(own_run) as run:
        np.testing.assert_array_equal(pooled_features(str(own_run), 1, "test"), pooled_features(run, 1, "test"))
        expected = open_activations(run, 1, "test")[:3]
        found = open_activations(own_run, 1, "test")
        np.testing.assert_array_equal(found[:3].numpy(), expected.numpy())
        found._rows._file.close()
