"""The Python API of layerwise: what the commands do, what helps in a notebook, and no torch until it is asked for."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_networks import SmallNet, made_dataset
from torch.utils.data import DataLoader, TensorDataset

import layerwise
from layerwise.activations import open_activations, pooled_features
from layerwise.datasets import load_dataset
from layerwise.errors import UsageError, UserError

SMALL = {"network.depth": 1, "network.width": 4, "network.aux_width": 4, "training.epochs": 1, "precision": "fp32"}


def test_importing_it_loads_no_torch_until_a_function_is_asked_for() -> None:
    code = (
        "import sys, layerwise, probes, figures\n"
        "assert not {'torch', 'h5py', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert callable(layerwise.train) and 'torch' in sys.modules\n"
        "assert callable(probes.fit) and callable(figures.draw)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["layerwise", "probes", "figures"])
def test_other_names_are_no_attributes(name: str) -> None:
    module = __import__(name)
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nonsense'"):
        module.nonsense  # noqa: B018


def test_train_takes_a_recipe_and_settings_and_returns_the_open_run(tmp_path: Path) -> None:
    with layerwise.train("digits", out=tmp_path / "run.h5", settings=SMALL | {"seed": 3}, device="cpu") as run:
        assert run.config is not None
        assert (run.config.seed, run.depths) == (3, [0, 1])
        assert "greedy, k = 2, digits (train 1295, validation 143, test 359), depths 0..1" in repr(run)
        rows = run.pooled(1, "test")
        assert repr(rows) == "Rows(/depths/01/test/pooled, 359 x 4 x 2 x 2, float16)"
        assert repr(open_activations(run, 1, "test")) == "Activations(depth 1, 359 images, recompute, on cpu)"
    with layerwise.open_run(tmp_path / "run.h5") as again:
        assert again.config is not None
    with pytest.raises(UserError, match="exists already. Give another name, or force=True to replace it"):
        layerwise.train(out=tmp_path / "run.h5")


def test_data_have_a_repr_without_their_pixels() -> None:
    data = made_dataset()
    assert repr(data) == "Dataset(made: 3 classes, images of 1 x 8 x 8; train 60, validation 30, test 30)"
    assert repr(data.splits["test"]) == "Split(30 images of 1 x 8 x 8, 3 classes)"


def loader(n: int) -> DataLoader[tuple[torch.Tensor, ...]]:
    x = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(n))
    return DataLoader(TensorDataset(x, torch.arange(n) % 2), batch_size=7)


@pytest.mark.parametrize("level", [logging.NOTSET, logging.WARNING])
def test_what_is_assumed_is_said_in_python_too_where_no_logging_is_set_up(
    level: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("layerwise")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(log, "handlers", [])
    log.setLevel(level)
    layerwise.extract_network(SmallNet(), made_dataset(), out=tmp_path / "run.h5", trained_on="train-fold").close()
    said = capsys.readouterr().err
    assert ("images: 1x8x8 as they are; mean " in said) == (level == logging.NOTSET)
    assert log.handlers == [] and log.level == level
    log.setLevel(logging.NOTSET)


def test_a_network_runs_over_data_loaders_as_they_are(tmp_path: Path) -> None:
    net, loaders = SmallNet(), {"train": loader(60), "test": loader(20)}
    words = {"out": tmp_path / "run.h5", "trained_on": "other-data", "device": "cpu"}
    with layerwise.extract_network(net, loaders, data_name="mine", classes=("a", "b"), **words) as run:
        assert (run.dataset["name"], run.dataset["classes"], run.network_name) == ("mine", ["a", "b"], "SmallNet")
        assert {split: len(run.labels(split)) for split in run.splits} == {"train": 54, "validation": 6, "test": 20}
        inputs = loaders["train"].dataset.tensors[0][run.indices("validation")]
        for depth, expected in ((0, inputs), (1, net.conv1(inputs))):
            stored = torch.cat(list(open_activations(run, depth, "validation").batches()))
            torch.testing.assert_close(stored, expected, rtol=2**-10, atol=1e-4)
        assert run.images("test") is None
    with pytest.raises(UsageError, match="classes names 1, but labels reach to 1; name every class"):
        layerwise.extract_network(net, loaders, classes=("a",), force=True, **words)
    with pytest.raises(UsageError, match="data is a tuple; expected a data set of layerwise.datasets.load_dataset, or"):
        layerwise.extract_network(net, (np.zeros(3), np.zeros(3)), force=True, **words)
    with layerwise.extract_network(net, loaders, force=True, **words | {"trained_on": "train-split"}) as run:
        assert run.splits == ["train", "test"]


def test_loaders_must_agree_with_what_the_network_was_trained_on(tmp_path: Path) -> None:
    net, loaders = SmallNet(), {"train": loader(60), "test": loader(20)}
    out, folds = tmp_path / "run.h5", loaders | {"validation": loader(10)}
    with pytest.raises(UserError, match="loaders has a validation split, but trained_on='train-split' says that no"):
        layerwise.extract_network(net, folds, out=out, trained_on="train-split", device="cpu")
    with pytest.raises(UserError, match="loaders has no validation split, but trained_on='train-fold' says that one"):
        layerwise.extract_network(net, loaders, out=out, trained_on="train-fold", device="cpu")
    assert not out.exists()
    with layerwise.extract_network(net, folds, out=out, trained_on="train-fold", device="cpu") as run:
        assert len(run.labels("validation")) == 10


def test_arrays_in_memory_or_in_a_file(tmp_path: Path) -> None:
    arrays = {"layer": np.random.default_rng(0).normal(size=(60, 3)), "labels": np.arange(60) % 3}
    words = {"trained_on": "other-data", "label": "theirs", "data_name": "set"}
    with layerwise.extract_arrays(arrays, out=tmp_path / "a.h5", **words) as run:
        assert (run.network_name, run.dataset["name"], run.depths) == ("theirs", "set", [1])
        digest = run.dataset["fingerprint"]
    np.savez(tmp_path / "b.npz", **arrays)
    with layerwise.extract_arrays(str(tmp_path / "b.npz"), out=tmp_path / "b.h5", **words) as run:
        assert run.dataset["fingerprint"] == digest


def test_layers_in_a_list_and_one_number_for_all_channels(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Conv2d(2, 2, 3))
    words: dict[str, Any] = {"trained_on": "nothing", "quiet": True}
    data = load_dataset("digits", holdout=0.1)
    made = layerwise.extract_network(net, data, out=tmp_path / "a.h5", layers=["0", "2"], mean=0.5, std=[0.2], **words)
    with made as run:
        assert run.depths == [0, 1, 2] and run.dataset["normalisation"] == {"mean": [0.5], "std": [0.2]}
    for model in (net.state_dict(), torch.nn.Conv2d, 3):
        with pytest.raises(UsageError, match="but a torch.nn.Module, with its weights, is needed"):
            layerwise.extract_network(model, data, out=tmp_path / "b.h5", **words)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="arrays is a ndarray; expected a file, or arrays by name"):
        layerwise.extract_arrays(np.ones((3, 4)), out=tmp_path / "b.h5", **words)  # type: ignore[arg-type]


def test_names_of_splits_depths_and_groups_of_fields_are_checked(own_run: Path, tmp_path: Path) -> None:
    with layerwise.open_run(own_run) as run:
        for read in (run.labels, run.indices, lambda split: open_activations(run, 1, split)):
            with pytest.raises(UsageError, match="unknown split 'tests'. Did you mean 'test'"):
                read("tests")
        with pytest.raises(UsageError, match="unknown depth '9'"):
            open_activations(run, 9, "test")
        with pytest.raises(UsageError, match="side is 1.5; expected that of the average A, from 1 on, or 0"):
            pooled_features(run, 1, "test", side=1.5)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="training is no field, but a group of them. .* such as training.epochs"):
        layerwise.train(out=tmp_path / "a.h5", settings={"training": {"epochs": 1}})
    with pytest.raises(UsageError, match="data_dir="):
        load_dataset("cifar10", holdout=0.1)
    with pytest.raises(UsageError, match=r"data.holdout is 0.9, but must be a share in \[0, 0.5\]"):
        load_dataset("digits", holdout=0.9)


def test_what_a_call_made_is_to_be_made_again_by_that_call(tmp_path: Path) -> None:
    arrays = {"layer": np.zeros((60, 2, 6, 6)), "labels": np.arange(60) % 3}
    words = {"out": tmp_path / "run.h5", "trained_on": "other-data", "store": "pooled"}
    with (
        layerwise.extract_arrays(arrays, **words) as run,
        pytest.raises(UserError, match=r"with store=.maps. and another out=..., as /provenance says it was made\.$"),
    ):
        open_activations(run, 1, "test", source="stored")
