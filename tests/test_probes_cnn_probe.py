"""The CNN-p probes of a run: one rate for all depths, the fold chooses it and never the test split, work goes on."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_run

from layerwise.commandline import call
from layerwise.errors import UserError
from layerwise.runfile import RunFile
from probes.cli import probe
from probes.cnn import probe as cnn
from probes.cnn.probe import CnnFamily, trial_depths
from probes.cnn.rates import CANDIDATES, FIXED_LEARNING_RATE, LEARNING_RATES, candidates_path
from probes.csvfile import write_csv
from probes.names import CNN_EPOCHS
from probes.protocol import Fit
from probes.results.integrity import sealed
from probes.sweep import missing, sweep
from probes.tasks.controls import Permuted, Teacher
from probes.tasks.task import Task

CPU = torch.device("cpu")


def family(run: RunFile, task: Task | None = None, **words: object) -> CnnFamily:
    about = {"ps": [1], "widths": [8], "seeds": 1, "epochs": 1, "source": "auto", "precision": "fp32", "device": CPU}
    return CnnFamily(run, task or Task(run), **about | words)  # type: ignore[arg-type]


def fits(
    run: RunFile, depth: int = 1, task: Task | None = None, **words: object
) -> dict[tuple[str, int, int], list[Fit]]:
    """Return the fits of one depth by (probe, width, seed)."""
    probes = family(run, task, **words)
    names = probes.names(depth)
    probes.prepare({depth: names})
    return {(n.probe, n.probe_width, n.probe_seed): found for n, found in probes.fit(depth, names)}


def test_every_seed_is_fitted_once_on_all_of_the_fold(own_run: Path) -> None:
    with RunFile(own_run) as run:
        found = fits(run, ps=[1, 2], widths=[4, 6], seeds=2)
    assert set(found) == {(f"cnn-{p}", width, seed) for p in (1, 2) for width in (4, 6) for seed in (0, 1)}
    (last,), (other,) = (found["cnn-1", 4, seed] for seed in (0, 1))
    assert {s: len(p.label) for s, p in last.scores.items()} == {"train": 1438, "test": 359}
    assert (last.refit, last.n_train, last.n_features) == (1, 1438, 6 * 8 * 8)
    assert (last.iterations, last.batch_size) == (1, 32)
    assert not np.array_equal(last.scores["test"].true_log_probability, other.scores["test"].true_log_probability)


def test_a_probe_on_the_input_learns_from_pixels_as_a_small_network_does(own_run: Path) -> None:
    with RunFile(own_run) as run:
        (only,) = fits(run, 0, widths=[16], epochs=6)["cnn-1", 16, 0]
    assert only.scores["test"].accuracy > 0.93
    assert only.learning_rate in LEARNING_RATES
    assert only.selection == "validation"


def test_one_rate_serves_all_depths_and_does_not_depend_on_which_were_asked_for(own_run: Path) -> None:
    with RunFile(own_run) as run:
        alone = family(run)
        alone.prepare({0: alone.names(0)})
        table = pd.read_csv(candidates_path(own_run))
        candidates_path(own_run).unlink()
        whole = family(run)
        whole.prepare({depth: whole.names(depth) for depth in whole.depths()})
        assert alone._rates == whole._rates
        assert pd.read_csv(candidates_path(own_run)).equals(table)
        (rate,) = {
            fit.learning_rate
            for depth in (0, 1, 2)
            for _, found in whole.fit(depth, whole.names(depth))
            for fit in found
        }
    means = table.groupby("learning_rate")["accuracy"].mean()
    assert means[rate] == means.max()
    assert sorted(table["depth"].unique()) == [1, 2]
    assert sorted(table["learning_rate"].unique()) == sorted(LEARNING_RATES)


def test_a_rate_that_was_chosen_is_not_chosen_again(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFile(own_run) as run:
        family(run).prepare({1: family(run).names(1)})
        monkeypatch.setattr(CnnFamily, "_try", lambda *_: pytest.fail("rates were tried again"))
        family(run).prepare({2: family(run).names(2)})
        monkeypatch.undo()
        # Stopped between two depths, a trial goes on where it was.
        table = pd.read_csv(candidates_path(own_run))
        write_csv(sealed(table[table["depth"] == 1], CANDIDATES), candidates_path(own_run))
        again = family(run)
        assert again.trials({2: again.names(2)}) == {2: [(1, 8)]}
        # 6 epochs are tried for 2, and 1 to 5 epochs for one.
        assert family(run, epochs=6).trials({2: again.names(2)}) == {1: [(1, 8)], 2: [(1, 8)]}
        assert family(run, epochs=5).trials({2: again.names(2)}) == {2: [(1, 8)]}


def test_the_test_split_is_opened_only_after_every_training(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    labelled, train = cnn.Labelled, cnn.train_together

    def watch_open(task: Task, depth: int, splits: list[str], **words: object) -> object:
        events.extend(splits)
        return labelled(task, depth, splits, **words)  # type: ignore[arg-type]

    def watch_train(*words: object, **more: object) -> object:
        events.append("train!")
        return train(*words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(cnn, "Labelled", watch_open)
    monkeypatch.setattr(cnn, "train_together", watch_train)
    with RunFile(own_run) as run:
        fits(run, seeds=2)
    assert events.count("train!") == 3  # trials at two depths; then the fits
    assert events.count("test") == 1
    assert "test" not in events[: len(events) - events[::-1].index("train!")]


def test_stored_and_recomputed_maps_lead_to_the_same_accuracy_within_rounding(own_run: Path) -> None:
    with RunFile(own_run) as run:
        found = [fits(run, epochs=4, source=source)["cnn-1", 8, 0][0] for source in ("stored", "recompute")]
    a, b = (fit.scores["test"].accuracy for fit in found)
    assert abs(a - b) < 0.03


def test_without_a_fold_the_learning_rate_is_the_stated_one(tmp_path: Path) -> None:
    with RunFile(make_run(tmp_path / "run.h5", **{"data.holdout": 0.0, "training.epochs": 1})) as run:
        found = fits(run, seeds=2)
        assert not candidates_path(run.path).exists()
    for (only,) in found.values():
        assert (only.refit, only.learning_rate, only.selection) == (0, FIXED_LEARNING_RATE, "seen")
        assert set(only.scores) == {"train", "test"}


def test_permuted_labels_take_the_rate_of_the_real_ones_and_test_at_chance(own_run: Path) -> None:
    with RunFile(own_run) as run:
        (only,) = fits(run, task=Permuted(Task(run)), widths=[32], epochs=4)["cnn-1", 32, 0]
        tried = pd.read_csv(candidates_path(own_run))
    assert set(tried["control"]) == {"none"}
    assert (only.refit, only.selection) == (1, "control")
    # 359 images of ten classes: chance is 0.1 with a deviation of 0.016.
    assert abs(only.scores["test"].accuracy - 0.1) < 0.05


def test_the_teacher_chooses_on_its_own_labels(own_run: Path) -> None:
    with RunFile(own_run) as run:
        (last,) = fits(run, task=Teacher(run), epochs=3)["cnn-1", 8, 0]
        tried = pd.read_csv(candidates_path(own_run))
    assert set(tried["control"]) == {"teacher"}
    assert last.selection == "validation"
    assert last.scores["test"].accuracy > 0.2


def test_a_stopped_sweep_goes_on_and_a_complete_one_trains_nothing(
    own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunFile(own_run) as run:
        assert sweep(run, Task(run), family(run, seeds=2), [0, 1]) == 4
        again = family(run, seeds=2)
        assert set(missing(run, again, [0, 1, 2])) == {2}
        assert sweep(run, Task(run), again, [0, 1, 2]) == 2
        monkeypatch.setattr(cnn, "train_together", lambda *_, **__: pytest.fail("trained again"))
        assert sweep(run, Task(run), family(run, seeds=2), [0, 1, 2]) == 0
        # A third seed is all that is missing then.
        assert {d: len(names) for d, names in missing(run, family(run, seeds=3), [0, 1]).items()} == {0: 1, 1: 1}


def test_only_labelled_images_are_read(own_run: Path) -> None:
    class Third(Task):
        target = "third"

        def labels(self, split: str) -> np.ndarray:
            return super().labels(split)[::3]

        def rows(self, split: str) -> np.ndarray:
            return super().rows(split)[::3]

    with RunFile(own_run) as run:
        (last,) = fits(run, task=Third(run))["cnn-1", 8, 0]
    assert {s: len(p.label) for s, p in last.scores.items()} == {"train": 480, "test": 120}
    assert last.n_train == 480


def test_maps_too_small_are_left_out_and_refused_where_they_are_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_run(tmp_path / "run.h5", **{"network.depth": 3, "network.downsample": "1,2,3", "training.epochs": 1})
    with RunFile(path) as run:
        probes = family(run)
        assert probes.depths() == [0, 1, 2]
        assert trial_depths(run) == [1, 2]
        assert "no CNN probe is fitted at depth 3, whose maps are smaller than 2x2" in caplog.text
        with pytest.raises(UserError, match=r"depth 3 has maps of 1x1, too small .* --depths"):
            probes.check([1, 3])
    assert call(probe, "probe-depth", [str(path), "--probe", "cnn-1", "--depths", "3", "--device", "cpu"]) == 1
    assert not candidates_path(path).exists()


def test_a_run_with_neither_maps_nor_images_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerwise.images.data_config", lambda run: None)  # else digits are read again
    with (
        RunFile(make_run(tmp_path / "run.h5", max_size=300_000)) as run,
        pytest.raises(
            UserError, match=r"holds no images and no whole maps.*layerwise-train --config run.h5 --max-size"
        ),
    ):
        fits(run)


def test_where_maps_come_from_is_said(own_run: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "layerwise.probes"), RunFile(own_run) as run:
        family(run, source="recompute").prepare({0: [], 1: []})
    (line,) = [record.message for record in caplog.records]
    assert "maps: depths 0, 1 recomputed from images (" in line


def test_a_cnn_probe_of_k_minus_1_agrees_with_the_auxiliary_trained_there(tmp_path: Path) -> None:
    """Solved anew on the frozen depth, the auxiliary problem's own classifier reaches what it reached in training."""
    words = {
        "network.k": 2,
        "network.width": 12,
        "network.aux_width": 12,
        "training.epochs": 12,
        "training.lr_every": 4,
    }
    with RunFile(make_run(tmp_path / "run.h5", **words)) as run:
        for depth in (1, 2):
            ((probe,),) = fits(run, depth, widths=[12], epochs=12).values()
            trained = run.scores(depth)
            # 359 test images: two classifiers of the same accuracy differ by 0.02 at 2 standard deviations
            assert abs(probe.scores["test"].accuracy - trained["test_accuracy"]) < 0.03
            assert abs(probe.scores["train"].accuracy - trained["train_accuracy"]) < 0.03


def test_small_maps_of_untrained_networks_without_batch_norm_are_read_as_well_as_others(tmp_path: Path) -> None:
    """Such blocks shrink x_j, here to a deviation of 0.03 at depth 3; CNN probes stayed at chance there before."""
    words = {"mode": "untrained", "data.subset": 400, "network.k": 1, "network.depth": 3, "network.width": 8}
    with RunFile(make_run(tmp_path / "run.h5", **words)) as run:
        deviation = run.pooled(3, "train")[:].std()
        found = fits(run, 3, ps=[1, 2], widths=[16], epochs=CNN_EPOCHS)
    assert deviation < 0.1
    for (fit,) in found.values():
        assert fit.scores["test"].accuracy > 0.8
