"""layerwise-train and layerwise-inspect as people type them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from layerwise.commandline import call
from layerwise.commands.inspect import inspect
from layerwise.commands.train import train
from layerwise.runfile import RunFile

SMALL = ["--depth", "2", "--width", "6", "--aux-width", "5", "--epochs", "1", "--device", "cpu"]


def run_train(*words: str) -> int:
    return call(train, "layerwise-train", list(words))


def test_without_a_recipe_it_trains_on_digits_into_run_h5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_train(*SMALL) == 0
    out = capsys.readouterr().out
    assert "wrote run.h5" in out
    assert " ".join(out.splitlines()[0].split()) == "depth C x H x W train validation test ensemble test"
    with RunFile("run.h5") as run:
        assert run.config is not None
        assert run.config.recipe == "digits"
        assert f"{run.scores(2)['test_accuracy']:.2%}" in out


def test_flags_replace_fields_of_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    flags = ["--k", "1", "--seed", "3", "--holdout", "0.2", "--mode", "untrained", "--store", "maps"]
    assert run_train("digits", *SMALL, *flags, "--set", "network.downsample=2", "--out", str(path)) == 0
    with RunFile(path) as run:
        config = run.config
        assert config is not None
        assert (config.network.k, config.seed, config.data.holdout, config.mode) == (1, 3, 0.2, "untrained")
        assert config.store == "maps"
        assert run.depth_shape(2) == (12, 4, 4)
        assert run.history() is None
        assert run.scores(1) == {}


def test_the_data_set_alone_takes_its_own_recipe(tmp_path: Path, data_dir: Path) -> None:
    path = tmp_path / "run.h5"
    words = [
        "--dataset",
        "fashion-mnist",
        "--data-dir",
        str(data_dir),
        "--mode",
        "untrained",
        "--width",
        "2",
        "--depth",
        "1",
    ]
    assert run_train(*words, "--set", "network.downsample=", "--out", str(path), "--device", "cpu") == 0
    with RunFile(path) as run:
        assert run.config is not None
        assert run.config.recipe == "fashion-mnist"
        assert len(run.labels("train")) == 54_000


def test_holdout_0_leaves_no_validation_split(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    assert run_train(*SMALL, "--holdout", "0", "--out", str(path)) == 0
    with RunFile(path) as run:
        assert run.splits == ["train", "test"]
        assert {"train_accuracy", "test_accuracy"} <= set(run.scores(1))
        assert not any("validation" in name for name in run.scores(1))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["digit"], 2, "unknown recipe 'digit'. Did you mean 'digits'?"),
        (
            ["--dataset", "svhn"],
            2,
            "no recipe is svhn's own: name one to start from, such as layerwise-train cifar10-small",
        ),
        (["--dataset", "digitz"], 2, "unknown data set 'digitz'. Did you mean 'digits'?"),
        (["--mode", "gredy"], 2, "unknown mode 'gredy'. Did you mean 'greedy'?"),
        (["--k", "0"], 2, "network.k is 0, but must be an integer of at least 1"),
        (["--k", "x"], 2, "Invalid value for '--k'"),
        (["--set", "training.epochs"], 2, "--set 'training.epochs' has no value; write --set key=value"),
        (["--epochs", "2", "--set", "training.epochs=3"], 2, "--set training.epochs names what another flag or --set"),
        (["--out", "run.txt"], 2, "--out is 'run.txt', but a run file's name ends in .h5"),
        (["--out", "run.predictions.h5"], 2, "--out is 'run.predictions.h5', but a run file's name ends in .h5"),
        (["--set", "epochs=3"], 2, "unknown configuration field 'epochs'. Did you mean 'training.epochs'?"),
        (["--dry-run", "--download"], 2, "--dry-run writes nothing, so it cannot --download"),
        (["--max-size", "8"], 2, "size '8' is not understood"),
        (["--max-size", "1KB"], 1, "the run file would take"),
        (["--device", "gpu"], 2, "unknown device 'gpu'. Did you mean 'cpu'?"),
        (["--set", "network.downsample=1,2,3,4"], 1, "P before block 4 cannot halve maps of 1x1"),
        (["fashion-mnist"], 2, "fashion-mnist is not bundled"),
        (["--subset", "10"], 2, "--subset 10 cannot be taken: the train split has 1438 images of 10 classes"),
        (["--subset", "-1"], 2, "data.subset is -1, but must be a number of images"),
        (["cifar10-small", "--subset", "0", "--dataset", "imagefolder"], 2, "imagefolder is not bundled"),
        (
            ["cifar10-small", "--subset", "0", "--dataset", "imagefolder", "--data-dir", ".", "--download"],
            2,
            "--download fetches published data sets",
        ),
        (["cifar10-small", "--subset", "0", "--dataset", "svhn", "--data-dir", "."], 1, "svhn was not found whole"),
        (["--set", "data.image_size=16"], 2, "data.image_size is 16, but must be 0 for digits"),
        (["--list", "digitz"], 2, "unknown recipe 'digitz'. Did you mean 'digits'?"),
        (["--quiet", "--verbose"], 2, "--quiet and --verbose exclude each other"),
        (["--out", "no/such/run.h5"], 1, "the folder no/such does not exist"),
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
    assert run_train(*words) == code
    err = capsys.readouterr().err.strip()
    assert err.startswith(f"layerwise-train: {message}")
    assert "\n" not in err
    assert not list(tmp_path.iterdir())


def test_cuda_where_there_is_none_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run_train("--device", "cuda", "--out", "never.h5") == 2
    assert "--device cuda was asked for, but torch sees no GPU here" in capsys.readouterr().err


def test_an_existing_run_is_kept_until_force_is_given(own_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = own_run.read_bytes()
    assert run_train(*SMALL, "--out", str(own_run)) == 1
    assert "exists already. Give another name, or --force to replace it" in capsys.readouterr().err
    assert own_run.read_bytes() == before
    assert run_train(*SMALL, "--out", str(own_run), "--force") == 0
    assert own_run.read_bytes() != before


def test_data_flags_reach_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    words = ["--subset", "300", "--set", "data.label=few digits", "--mode", "untrained", "--out", str(path)]
    assert run_train(*SMALL, *words) == 0
    with RunFile(path) as run:
        assert run.config is not None
        assert run.config.data.subset == 300
        assert run.dataset["name"] == "few digits"
        assert {split: len(run.labels(split)) for split in run.splits} == {"train": 270, "validation": 30, "test": 359}


def test_constants_are_numbers_with_commas(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run.h5"
    words = ["digits", "--epochs", "1", "--depth", "1", "--width", "4", "--out", str(out)]
    assert run_train(*words, "--mean", "0.3", "--std", "0.25") == 0
    with RunFile(out) as run:
        assert run.config is not None and (run.config.data.mean, run.config.data.std) == ((0.3,), (0.25,))
        assert run.dataset["normalisation"] == {"mean": [0.3], "std": [0.25]}
    capsys.readouterr()
    assert run_train(*words, "--force", "--mean", "0.3,0.3,0.3", "--std", "1,1,1") == 2
    assert "--mean has 3 numbers, but the images have 1 channels: give one each" in capsys.readouterr().err


def test_the_prefix_and_its_views_reach_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    assert run_train(*SMALL, "--prefix", "cache", "--views", "1", "--out", str(path)) == 0
    with RunFile(path) as run:
        assert run.config is not None
        assert (run.config.training.prefix, run.config.training.views) == ("cache", 1)


def test_a_prefix_that_cannot_be_kept_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_train(*SMALL, "--prefix", "cache", "--out", str(tmp_path / "run.h5")) == 2
    assert "training.prefix is 'cache', but crops and flips are drawn anew in each epoch" in capsys.readouterr().err


def test_list_shows_the_recipe_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_train("cifar10-k3", "--list") == 0
    out = capsys.readouterr().out
    assert out.startswith("cifar10-k3\n    CIFAR-10, k = 3, four blocks")
    assert "cifar10-k2" not in out


def test_list_shows_each_recipe_with_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_train("--list") == 0
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= 80
    for text in (
        "digits",
        "fashion-mnist",
        "Command: layerwise-train fashion-mnist --data-dir DIR",
        "Cost:",
        "Expected:",
    ):
        assert text in out


def test_inspect_shows_a_run_within_80_columns(run_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(inspect, "layerwise-inspect", [str(run_path), "--verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line.replace(str(run_path), "run.h5")) <= 80 for line in lines)
    text = "\n".join(lines)
    with RunFile(run_path) as run:
        assert run.run_id in text
        assert run.content_digest in text
    assert "J = 2, M = 6, k = 2, M~ = 5, BatchNorm on" in text
    assert "digits, 10 classes; train 1295, validation 143, test 359" in text
    assert "pooled+maps" in text
    settings = " ".join(text[text.index("settings") : text.index("images ")].split())
    assert "training.epochs 2, training.block_epochs [], training.batch_size 64" in settings
    assert "network.downsample []" in settings
    assert lines[-1].startswith("intact: ")


def test_inspect_refuses_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.h5"
    path.write_text("no")
    assert call(inspect, "layerwise-inspect", [str(path)]) == 1
    assert capsys.readouterr().err.strip().startswith(f"layerwise-inspect: {path} is no run file: it is not HDF5.")


def test_a_folder_of_fewer_images_than_the_recipe_takes_is_trained_on_whole(tmp_path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (90, 14, 10, 3)).astype(np.uint8)
    for i, image in enumerate(pixels):
        path = tmp_path / "shapes" / "abc"[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    words = ["cifar10-small", "--dataset", "imagefolder", "--data-dir", str(tmp_path / "shapes"), "--test-share", "0.2"]
    words += ["--image-size", "8", "--depth", "1", "--width", "2", "--aux-width", "2", "--epochs", "1"]
    words += ["--set", "network.downsample=", "--device", "cpu", "--precision", "fp32"]
    assert run_train(*words, "--out", str(tmp_path / "run.h5")) == 0
    with RunFile(tmp_path / "run.h5") as run:
        assert run.config is not None and run.config.data.subset == 0
        assert run.dataset["name"] == "shapes" and run.depth_shape(0) == (3, 8, 8)
        assert {split: len(run.labels(split)) for split in run.splits} == {"train": 66, "validation": 6, "test": 18}
    assert run_train(*words, "--subset", "10000", "--out", str(tmp_path / "b.h5")) == 2
    # Not square, and neither resized nor cropped.
    whole = [word for word in words if word not in ("--image-size", "8")]
    assert run_train(*whole, "--set", "training.crop_padding=0", "--out", str(tmp_path / "c.h5")) == 0
    with RunFile(tmp_path / "c.h5") as run:
        assert run.depth_shape(1) == (2, 14, 10)
