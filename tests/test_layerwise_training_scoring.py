"""Scores of a run: those of mirrored images stand apart, and change nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_run, small_config

from layerwise.activations import load_network
from layerwise.commandline import call
from layerwise.commands.train import train
from layerwise.datasets import load_dataset
from layerwise.errors import UsageError
from layerwise.runfile import RunFile


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the same training, scored without and with mirrored images."""
    folder = tmp_path_factory.mktemp("mirrored")
    return make_run(folder / "plain.h5"), make_run(folder / "mirrored.h5", mirrored=True)


def test_the_mirrored_score_is_of_the_mean_of_both_logits(both: tuple[Path, Path]) -> None:
    with RunFile(both[1]) as run:
        network, split = load_network(run, torch.device("cpu")), load_dataset("digits", holdout=0.1).splits["test"]
        assert network is not None
        images = torch.from_numpy(split.images)
        for j in (1, 2):
            logits = 0.0
            for seen in (images, images.flip(3)):
                x = network.normalise(seen)
                for block in network.blocks[:j]:
                    x = block(x)
                logits = logits + network.auxiliaries[j - 1](x).detach().numpy()
            expected = float((np.asarray(logits).argmax(1) == split.label).mean())
            assert run.scores(j)["mirrored_test_accuracy"] == expected
            assert "mirrored_train_accuracy" not in run.scores(j)


def test_top5_is_of_the_five_greatest_logits(both: tuple[Path, Path]) -> None:
    with RunFile(both[0]) as run:
        for j, split in ((1, "validation"), (2, "test")):
            five = np.argsort(-run.outputs(j, split), 1)[:, :5]
            expected = np.mean([own in row for own, row in zip(run.labels(split), five, strict=True)])
            assert run.scores(j)[f"{split}_accuracy_top5"] == expected > run.scores(j)[f"{split}_accuracy"]
            assert run.scores(j)["train_accuracy_top5"] > run.scores(j)["train_accuracy"]


def test_it_changes_no_other_score_and_no_output(both: tuple[Path, Path]) -> None:
    with RunFile(both[0]) as plain, RunFile(both[1]) as mirrored:
        for j in (1, 2):
            kept = {name: value for name, value in mirrored.scores(j).items() if not name.startswith("mirrored")}
            assert kept == plain.scores(j)
            for split in ("validation", "test"):
                np.testing.assert_array_equal(plain.outputs(j, split), mirrored.outputs(j, split))


def test_the_command_prints_it_in_a_line_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.h5"
    small = ["--depth", "2", "--width", "6", "--aux-width", "5", "--epochs", "1", "--device", "cpu"]
    assert call(train, "layerwise-train", [*small, "--set", "mirrored=true", "--out", str(path)]) == 0
    with RunFile(path) as run:
        told = ", ".join(f"{run.scores(j)['mirrored_test_accuracy']:.2%}" for j in (1, 2))
    assert f"with the mirror image averaged in (test-time augmentation), test: {told}\n" in capsys.readouterr().out


@pytest.mark.parametrize("fields", [{"network.k": 1}, {"network.k": 2, "network.architecture": "paired"}])
def test_auxiliaries_that_cannot_be_halved_are_refused(fields: dict[str, Any]) -> None:
    gelu = {"network.activation": "gelu"} if "network.architecture" in fields else {}
    message = "network.aux_halving is True, but must be false where auxiliaries have no convolutions or are not plain"
    with pytest.raises(UsageError, match=message):
        small_config(**fields, **gelu, **{"network.aux_halving": True})
