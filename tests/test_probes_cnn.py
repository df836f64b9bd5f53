"""The CNN-p probe: the auxiliary's own class, all from the same batches, the fold chooses, the test split does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_run

from layerwise.activations import open_activations
from layerwise.errors import UserError
from layerwise.runfile import RunFile
from probes import cnn
from probes.cnn import FIXED_LEARNING_RATE, LEARNING_RATES, Design, Labelled, probe_cnn, training_config

CPU = torch.device("cpu")


def test_all_probes_of_a_depth_end_as_each_does_alone(run_path: Path) -> None:
    designs = [Design(1, 4, 0), Design(1, 6, 0), Design(2, 4, 1)]
    with RunFile(run_path) as run:
        together = probe_cnn(run, 1, designs, epochs=2, device=CPU)
        for design in designs:
            (alone,) = probe_cnn(run, 1, [design], epochs=2, device=CPU).values()
            for a, b in zip(alone, together[design], strict=True):
                assert a.learning_rate == b.learning_rate
                assert np.array_equal(a.scores["test"].true_log_probability, b.scores["test"].true_log_probability)


def test_stored_and_recomputed_maps_lead_to_the_same_accuracy_within_rounding(run_path: Path) -> None:
    with RunFile(run_path) as run:
        found = [probe_cnn(run, 1, [Design(1, 8, 0)], epochs=4, source=s, device=CPU) for s in ("stored", "recompute")]
    a, b = (next(iter(f.values()))[1].scores["test"].accuracy for f in found)
    assert abs(a - b) < 0.03


def test_a_probe_on_the_input_learns_from_pixels(run_path: Path) -> None:
    with RunFile(run_path) as run:
        ((first, last),) = probe_cnn(run, 0, [Design(1, 16, 0)], epochs=6, device=CPU).values()
    assert last.scores["test"].accuracy > 0.9
    assert first.learning_rate in LEARNING_RATES
    assert {s: len(p.label) for s, p in first.scores.items()} == {"train": 1295, "validation": 143, "test": 359}
    assert {s: len(p.label) for s, p in last.scores.items()} == {"train": 1438, "test": 359}


def test_probe_seeds_differ(run_path: Path) -> None:
    designs = [Design(1, 4, seed) for seed in (0, 1)]
    with RunFile(run_path) as run:
        found = probe_cnn(run, 1, designs, epochs=1, device=CPU)
    a, b = (fits[1].scores["test"].true_log_probability for fits in found.values())
    assert not np.array_equal(a, b)


def test_the_test_split_is_opened_only_after_every_training(run_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    opened, solved = cnn.open_activations, cnn.solve

    def watch_open(run: RunFile, depth: int, split: str, **words: object) -> object:
        events.append(split)
        return opened(run, depth, split, **words)  # type: ignore[arg-type]

    def watch_solve(*words: object) -> object:
        events.append("train!")
        return solved(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(cnn, "open_activations", watch_open)
    monkeypatch.setattr(cnn, "solve", watch_solve)
    with RunFile(run_path) as run:
        probe_cnn(run, 1, [Design(1, 4, 0)], epochs=1, device=CPU)
    assert events.count("train!") == 2
    assert "test" not in events[: len(events) - events[::-1].index("train!")]


def test_without_a_fold_the_learning_rate_is_the_stated_one(tmp_path: Path) -> None:
    with RunFile(make_run(tmp_path / "run.h5", **{"data.holdout": 0.0, "training.epochs": 1})) as run:
        ((only,),) = probe_cnn(run, 1, [Design(1, 4, 0)], epochs=1, device=CPU).values()
    assert only.learning_rate == FIXED_LEARNING_RATE
    assert only.selection == "seen"
    assert set(only.scores) == {"train", "test"}


@pytest.mark.parametrize("kept", [10**9, 0])
def test_joined_splits_are_read_in_any_order_kept_or_not(
    run_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(cnn, "KEPT_BYTES", kept)
    with RunFile(run_path) as run:
        joined = Labelled(run, 1, ("train", "validation"), "stored", CPU)
        whole = torch.cat(
            [x for s in ("train", "validation") for x in open_activations(run, 1, s, source="stored").batches()]
        )
        rows = np.random.default_rng(0).permutation(len(joined))[:300]
        assert torch.equal(joined[rows], whole[torch.from_numpy(rows)])
        batches = list(joined.shuffled(100, 3))
        labels = np.concatenate([run.labels("train"), run.labels("validation")])
    assert sorted(torch.cat([y for _, y in batches]).tolist()) == sorted(labels)
    assert [len(y) for _, y in batches] == [100] * 14 + [38]


def test_the_recipe_has_three_stages() -> None:
    config = training_config(0.1, 10)
    rates = [config.learning_rate * config.lr_factor ** (epoch // config.lr_every) for epoch in range(10)]
    assert len(set(rates)) == 3


def test_maps_too_small_are_refused_with_the_depth_and_the_way_out(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run.h5", **{"network.depth": 3, "network.downsample": "1,2,3", "training.epochs": 1})
    with RunFile(path) as run, pytest.raises(UserError, match=r"depth 3 has maps of 1x1, too small .* --depths"):
        probe_cnn(run, 3, [Design(1, 4, 0)], epochs=1, device=CPU)


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
            ((first, _),) = probe_cnn(run, depth, [Design(1, 12, 0)], epochs=12, device=CPU).values()
            trained = run.scores(depth)
            # 359 test images: two classifiers of the same accuracy differ by 0.02 at 2 standard deviations
            assert abs(first.scores["test"].accuracy - trained["test_accuracy"]) < 0.03
            assert abs(first.scores["train"].accuracy - trained["train_accuracy"]) < 0.03
