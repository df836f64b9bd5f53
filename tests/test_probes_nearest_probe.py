"""knn and ncm by the protocol: the fold chooses, the refit sees it, the test split chooses nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_run

from layerwise.runfile import RunFile
from probes.nearest import probe as nearest
from probes.nearest.neighbors import DISTANCES, NEIGHBORS
from probes.nearest.probe import FIXED_VOTE, KnnFamily, NcmFamily
from probes.pooled import PooledFamily
from probes.protocol import Fit
from probes.tasks.controls import Permuted
from probes.tasks.task import Task

CPU = torch.device("cpu")


def fitted(kind: type[KnnFamily] | type[NcmFamily], task: Task, depth: int = 1) -> list[Fit]:
    family = kind(task.run, task, device=CPU)
    family.prepare({depth: family.names(depth)})
    ((name, fits),) = family.fit(depth, family.names(depth))
    assert (name.probe, name.pooling, name.probe_width) == (kind.probe, 2, 0)
    return fits


@pytest.mark.parametrize(("kind", "least"), [(KnnFamily, 0.93), (NcmFamily, 0.8)])
def test_both_fits_are_reported_on_their_splits(
    run_path: Path, kind: type[KnnFamily] | type[NcmFamily], least: float
) -> None:
    with RunFile(run_path) as run:
        first, last = fitted(kind, Task(run))
    assert {s: len(p.label) for s, p in first.scores.items()} == {"train": 1295, "validation": 143, "test": 359}
    assert {s: len(p.label) for s, p in last.scores.items()} == {"train": 1438, "test": 359}
    assert (first.n_train, last.n_train, first.n_features) == (1295, 1438, 24)
    assert last.scores["test"].accuracy > least
    assert np.isfinite(last.scores["test"].log_loss_bits)


def test_the_fold_chooses_the_vote_and_the_refit_keeps_it(run_path: Path) -> None:
    with RunFile(run_path) as run:
        first, last = fitted(KnnFamily, Task(run))
        family = KnnFamily(run, Task(run), device=CPU)
        train, validation = (
            nearest.Data(x, y, y, {split: len(y)})
            for split in ("train", "validation")
            for x, y, _ in [family._read(1, 2, split)]
        )
        votes = [nearest.Vote(k, distance) for k in NEIGHBORS for distance in DISTANCES]
        best = max(nearest.Fitted(train, 1295, vote, 10, CPU).predict(validation).accuracy for vote in votes)
    assert first.scores["validation"].accuracy == best
    assert (first.neighbors, first.distance) == (last.neighbors, last.distance)
    assert first.neighbors in NEIGHBORS and first.distance in DISTANCES
    assert first.selection == last.selection == "validation"


def test_the_class_mean_has_nothing_to_choose(run_path: Path) -> None:
    with RunFile(run_path) as run:
        first, last = fitted(NcmFamily, Task(run))
    assert {first.selection, last.selection} == {"fixed"}
    assert first.neighbors is None and first.distance is None


def test_without_a_fold_the_vote_is_the_stated_one(tmp_path: Path) -> None:
    with RunFile(make_run(tmp_path / "run.h5", **{"data.holdout": 0.0, "training.epochs": 1})) as run:
        (only,) = fitted(KnnFamily, Task(run))
    assert (only.neighbors, only.distance) == (FIXED_VOTE.neighbors, FIXED_VOTE.distance)
    assert only.selection == "seen"
    assert set(only.scores) == {"train", "test"}


def test_permuted_labels_take_the_vote_of_the_real_ones_and_end_at_chance(run_path: Path) -> None:
    with RunFile(run_path) as run:
        real, _ = fitted(KnnFamily, Task(run))
        first, last = fitted(KnnFamily, Permuted(Task(run)))
    assert (first.neighbors, first.distance) == (real.neighbors, real.distance)
    assert first.selection == "control"
    assert last.scores["test"].accuracy < 0.17  # chance is 0.1, 359 images: 4 deviations


def test_images_without_a_label_are_left_out(run_path: Path) -> None:
    class Third(Task):
        def labels(self, split: str) -> np.ndarray:
            return super().labels(split)[::3]

        def rows(self, split: str) -> np.ndarray:
            return super().rows(split)[::3]

    with RunFile(run_path) as run:
        first, _ = fitted(NcmFamily, Third(run))
    assert {s: len(p.label) for s, p in first.scores.items()} == {"train": 432, "validation": 48, "test": 120}


@pytest.mark.parametrize("kind", [KnnFamily, NcmFamily])
@pytest.mark.parametrize("side", [2, 4])
def test_features_that_do_not_fit_memory_give_the_same(
    run_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[KnnFamily] | type[NcmFamily], side: int
) -> None:
    found = {}
    with RunFile(run_path) as run:
        for memory in (None, 1000):
            family = kind(run, Task(run), pools=(side,), device=CPU, max_memory=memory)
            if memory:
                monkeypatch.setattr("probes.nearest.neighbors.VALUES", 5000)
                monkeypatch.setattr(PooledFamily, "_read", None)  # which reads all of a split
            ((_, found[memory]),) = family.fit(1, family.names(1))
    for held, streamed in zip(found[None], found[1000], strict=True):
        assert (held.neighbors, held.distance, held.n_features) == (
            streamed.neighbors, streamed.distance, streamed.n_features,
        )  # fmt: skip
        for split, scored in held.scores.items():
            np.testing.assert_array_equal(scored.predicted, streamed.scores[split].predicted)
            np.testing.assert_allclose(
                scored.true_log_probability, streamed.scores[split].true_log_probability, rtol=1e-5
            )


@pytest.mark.parametrize("kind", [KnnFamily, NcmFamily])
def test_features_of_what_was_fitted_are_released_and_read_again(
    run_path: Path, kind: type[KnnFamily] | type[NcmFamily]
) -> None:
    with RunFile(run_path) as run:
        family = kind(run, Task(run), device=CPU)
        family.fitted = {}
        found = {name: fits[-1].scores["test"] for j in run.depths for name, fits in family.fit(j, family.names(j))}
        assert len(family.fitted) == len(run.depths)
        for name, own in family.fitted.items():
            assert own._data() is None and own._kept is None
            (said,) = family.kind(name).predict([own], family._open(name)(["test"]))
            np.testing.assert_array_equal(said.predicted, found[name].predicted)


def test_features_that_had_to_be_computed_are_kept(run_path: Path) -> None:
    with RunFile(run_path) as run:
        family = KnnFamily(run, Task(run), pools=[1], device=CPU)
        family.fitted = {}
        family.fit(1, family.names(1))
        assert all(own._data() is not None for own in family.fitted.values())
