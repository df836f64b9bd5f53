"""layerwise-extract as people type it, and its files in every probe and figure beside a greedy run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

from figures.commands.separability import separability_figure as figure
from layerwise.commandline import call
from layerwise.commands.extract import extract
from layerwise.commands.inspect import inspect
from layerwise.commands.train import train
from layerwise.config import DataConfig
from layerwise.datasets import load_configured
from layerwise.runfile import RunFile
from probes.cli import probe

RESNET = ["torchvision:resnet18", "--model-arg", "num_classes=10", "--image-size", "32", "--device", "cpu"]
NETS = """
from torchvision.models import VisionTransformer

def vit(depth=2):
    return VisionTransformer(image_size=16, patch_size=4, num_layers=depth, num_heads=2, hidden_dim=16, mlp_dim=32)
"""


def run_extract(*words: str) -> int:
    return call(extract, "layerwise-extract", list(words))


@pytest.fixture
def nets(tmp_path: Path) -> str:
    (tmp_path / "nets.py").write_text(NETS)
    return f"{tmp_path}/nets.py:vit"


@pytest.fixture
def data(request: pytest.FixtureRequest) -> DataConfig:
    """Return 200 images of CIFAR-10 where real data sets are at hand, else of the digits."""
    if not os.environ.get("LAYERWISE_DATA"):
        return DataConfig(dataset="digits", subset=200)
    request.getfixturevalue("some_cifar10")
    return DataConfig(dataset="imagefolder", subset=200, label="cifar10")


def trained_resnet(path: Path, data: DataConfig, data_dir: Path | None) -> None:
    """Train a ResNet-18 for some steps on the train fold and save its weights, as a user would."""
    fold = load_configured(data, data_dir).splits["train"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = resnet18(num_classes=10)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
        x = torch.from_numpy(fold.images).expand(-1, 3, -1, -1) / 255.0
        x = torch.nn.functional.interpolate(x, size=32, mode="bilinear", antialias=True)
        for rows in torch.arange(len(x)).repeat(2).split(60):
            optimizer.zero_grad()
            cross_entropy(net(x[rows]), torch.from_numpy(fold.label)[rows]).backward()
            optimizer.step()
    torch.save({"state_dict": {f"module.{name}": value for name, value in net.state_dict().items()}}, path)


def test_networks_built_elsewhere_stand_beside_a_greedy_run_in_one_figure(
    data: DataConfig,
    request: pytest.FixtureRequest,
    nets: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = request.getfixturevalue("some_cifar10") if data.dataset == "imagefolder" else None
    trained_resnet(tmp_path / "w.pt", data, root)
    words = ["--dataset", data.dataset, "--subset", "200", "--set", f"data.label={data.label or 'digits'}"]
    words += ["--data-dir", str(root)] if root else []
    saved = ["--weights", str(tmp_path / "w.pt"), "--trained-on", "train-fold", "--mean", "0", "--std", "1"]
    runs = {name: tmp_path / f"{name}.h5" for name in ("untrained", "trained", "vit", "greedy")}
    assert run_extract(*RESNET, *words, "--store", "maps", "--out", str(runs["untrained"])) == 0
    assert run_extract(*RESNET, *words, *saved, "--store", "maps", "--out", str(runs["trained"])) == 0
    vit = [nets, "--trained-on", "nothing", "--label", "ViT", "--image-size", "16"]
    assert run_extract(*vit, *words, "--store", "maps", "--out", str(runs["vit"])) == 0
    small = ["--depth", "2", "--width", "6", "--aux-width", "5", "--epochs", "1", "--k", "2"]
    small += ["--set", "network.downsample=2", "--device", "cpu", "--out", str(runs["greedy"])]
    assert call(train, "layerwise-train", ["cifar10-small", *words, *small]) == 0
    capsys.readouterr()
    for path in runs.values():
        probes = ["--probe", "linear,cnn-1", "--probe-width", "4", "--epochs", "1", "--device", "cpu", "--no-pixels"]
        assert call(probe, "probe-depth", [str(path), *probes]) == 0
    said = capsys.readouterr().err
    assert "no CNN probe is fitted at depth 5, whose maps are smaller than 2x2" in said
    paths = [str(path) for path in runs.values()]
    assert call(figure, "separability-figure", [*paths, "-o", str(tmp_path / "any.pdf"), "--size", "double"]) == 0
    out, said = capsys.readouterr()
    # An epoch at this size may be none: then that is said, and nothing else.
    assert all("greedy.h5 did not train" in line for line in said.splitlines())
    assert "k = 2, greedy" in out and "ViT; resnet18; resnet18, untrained: one network" in out
    points = pd.read_csv(tmp_path / "any.csv")
    for name, deepest in (("linear", 5), ("cnn-1", 4)):
        depths = points[points["probe"] == name].groupby("mode")["depth"].max()
        assert depths.to_dict() == {"greedy": 2, "resnet18": deepest, "resnet18, untrained": deepest, "ViT": 2}
    last = points[(points["mode"] == "resnet18") & (points["probe"] == "linear") & (points["depth"] == 4)]
    assert last["ci_low"].item() > 0.1  # above chance
    rows = pd.read_csv(tmp_path / "vit.probes.csv")
    assert rows["k"].isna().all() and rows["mode"].isna().all() and set(rows["network"]) == {"ViT"}
    assert set(rows["module"]) == {"input", "encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"}
    assert call(inspect, "layerwise-inspect", [str(runs["trained"]), "--verify"]) == 0
    out = capsys.readouterr().out
    assert "network         resnet18, trained on: train-fold, seed 0" in out and '"file": "w.pt"' in out


def test_a_network_of_the_users_own_over_arrays_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    label = np.arange(90) % 3
    path = tmp_path / "features.npz"
    np.savez(path, a=rng.normal(size=(90, 4)), b=rng.normal(size=(90, 4)) + 3 * np.eye(4)[label], labels=label)
    out = tmp_path / "run.h5"
    words = ["--from", str(path), "--trained-on", "other-data", "--out", str(out)]
    assert run_extract(*words, "--list-layers") == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split() for line in listed] == [["1", "a", "4", "vector"], ["2", "b", "4", "vector"]]
    assert run_extract(*words) == 0
    assert call(probe, "probe-depth", [str(out)]) == 0
    rows = pd.read_csv(tmp_path / "run.probes.csv")
    final = rows[(rows["split"] == "test") & (rows["metric"] == "accuracy") & (rows["refit"] == 1)]
    assert final.set_index("module")["value"]["b"] > 0.9 > final.set_index("module")["value"]["a"]
    assert set(final["n_features"]) == {4}
    capsys.readouterr()
    for words, message in (
        (["--probe", "cnn-1"], "has no depth with maps of at least 2x2, as CNN probes need. Use --probe linear"),
        (
            ["--control", "teacher"],
            "was made from arrays without their inputs, of which --control teacher makes",
        ),
    ):
        assert call(probe, "probe-depth", [str(out), *words]) == 1
        assert message in capsys.readouterr().err
    assert call(probe, "probe-depth", [str(out), "--features", "matched", "--control", "permuted"]) == 0


def test_list_layers_shows_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_extract(*RESNET, "--list-layers") == 0
    out, err = capsys.readouterr()
    assert "* marks the layers that are read; --layers takes others, by name or pattern" in err
    starred = [line.split()[1] for line in out.splitlines() if line.startswith("*")]
    assert starred == ["maxpool", "layer1", "layer2", "layer3", "layer4"]
    assert "layer1.0.relu:2" in out
    assert list(tmp_path.iterdir()) == []


def test_dry_run_shows_the_bytes_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_extract(*RESNET, "--dry-run", "--store", "maps") == 0
    forecast = capsys.readouterr().out
    assert "the run file takes" in forecast and "nothing was written" in forecast
    assert run_extract(*RESNET, "--dry-run", "--store", "maps", "--max-size", "10MB") == 1
    out, err = capsys.readouterr()
    assert "maxpool" in out
    assert "--max-size allows 10.0 MB. What would make it fit: --store pooled" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--list-layers", "--dry-run"])
@pytest.mark.parametrize("kind", ["network", "arrays"])
def test_what_writes_nothing_need_not_know_what_the_network_was_trained_on(
    flag: str, kind: str, nets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "a.npz", encoder=np.zeros((60, 4)), labels=np.arange(60) % 3)
    words = [nets, "--image-size", "16", "--subset", "60"] if kind == "network" else ["--from", f"{tmp_path}/a.npz"]
    words += ["--out", str(tmp_path / "run.h5")]
    assert run_extract(*words, flag) == 0
    out, err = capsys.readouterr()
    assert "encoder" in out
    assert "To write the file, say it: --trained-on nothing, other-data or train-fold" in err
    assert run_extract(*words) == 2
    assert not (tmp_path / "run.h5").exists()


def test_the_folder_of_data_sets_in_the_environment_does_not_disturb_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "a.npz", layer=np.zeros((60, 4)), labels=np.arange(60) % 3)
    monkeypatch.setenv("LAYERWISE_DATA", str(tmp_path))
    assert run_extract("--from", f"{tmp_path}/a.npz", "--trained-on", "nothing", "--list-layers") == 0


def test_a_folder_that_is_typed_beside_bundled_data_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = f"--data-dir {tmp_path} is not read, for the data set is digits, which is bundled."
    monkeypatch.delenv("LAYERWISE_DATA", raising=False)
    assert run_extract(*RESNET, "--list-layers", "--data-dir", str(tmp_path)) == 0
    assert said in capsys.readouterr().err
    monkeypatch.setenv("LAYERWISE_DATA", str(tmp_path))
    assert run_extract(*RESNET, "--list-layers") == 0
    assert said not in capsys.readouterr().err


def test_the_forecast_is_what_the_file_takes(nets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [nets, "--trained-on", "nothing", "--image-size", "16", "--subset", "60", "--out", str(tmp_path / "run.h5")]
    assert run_extract(*words, "--dry-run") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("the run file takes"))
    assert run_extract(*words) == 0
    with RunFile(tmp_path / "run.h5") as run:
        held = sum(count for path, (_, _, count) in run.storage().items())
    from layerwise.units import show_size

    assert line.startswith(f"the run file takes {show_size(held)}:")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "give either a network, such as torchvision:resnet18, or arrays by --from FILE"),
        ([*RESNET, "--from", "x.npz"], 2, "give either a network"),
        *(
            (["--from", "x.npz", *given.split()], 2, f"{flag} speaks of a network or its images, but --from reads arr")
            for flag, given in (
                ("--image-size", "--image-size 3"),
                ("--subset", "--subset 9"),
                ("--dataset", "--dataset mnist"),
                ("--data-dir", "--data-dir ."),
                ("--download", "--download"),
                ("--batch-size", "--batch-size 3"),
                ("--set data.image_size", "--set data.image_size=9"),
            )
        ),
        (["--from", "x.npz"], 2, "arrays do not say whether their network has seen the validation fold"),
        (["--from", "x.npz", "--trained-on", "nothing"], 1, "x.npz does not exist; expected arrays"),
        (["resnet18"], 2, "network 'resnet18' is not understood"),
        (["torchvision:resnet19"], 2, "unknown network 'torchvision:resnet19'. Nearest: resnet18"),
        ([*RESNET, "--weights", "w.pt"], 2, "the weights do not say whether the network has seen the validation fold"),
        (
            [*RESNET, "--weights", "w.pt", "--trained-on", "other-data"],
            1,
            "w.pt does not exist; expected a file of wei",
        ),
        ([*RESNET, "--layers", "layer5"], 2, "no layer is named or matches 'layer5'. Nearest: layer"),
        ([*RESNET, "--layout", "last"], 2, "unknown --layout 'last'."),
        ([*RESNET, "--tokens", "cls"], 2, "unknown --tokens 'cls'. Did you mean 'class'"),
        ([*RESNET, "--model-arg", "num_classes"], 2, "--model-arg 'num_classes' is not understood; write NAME=VALUE"),
        ([*RESNET, "--mean", "a"], 2, "--mean is 'a', but takes numbers with commas, or data"),
        ([*RESNET, "--std", "1,2"], 2, "--std has 2 values, but takes one, or one for each of 3 channels"),
        ([*RESNET, "--dataset", "digitz"], 2, "unknown data set 'digitz'. Did you mean 'digits'"),
        ([*RESNET, "--dataset", "svhn"], 2, "svhn is not bundled"),
        ([*RESNET, "--holdout", "0.9"], 2, "data.holdout is 0.9, but must be a share in [0, 0.5]"),
        ([*RESNET, "--set", "network.k=2"], 2, "--set 'network.k=2' is not understood; it takes data.label=NAME or"),
        ([*RESNET, "--set", "data.image_size=9"], 2, "data.image_size is 9, but must be 0 for digits"),
        ([*RESNET, "--store", "all"], 2, "unknown store 'all'"),
        ([*RESNET, "--batch-size", "0"], 2, "--batch-size is 0, but must be a number of images"),
        ([*RESNET, "--out", "run.txt"], 2, "--out is 'run.txt', but a run file's name ends in .h5"),
        ([*RESNET, "--dry-run", "--download"], 2, "--dry-run writes nothing, so it cannot --download"),
        ([*RESNET, "--out", "no/such/run.h5"], 1, "the folder no/such does not exist"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LAYERWISE_DATA", raising=False)
    assert run_extract(*words, "--quiet") == code
    err = capsys.readouterr().err.strip()
    assert err.startswith(f"layerwise-extract: {message}")
    assert "\n" not in err
    assert not list(tmp_path.iterdir())


def test_a_depth_without_stored_maps_says_which_command_stores_them(
    nets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run.h5"
    words = [nets, "--trained-on", "nothing", "--image-size", "16", "--subset", "60", "--label", "a ViT"]
    words += ["--store", "pooled", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/layerwise-extract", *words])
    assert run_extract(*words) == 0
    capsys.readouterr()
    assert call(probe, "probe-depth", [str(out), "--probe", "cnn-1", "--epochs", "1", "--probe-width", "2"]) == 1
    err = capsys.readouterr().err
    command = f"layerwise-extract {nets} --trained-on nothing --image-size 16 --subset 60 --label 'a ViT'"
    assert f"Make it again with --store maps and another --out, as /provenance says it was made (`{command}" in err
    assert "--force" not in err


def test_labels_of_one_name_are_told_apart_by_words(
    nets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [nets, "--trained-on", "nothing", "--image-size", "16", "--subset", "60", "--layers", "encoder.layers.*"]
    paths = [tmp_path / f"{name}.h5" for name in "abc"]
    for path, seed in zip(paths, ("0", "1", "0"), strict=True):
        assert run_extract(*words, "--seed", seed, "--out", str(path)) == 0
        assert call(probe, "probe-depth", [str(path), "--depths", "2"]) == 0
    capsys.readouterr()
    figure_words = ["-o", str(tmp_path / "f.pdf")]
    assert call(figure, "separability-figure", [str(paths[0]), str(paths[2]), *figure_words]) == 1
    assert (
        "are both called 'vit, untrained', of one seed. Extract one of them under another --label"
        in capsys.readouterr().err
    )
    assert call(figure, "separability-figure", [str(paths[0]), str(paths[1]), *figure_words]) == 0
    assert "mean of 2 networks (2 seeds)" in capsys.readouterr().out
