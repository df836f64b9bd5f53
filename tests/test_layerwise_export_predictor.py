"""The predictor: for every depth, ensemble and input the outputs that the run file keeps; what a run lacks is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_run

from layerwise.errors import UsageError, UserError
from layerwise.export.predictor import INPUTS, build_predictor, join
from layerwise.model.ensemble import WEIGHTINGS, ensemble
from layerwise.runfile import RunFile
from layerwise.runfile.place import Place
from layerwise.training.replacement import replaced, take_over
from layerwise.training.run import train_run

THREE: dict[str, Any] = {"network.depth": 3, "network.downsample": (2,), "training.epochs": 1}
PRUNED = {"network.prune_to": 4, "training.finetune_epochs": 1}
KINDS: dict[str, dict[str, Any]] = {
    "k1": THREE | {"network.k": 1},
    "k1-batch-norm": THREE | {"network.k": 1, "network.batch_norm": "on"},
    "k2": THREE | {"network.k": 2},
    "k3": THREE | {"network.k": 3},
    "k3-plain": THREE | {"network.k": 3, "network.batch_norm": "off", "network.average": 1},
    "pruned": THREE | {"network.k": 2} | PRUNED,
    "pruned-k1": THREE | {"network.k": 1, "network.batch_norm": "on"} | PRUNED,
    "parallel": THREE | {"mode": "parallel"},
}


def assert_equal_within_rounding(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=4e-6 * np.abs(expected).max())


def expected_of(run: RunFile, depth: int, weighting: str | None) -> np.ndarray:
    """Return what the run file keeps of its test split, joined by numpy in float64."""
    logits = [run.outputs(j, "test") for j in range(1, depth + 1)]
    return logits[-1] if weighting is None else ensemble(logits, weighting)


@pytest.mark.parametrize("kind", KINDS)
def test_every_depth_and_ensemble_says_what_the_run_keeps(kind: str, tmp_path: Path) -> None:
    with RunFile(make_run(tmp_path / "run.h5", **KINDS[kind])) as run:
        images = torch.from_numpy(run.images("test")[:])
        for depth in (1, 2, 3):
            for weighting in (None, *WEIGHTINGS):
                predictor = build_predictor(run, depth, weighting)
                assert_equal_within_rounding(predictor(images).numpy(), expected_of(run, depth, weighting))


def test_a_replaced_auxiliary_is_the_one_that_predicts(tmp_path: Path) -> None:
    source = make_run(tmp_path / "source.h5", **KINDS["k2"])
    taken = take_over(source, None)
    place = Place(out=tmp_path / "run.h5", device=torch.device("cpu"), max_size=10**9)
    train_run(replaced(taken.config, 3, source), place, taken)
    with RunFile(tmp_path / "run.h5") as run:
        predictor = build_predictor(run)
        assert predictor.auxiliaries[0].linear.in_features == 3 * 4
        images = torch.from_numpy(run.images("test")[:])
        assert_equal_within_rounding(predictor(images).numpy(), expected_of(run, 3, None))
        assert_equal_within_rounding(build_predictor(run, 3, "logits")(images).numpy(), expected_of(run, 3, "logits"))


def test_each_input_is_the_same_image_in_other_numbers(run_path: Path) -> None:
    with RunFile(run_path) as run:
        pixels = torch.from_numpy(run.images("test")[:50])
        mean, std = (torch.tensor(run.dataset["normalisation"][name]).view(-1, 1, 1) for name in ("mean", "std"))
        inputs = dict(zip(INPUTS, (pixels, pixels / 255, (pixels / 255 - mean) / std), strict=True))
        for takes, images in inputs.items():
            found = build_predictor(run, takes=takes)(images).numpy()
            assert_equal_within_rounding(found, expected_of(run, 2, None)[:50])


def test_an_image_has_the_same_scores_in_any_company(run_path: Path) -> None:
    with RunFile(run_path) as run:
        predictor = build_predictor(run, 2, "softmax")
        images = torch.from_numpy(run.images("test")[:9])
        alone = torch.cat([predictor(images[i : i + 1]) for i in range(9)])
        torch.testing.assert_close(alone, predictor(images), rtol=1e-5, atol=1e-6)


def test_a_predictor_is_frozen_and_holds_no_block_above_its_depth(run_path: Path) -> None:
    with RunFile(run_path) as run:
        predictor = build_predictor(run, 1)
        assert (len(predictor.blocks), len(predictor.auxiliaries), len(build_predictor(run).blocks)) == (1, 1, 2)
        assert not predictor.training
        assert not any(value.requires_grad for value in predictor.parameters())


def test_an_ensemble_is_a_distribution_however_sure_its_members_are() -> None:
    logits = [torch.tensor([[0.0, -400.0], [3.0, 1.0]]), torch.tensor([[0.0, -500.0], [-1.0, 2.0]])]
    for weighting in WEIGHTINGS:
        found = join(logits, weighting)
        torch.testing.assert_close(found.exp().sum(1), torch.ones(2))
        torch.testing.assert_close(found.double(), torch.from_numpy(ensemble([z.numpy() for z in logits], weighting)),
                                   rtol=1e-6, atol=1e-6)  # fmt: skip


def test_end_to_end_has_one_auxiliary_and_no_ensemble(tmp_path: Path) -> None:
    with RunFile(make_run(tmp_path / "run.h5", mode="end-to-end")) as run:
        images = torch.from_numpy(run.images("test")[:])
        assert_equal_within_rounding(build_predictor(run, 2)(images).numpy(), run.outputs(2, "test"))
        assert build_predictor(run).joined == (2,)
        with pytest.raises(UsageError, match="--depth is 1, but .* has trained auxiliary classifiers at 2 alone."):
            build_predictor(run, 1)
        with pytest.raises(UsageError, match="at depth 2, and so no ensemble. Omit --ensemble"):
            build_predictor(run, 2, "logits")


def test_an_untrained_run_predicts_nothing(tmp_path: Path) -> None:
    with (
        RunFile(make_run(tmp_path / "run.h5", mode="untrained")) as run,
        pytest.raises(UserError, match=r"no trained auxiliary classifier \(mode untrained\), .* --mode greedy"),
    ):
        build_predictor(run)


@pytest.mark.parametrize("depth", [0, 3, -1])
def test_a_depth_without_an_auxiliary_is_named(depth: int, run_path: Path) -> None:
    with (
        RunFile(run_path) as run,
        pytest.raises(UsageError, match=rf"--depth is {depth}, but .* auxiliary classifiers at 1 to 2\."),
    ):
        build_predictor(run, depth)


def test_an_unknown_weighting_or_input_is_answered_by_the_choices(run_path: Path) -> None:
    with RunFile(run_path) as run:
        with pytest.raises(UsageError, match="unknown ensemble 'logit'. Did you mean 'logits'\\? Choices: logits"):
            build_predictor(run, 1, "logit")
        with pytest.raises(UsageError, match="unknown input 'int8'. .*Choices: uint8, float, normalised"):
            build_predictor(run, takes="int8")
