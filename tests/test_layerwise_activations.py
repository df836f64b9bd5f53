"""The one interface to activations: stored and recomputed agree, and what is missing is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_run

import layerwise
from layerwise.activations import load_network, open_activations, pooled_features
from layerwise.errors import UsageError, UserError
from layerwise.runfile import RunFile

FLOAT16_STEP = 2.0**-11  # half a unit in the last place, relative


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_stored_and_recomputed_agree_to_float16_rounding(run_path: Path, depth: int, split: str) -> None:
    with RunFile(run_path) as run:
        stored = open_activations(run, depth, split, source="stored")
        recomputed = open_activations(run, depth, split, source="recompute")
        assert (stored.source, recomputed.source) == ("stored", "recompute")
        assert open_activations(run, depth, split).source == "stored"
        a, b = torch.cat(list(stored.batches())), torch.cat(list(recomputed.batches()))
        assert a.dtype == b.dtype == torch.float32
        assert a.shape == b.shape == (len(stored), *run.depth_shape(depth))
        torch.testing.assert_close(a, b, rtol=FLOAT16_STEP, atol=1e-5)
        rows = np.array([7, 3, 3, 40])
        torch.testing.assert_close(stored[rows], a[torch.from_numpy(rows)], rtol=0, atol=0)
        torch.testing.assert_close(recomputed[rows], b[torch.from_numpy(rows)], rtol=1e-5, atol=1e-6)


def test_pooled_features_are_the_same_from_the_file_and_from_maps(run_path: Path, tmp_path: Path) -> None:
    class WithoutPooled(RunFile):
        def pooled(self, depth: int, split: str) -> None:
            return None

    with RunFile(run_path) as run, WithoutPooled(run_path) as bare:
        for depth in (0, 1, 2):
            stored = pooled_features(run, depth, "test")
            assert stored.shape == (len(run.labels("test")), 4 * run.depth_shape(depth)[0])
            np.testing.assert_allclose(
                stored, pooled_features(bare, depth, "test"), rtol=0, atol=2 * FLOAT16_STEP * stored.max()
            )


def test_the_network_from_the_file_repeats_the_scores_in_it(run_path: Path) -> None:
    with RunFile(run_path) as run:
        network = load_network(run, torch.device("cpu"))
        assert network is not None
        x = torch.cat(list(open_activations(run, 2, "test", source="recompute").batches()))
        correct = network.auxiliaries[1](x).argmax(1).numpy() == run.labels("test")
        assert correct.mean() == run.scores(2)["test_accuracy"]


def test_a_file_without_maps_is_recomputed_and_says_so_when_maps_are_asked_for(tmp_path: Path) -> None:
    with RunFile(make_run(tmp_path / "run.h5")) as run:
        assert open_activations(run, 1, "test").source == "recompute"
        with pytest.raises(
            UserError,
            match="no whole maps of depth 1. .*layerwise.train.config='run.h5', settings={.store.: .maps.}, out",
        ):
            open_activations(run, 1, "test", source="stored")


def test_a_run_of_data_and_blocks_of_one_s_own_is_made_again_with_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    data = {name: (images, np.arange(40) % 2) for name in ("train", "test")}
    small = {"network.depth": 1, "network.width": 2, "network.aux_width": 2, "training.epochs": 1}
    layerwise.train(data=data, out=tmp_path / "own.h5", settings=small, device="cpu", quiet=True).close()
    with RunFile(tmp_path / "own.h5") as run, pytest.raises(UserError) as refused:
        open_activations(run, 1, "test", source="stored")
    assert "Make it again with them, with the same images: `layerwise.train(config='own.h5'" in str(refused.value)
    assert "out='own-again.h5'" in str(refused.value)


def test_a_file_without_maps_and_images_says_which_command_stores_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerwise.images.data_config", lambda run: None)  # else digits are read again
    with RunFile(make_run(tmp_path / "run.h5", max_size=300_000)) as run:
        with pytest.raises(UserError, match=r"holds no images and no whole maps. .*layerwise.train.*max_size="):
            open_activations(run, 1, "test")
        with pytest.raises(UserError, match=r"holds no images. It was made of data that .* Make it again"):
            open_activations(run, 1, "test", source="recompute")
        assert len(pooled_features(run, 1, "test"))


def test_a_file_without_blocks_says_which_command_stores_maps(run_path: Path) -> None:
    class WithoutBlocks(RunFile):
        def weights(self, kind: str, j: int) -> None:
            return None

    with WithoutBlocks(run_path) as run:
        with pytest.raises(UserError, match=r"holds no blocks. .*settings={.store.: .maps."):
            open_activations(run, 1, "test", source="recompute")
        assert open_activations(run, 1, "test").source == "stored"


def test_an_unknown_source_is_answered_with_the_choices(run_path: Path) -> None:
    with (
        RunFile(run_path) as run,
        pytest.raises(UsageError, match="unknown source 'disk'. Choices: auto, stored, recompute"),
    ):
        open_activations(run, 1, "test", source="disk")


SUBSCRIPTS: list[Any] = [
    slice(2, 9), slice(None, None, -3), 4, -1, [3, 1, 1], np.arange(359) % 5 == 0, (slice(0, 5), 2), (4, 1, 0),
    ([5, 2], slice(None), slice(1, 3)), np.array([[0, 1], [2, 3]]),
]  # fmt: skip


@pytest.mark.parametrize("source", ["stored", "recompute"])
@pytest.mark.parametrize("key", SUBSCRIPTS, ids=str)
def test_a_subscript_is_of_the_activations_and_not_of_the_images(own_run: Path, key: Any, source: str) -> None:
    with RunFile(own_run) as run:
        x = open_activations(run, 2, "test", source=source)
        whole = x[:].numpy()
        torch.testing.assert_close(x[key], torch.from_numpy(np.ascontiguousarray(whole[key])))
        for wrong in (None, ..., len(x), "a", 1.5):
            with pytest.raises((IndexError, TypeError)):
                x[wrong]
