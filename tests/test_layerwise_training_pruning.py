"""Compression: saliency against removing filters for real, narrow networks against zeroed ones, what a run keeps."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_run, small_config
from reference import removed, slow_saliency
from scipy.stats import spearmanr
from torch import Tensor, nn

from analysis.training import training_curves
from figures.commands.separability import separability_figure
from layerwise.activations import load_network, open_activations
from layerwise.commandline import call
from layerwise.commands.inspect import inspect
from layerwise.commands.train import train
from layerwise.config import NetworkConfig, RunConfig
from layerwise.datasets import load_dataset
from layerwise.errors import UsageError, UserError
from layerwise.model.blocks import AuxiliaryClassifier, Block
from layerwise.model.narrowing import narrow
from layerwise.model.network import LayerwiseNetwork, freeze
from layerwise.runfile import RunFile
from layerwise.training.batches import DeviceSplit
from layerwise.training.pruning import most_salient, prune, saliencies
from probes.cli import probe

WIDE = {"network.k": 2, "network.width": 24, "network.aux_width": 16, "network.depth": 1, "training.epochs": 4}
PRUNED = {"network.depth": 2, "network.k": 3, "network.prune_to": 3, "training.finetune_epochs": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run of one trained block of 24 filters."""
    return make_run(tmp_path_factory.mktemp("trained") / "run.h5", **WIDE)


@pytest.fixture(scope="module")
def pruned_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("pruned") / "run.h5", store="maps", **PRUNED)


def parts(path: Path) -> tuple[LayerwiseNetwork, Tensor, Tensor]:
    """Return the network of a run in float64, and x_0 and labels of its train fold."""
    with RunFile(path) as run:
        network = load_network(run, torch.device("cpu"))
        assert network is not None
        images = run.images("train")
        assert images is not None
        x = network.normalise(torch.from_numpy(images[:])).double()
        return network.double(), x, torch.from_numpy(run.labels("train"))


def test_saliency_is_the_slope_of_each_images_loss_along_the_filter(trained: Path) -> None:
    network, x, y = parts(trained)
    block, auxiliary = network.blocks[0], network.auxiliaries[0]
    found = saliencies(block, auxiliary, [(x[:300], y[:300]), (x[300:400], y[300:400])])
    with torch.no_grad():
        maps = block(x[:400])
    # No relu of the auxiliary may change sign within the step, so it is short; float64 leaves nine digits of the slope.
    np.testing.assert_allclose(found, slow_saliency(auxiliary, maps, y[:400], 1e-6), rtol=1e-6, atol=1e-9)


def test_saliency_ranks_filters_nearly_as_removing_them_for_real_does(trained: Path) -> None:
    network, x, y = parts(trained)
    block, auxiliary = network.blocks[0], network.auxiliaries[0]
    x, y = x[:400], y[:400]
    saliency = saliencies(block, auxiliary, [(x, y)])
    with torch.no_grad():
        maps = block(x)
    change = removed(auxiliary, maps, y)
    assert spearmanr(saliency, np.abs(change).mean(1)).statistic > 0.8
    rng = np.random.default_rng(0)

    def loss_without(gone: np.ndarray) -> float:
        cut = maps.clone()
        cut[:, torch.from_numpy(gone)] = 0
        with torch.no_grad():
            return float(nn.functional.cross_entropy(auxiliary(cut), y))

    least = loss_without(np.argsort(saliency)[:12])
    assert least < np.mean([loss_without(rng.permutation(24)[:12]) for _ in range(20)])
    assert least < loss_without(np.argsort(-saliency)[:12])


def test_the_most_salient_stay_in_their_order_and_of_equals_the_first() -> None:
    assert most_salient(np.array([0.1, 3.0, 0.0, 2.0]), 2).tolist() == [1, 3]
    assert most_salient(np.array([1.0, 0.0, 1.0, 1.0]), 2).tolist() == [0, 2]


@pytest.mark.parametrize(("k", "batch_norm"), [(1, False), (1, True), (2, True), (3, False), (3, True)])
def test_a_narrow_network_computes_what_the_whole_one_does_of_zeroed_maps(k: int, batch_norm: bool) -> None:
    torch.manual_seed(0)
    block = Block(2, 7, downsampling=True, batch_norm=batch_norm, bias=not batch_norm)
    auxiliary = AuxiliaryClassifier(7, 4, k=k, width=5, batch_norm=batch_norm)
    for module in (*block.modules(), *auxiliary.modules()):
        if isinstance(module, nn.BatchNorm2d):  # as after training: nothing at its first value
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    freeze(block)
    freeze(auxiliary)
    x, kept = torch.randn(6, 2, 8, 8), np.array([0, 2, 5])
    zeroed = block(x)
    zeroed[:, [1, 3, 4, 6]] = 0
    cut_block, cut = copy.deepcopy(block), copy.deepcopy(auxiliary)
    before = torch.get_rng_state()
    narrow(cut_block, cut, kept)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(cut_block(x), zeroed[:, kept], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(cut(cut_block(x)), auxiliary(zeroed), rtol=1e-4, atol=1e-5)
    assert not any(m.training for part in (cut_block, cut) for m in part.modules())


def test_pruning_takes_the_filters_of_least_saliency_and_keeps_what_was_before() -> None:
    config = small_config(**{"network.prune_to": 4})
    data = load_dataset("digits", holdout=0.1)
    network = LayerwiseNetwork(config.network, data.image_shape, 10, data.mean, data.std, 0)
    weight = network.blocks[0].conv.weight.detach().clone()
    record = prune(network, DeviceSplit(data.splits["train"], torch.device("cpu")), 1, 64)
    assert record.kept.tolist() == sorted(np.argsort(-record.saliency)[:4].tolist())
    assert np.array_equal(record.before["block/conv.weight"], weight.numpy())
    assert torch.equal(network.blocks[0].conv.weight, weight[record.kept])
    assert network.blocks[1].conv.in_channels == 4


def test_a_run_is_before_pruning_what_one_without_it_is(pruned_path: Path, tmp_path: Path) -> None:
    """Block 1 is trained as if nothing were pruned, and its saliency is that of the trained pair on the train fold."""
    alone = make_run(tmp_path / "alone.h5", **PRUNED | {"network.prune_to": 0, "network.depth": 1})
    with RunFile(pruned_path) as run, RunFile(alone) as whole:
        found = run.pruning(1)
        assert found is not None
        kept, saliency, accuracy = found
        for split in ("train", "validation", "test"):
            assert accuracy[f"before_{split}_accuracy"] == whole.scores(1)[f"{split}_accuracy"]
            assert accuracy[f"finetuned_{split}_accuracy"] == run.scores(1)[f"{split}_accuracy"]
        before, after = whole.weights("blocks", 1), run.weights("blocks", 1)
        assert before is not None
        assert after is not None
        assert np.array_equal(after["conv.weight"], before["conv.weight"][kept])
        assert np.array_equal(after["norm.running_var"], before["norm.running_var"][kept])
    network, x, y = parts(alone)
    expected = saliencies(network.blocks[0], network.auxiliaries[0], [(x, y)])
    np.testing.assert_allclose(saliency, expected, rtol=1e-4, atol=1e-7)


def test_the_accuracy_right_after_pruning_is_that_of_zeroed_maps(pruned_path: Path, tmp_path: Path) -> None:
    alone = make_run(tmp_path / "alone.h5", **PRUNED | {"network.prune_to": 0, "network.depth": 1})
    network, _, _ = parts(alone)
    with RunFile(pruned_path) as run:
        kept, saliency, accuracy = run.pruning(1)  # type: ignore[misc]
        images, y = run.images("test"), run.labels("test")
        assert images is not None
        maps = network.blocks[0](network.normalise(torch.from_numpy(images[:])).double())
    maps[:, sorted(set(range(len(saliency))) - set(kept.tolist()))] = 0
    assert accuracy["pruned_test_accuracy"] == (network.auxiliaries[0](maps).argmax(1).numpy() == y).mean()


def test_history_counts_fine_tuning_on_and_shapes_are_the_narrow_ones(pruned_path: Path) -> None:
    with RunFile(pruned_path) as run:
        history = run.history()
        assert history is not None
        assert [(row["block"], row["epoch"]) for row in history] == [(j, e) for j in (1, 2) for e in range(4)]
        rates = history["learning_rate"][:4]
        assert rates.tolist() == [0.1, 0.1, 0.01, 0.01]
        assert [run.depth_shape(j)[0] for j in range(3)] == [1, 3, 3]


def test_widths_double_where_the_blocks_do(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run.h5", **PRUNED | {"network.downsample": (2,)})
    with RunFile(path) as run:
        assert [run.depth_shape(j) for j in (1, 2)] == [(3, 8, 8), (6, 4, 4)]
        assert [len(run.pruning(j)[1]) for j in (1, 2)] == [6, 12]  # type: ignore[index]


def test_the_network_of_the_file_repeats_its_maps_and_scores(pruned_path: Path) -> None:
    with RunFile(pruned_path) as run:
        network = load_network(run, torch.device("cpu"))
        assert network is not None
        for depth in (1, 2):
            stored = torch.cat(list(open_activations(run, depth, "test", source="stored").batches()))
            again = torch.cat(list(open_activations(run, depth, "test", source="recompute").batches()))
            torch.testing.assert_close(stored, again, rtol=2.0**-11, atol=1e-5)
        correct = network.auxiliaries[1](again).argmax(1).numpy() == run.labels("test")
        assert correct.mean() == run.scores(2)["test_accuracy"]


def test_a_pruned_run_is_probed_and_drawn_as_any_other(
    pruned_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its depths have fewer channels than M; probes count the features that are there, auxiliaries score the same."""
    path = shutil.copy(pruned_path, tmp_path / "run.h5")
    words = [str(path), "--probe", "linear,ncm,auxiliary,ensemble", "--no-pixels", "--quiet"]
    assert call(probe, "probe-depth", words) == 0
    table = pd.read_csv(path.with_suffix(".probes.csv"))
    assert set(table.variant) == {"pruned to 3"}
    linear = table[(table.probe == "linear") & (table.split == "test") & (table.metric == "accuracy")]
    features = linear.groupby("depth")[["channels", "n_features"]].max()
    assert features.to_numpy().tolist() == [[1, 4], [3, 12], [3, 12]]
    own = table[(table.probe == "auxiliary") & (table.split == "test") & (table.metric == "accuracy")]
    with RunFile(path) as run:
        for depth in (1, 2):
            kept = run.pruning(depth)[2]["finetuned_test_accuracy"]  # type: ignore[index]
            assert own[own.depth == depth].value.item() == pytest.approx(kept, rel=1e-13)  # of 14 digits in the table
    words = [str(path), "-o", str(tmp_path / "figure.pdf"), "--quiet"]
    assert call(separability_figure, "separability-figure", words) == 0
    assert (tmp_path / "figure.pdf").exists()
    capsys.readouterr()


def test_training_curves_go_on_through_fine_tuning_and_are_not_averaged_with_those_without(
    pruned_path: Path, tmp_path: Path
) -> None:
    curves = training_curves([pruned_path])
    assert sorted(curves[curves.block == 2].epoch.unique()) == [1, 2, 3, 4]
    whole = make_run(tmp_path / "whole.h5", **PRUNED | {"network.prune_to": 0})
    with pytest.raises(UserError, match=r"the runs are of different numbers of epochs: 2 \(.*; 4 \("):
        training_curves([pruned_path, whole])


def test_a_kept_prefix_trains_the_same_network(tmp_path: Path) -> None:
    still = PRUNED | {"training.crop_padding": 0}
    files = [make_run(tmp_path / f"{p}.h5", **still | {"training.prefix": p}) for p in ("cache", "recompute")]
    with RunFile(files[0]) as kept, RunFile(files[1]) as anew:
        for j in (1, 2):
            a, b = kept.weights("auxiliaries", j), anew.weights("auxiliaries", j)
            assert a is not None
            assert b is not None
            for name, value in a.items():
                np.testing.assert_allclose(value, b[name], rtol=1e-4, atol=1e-5)


def test_one_pruned_block_alone_can_keep_its_output_while_its_auxiliary_is_fine_tuned(tmp_path: Path) -> None:
    fields = {"network.depth": 1, "training.crop_padding": 0, "training.prefix": "cache"}
    with RunFile(make_run(tmp_path / "run.h5", **PRUNED | fields)) as run:
        assert run.config is not None
        assert run.config.training.prefix == "cache"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"network.prune_to": 6}, "network.prune_to is 6, but must be fewer filters than M = 6; 0 for all"),
        ({"network.prune_to": -1}, "network.prune_to is -1, but must be fewer filters than M = 6"),
        ({"network.prune_to": 3, "mode": "parallel"}, "network.prune_to is 3, but must be 0 in mode parallel: greedy"),
        ({"training.finetune_epochs": 0}, "training.finetune_epochs is 0, but must be an integer of at least 1"),
        ({"training.finetune_rate": 0.0}, "training.finetune_rate is 0.0, but must be a finite number above 0"),
        ({"network.last_aux_width": -1}, "network.last_aux_width is -1, but must be a number of channels"),
        (
            {"network.last_aux_width": 4, "network.k": 1},
            "network.last_aux_width is 4, but must be 0 at k = 1, whose auxiliaries are linear",
        ),
    ],
)
def test_what_cannot_be_pruned_is_said(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        small_config(**fields)


def test_a_configuration_of_before_there_was_pruning_prunes_nothing() -> None:
    text = small_config().to_json()
    for name in ("last_aux_width", "prune_to"):
        text = text.replace(f'"{name}": 0, ', "").replace(f', "{name}": 0', "")
    assert "prune_to" not in text
    network = RunConfig.from_json(text).network
    assert (network.prune_to, network.last_aux_width) == (0, 0)
    assert network == NetworkConfig(depth=2, width=6, k=2, aux_width=5)


def test_the_command_prunes_and_shows_the_three_states(
    tmp_path: Path, some_cifar10: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On real images of 32x32: train, prune, look, probe what is recomputed."""
    path = str(tmp_path / "run.h5")
    words = [
        "cifar10-small", "--dataset", "imagefolder", "--data-dir", str(some_cifar10), "--subset", "0", "--k", "3",
        "--width", "8", "--aux-width", "8", "--depth", "2", "--epochs", "2", "--prune-to", "4", "--set",
        "network.downsample=", "--set", "training.finetune_epochs=1", "--device", "cpu", "--out", path,
    ]  # fmt: skip
    assert call(train, "layerwise-train", words) == 0
    out = capsys.readouterr().out
    assert " ".join(out.splitlines()[4].split()) == "block filters test: before pruned fine-tuned"
    assert max(map(len, out.splitlines()[:-1])) <= 80
    with RunFile(path) as run:
        for line, j in zip(out.splitlines()[5:7], (1, 2), strict=True):
            told = [f"{run.pruning(j)[2][f'{s}_test_accuracy']:.2%}" for s in ("before", "pruned", "finetuned")]  # type: ignore[index]
            assert line.split() == [str(j), "8", "->", "4", *told]
    assert call(inspect, "layerwise-inspect", [path]) == 0
    shown = capsys.readouterr().out
    assert "pruned          block 1: 8 -> 4 filters; test before" in shown
    assert call(probe, "probe-depth", [path, "--probe", "ncm,auxiliary", "--depths", "1-2"]) == 0
