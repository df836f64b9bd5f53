"""Features from any source: the same values, without copies, standardised, streamed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from linear_problems import blobs, objective_of

from layerwise.errors import UserError
from layerwise.runfile import RunFile
from probes.solver.path import LOSSES, fit_path, fit_paths
from probes.solver.rows import Features, View, row_blocks
from probes.solver.standardiser import Standardiser

CPU = torch.device("cpu")


class Lazy:
    """Rows that are made when they are read, and which note how many were read at once."""

    def __init__(self, rows):
        self.rows, self.shape, self.most, self.read = rows, rows.shape, 0, 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, rows):
        found = self.rows[rows].copy()
        self.most, self.read = max(self.most, len(found)), self.read + len(found)
        return found


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("standardise", [False, True])
def test_every_source_gives_the_same_values(dtype, standardise, tmp_path):
    x = (np.random.default_rng(0).random((50, 6)) * 9).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    standardiser = Standardiser(x.astype(np.float32)) if standardise else None
    expected = standardiser(x) if standardiser else x
    narrow = standardise or dtype in (np.float16, np.float32)
    for source in (x, torch.from_numpy(x), Lazy(x), np.load(tmp_path / "x.npy", mmap_mode="r"), x.tolist()):
        features = Features(source, standardiser)
        whole = features.whole(CPU)
        assert features.dtype == whole.dtype
        if not isinstance(source, list):
            assert whole.dtype == (torch.float32 if narrow else torch.float64)
        np.testing.assert_array_equal(whole.numpy(), expected)
        np.testing.assert_array_equal(features.block(slice(7, 20), CPU).numpy(), expected[7:20])


def test_float32_is_used_in_place():
    x = np.ones((10, 3), np.float32)
    whole = Features(x).whole(CPU)
    x[4, 2] = 7
    assert whole[4, 2] == 7


def test_axes_behind_the_first_of_rows_are_features():
    x = np.random.default_rng(0).normal(size=(20, 3, 2, 2)).astype(np.float32)
    np.testing.assert_array_equal(Features(Lazy(x)).whole(CPU).numpy(), x.reshape(20, 12))


def test_stacked_rows_are_those_of_their_parts():
    x = np.arange(30.0).reshape(15, 2)
    stacked = View(x[:4], Lazy(x[4:9]), x[9:])
    assert (len(stacked), stacked.shape) == (15, (15, 2))
    for rows in (slice(0, 15), slice(2, 4), slice(3, 11), slice(4, 9), slice(8, 40)):
        np.testing.assert_array_equal(stacked[rows], x[rows])


def test_blocks_cover_all_rows():
    assert row_blocks(10, 3, values=12) == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert row_blocks(2, 100, values=12) == [slice(0, 1), slice(1, 2)]


def test_a_stored_run_is_read_as_it_lies(run_path):
    with RunFile(run_path) as run:
        rows, y = run.pooled(1, "train"), run.labels("train")
        x = rows[:].reshape(len(rows), -1)
        standardiser = Standardiser(rows)
        stored = fit_path(rows, y, [1e-3], n_classes=10, standardiser=standardiser, max_memory=1)
        (fit,) = fit_path(standardiser(x), y, [1e-3], n_classes=10)
        assert stored[0].objective == pytest.approx(fit.objective, abs=fit.certificate + stored[0].certificate)
        scores = fit.decision_function(rows, standardiser=standardiser)
        np.testing.assert_allclose(scores, fit.decision_function(standardiser(x)), rtol=1e-12)


# streaming


@pytest.fixture
def small_blocks(monkeypatch):
    """Make blocks small and the work float32, as with many samples."""
    monkeypatch.setattr("probes.solver.design_matrix._CACHED", 64)
    monkeypatch.setattr("probes.solver.newton._SMALL", 0)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_streamed_features_give_the_same_optimum(loss, dtype, small_blocks):
    X, y = blobs(seed=30)
    source = Lazy((3 * X + 1).astype(dtype))
    standardiser = Standardiser(source)
    lams = [1e-1, 1e-3, 1e-5]
    held = fit_path(source, y, lams, n_classes=3, loss=loss, standardiser=standardiser, tol=1e-7)
    source.most = 0
    streamed = fit_path(source, y, lams, n_classes=3, loss=loss, standardiser=standardiser, tol=1e-7, max_memory=1)
    assert source.most <= 64 // 5
    for one, other in zip(held, streamed, strict=True):
        assert other.converged
        assert one.objective == pytest.approx(other.objective, abs=one.certificate + other.certificate)
        X32 = standardiser(source.rows)
        assert other.objective == pytest.approx(objective_of(other, X32, y), rel=1e-10)


def test_streamed_folds_are_the_same_folds(small_blocks):
    X, y = blobs(seed=31)
    masks = np.arange(120) % 3 != np.arange(3)[:, None]
    held = fit_paths(X, y, [1e-2, 1e-4], n_classes=3, sample_weight=masks, tol=1e-7)
    streamed = fit_paths(Lazy(X), y, [1e-2, 1e-4], n_classes=3, sample_weight=masks, tol=1e-7, max_memory=1)
    for path, other in zip(held, streamed, strict=True):
        for a, b in zip(path, other, strict=True):
            assert a.objective == pytest.approx(b.objective, abs=a.certificate + b.certificate)


def test_memory_that_suffices_holds_the_features(small_blocks):
    X, y = blobs(seed=32)
    source = Lazy(X)
    fit_path(source, y, [1e-2], n_classes=3, max_memory=2 * X.nbytes)
    assert source.read <= 2 * len(X)  # one row more tells the type


# what is not finite


@pytest.mark.parametrize("max_memory", [None, 1])
def test_values_that_are_not_finite_are_counted_and_placed(max_memory, small_blocks):
    X, y = blobs()
    X[3, 1] = X[84, 0] = np.nan
    X[77, 2] = -np.inf
    with pytest.raises(UserError, match=r"^depth 3, train split: found 2 NaN and 1 infinite values in the features"):
        fit_path(X, y, [1e-2], n_classes=3, where="depth 3, train split", max_memory=max_memory)
    with pytest.raises(UserError, match=r"^depth 3: found 2 NaN and 1 infinite values in the features"):
        Standardiser(X, where="depth 3")


def test_standardising_does_not_hide_what_is_not_finite():
    X, y = blobs()
    standardiser = Standardiser(X)
    X[5, 0] = np.inf
    with pytest.raises(UserError, match="found 0 NaN and 1 infinite values"):
        fit_path(X, y, [1e-2], n_classes=3, standardiser=standardiser)
