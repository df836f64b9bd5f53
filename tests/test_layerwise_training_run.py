"""A run as a whole: what is refused before training, provenance, and that a killed run leaves nothing behind."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from conftest import make_run

from layerwise import __version__
from layerwise.errors import UsageError
from layerwise.runfile import RunFile
from layerwise.runfile.provenance import software
from layerwise.training import run


def test_nothing_is_trained_when_the_output_cannot_be_written(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(run, "train", never)
    with pytest.raises(ValueError, match="exists already"):
        make_run(own_run)
    with pytest.raises(ValueError, match="--max-size allows"):
        make_run(own_run.with_name("other.h5"), max_size=100)


def test_settings_that_the_images_do_not_allow_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="training.crop_padding is 9, but the images are 8x8: at most 8 leaves"):
        make_run(tmp_path / "run.h5", **{"training.crop_padding": 9})
    with pytest.raises(
        UsageError, match="training.crop_padding is 8, but images of 8x8 can be reflected by at most 7 pixels"
    ):
        make_run(tmp_path / "run.h5", **{"training.crop_padding": 8, "training.crop_fill": "reflect"})
    with pytest.raises(
        UsageError, match="the last batch of 1295 images in batches of 647 has one image, of which Batch"
    ):
        make_run(tmp_path / "run.h5", **{"network.average": 1, "training.batch_size": 647})
    assert not list(tmp_path.iterdir())


def test_a_run_stopped_in_the_dump_leaves_its_state_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "dump_depths", stop)
    with pytest.raises(KeyboardInterrupt) as stopped:
        make_run(tmp_path / "run.h5")
    (said,) = stopped.value.__notes__
    assert said.endswith("run.h5.state: the same command goes on from there.")
    assert [path.name for path in tmp_path.iterdir()] == ["run.h5.state"]


def test_provenance_names_the_commit_of_a_clone() -> None:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        pytest.skip("not a clone: an unpacked archive has no commit")
    done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert software()["commit"].removesuffix("-dirty") == done.stdout[:12]


def test_provenance_tells_software_threads_and_durations(run_path: Path) -> None:
    with RunFile(run_path) as found:
        made = found.provenance
    versions = json.loads(made["software"])
    assert versions["layerwise"] == __version__
    assert versions["python"] == platform.python_version()
    assert torch.__version__.startswith(versions["torch"])
    assert set(json.loads(made["seconds"])) == {"train", "score", "dump"}
    assert made["threads"] == torch.get_num_threads()
    with h5py.File(run_path) as file:
        assert len(file["provenance/epoch_seconds"]) == 4
        assert (file["provenance/epoch_seconds"][:] > 0).all()


def test_software_names_every_library_that_computes() -> None:
    assert {"layerwise", "python", "torch", "torchvision", "numpy", "h5py", "scikit-learn"} <= set(software())


def test_batch_norm_of_an_untrained_run_is_measured_in_exact_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed: list[bool] = []
    settle = run.settle_batch_norm

    def watched(*words: Any) -> None:
        allowed.append(torch.backends.cudnn.allow_tf32)
        settle(*words)

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(run, "settle_batch_norm", watched)
    make_run(tmp_path / "run.h5", mode="untrained")
    assert allowed == [False]


def test_an_untrained_run_has_blocks_and_no_auxiliaries(tmp_path: Path) -> None:
    with RunFile(make_run(tmp_path / "run.h5", mode="untrained")) as found:
        assert found.weights("blocks", 1) is not None
        assert found.weights("auxiliaries", 1) is None


def test_an_untrained_run_starts_from_the_weights_a_greedy_one_starts_from(tmp_path: Path) -> None:
    untrained = make_run(tmp_path / "untrained.h5", mode="untrained")
    still = make_run(tmp_path / "still.h5", **{"training.learning_rate": 1e-30, "training.weight_decay": 0.0})
    with RunFile(untrained) as a, RunFile(still) as b:
        first, second = a.weights("blocks", 2), b.weights("blocks", 2)
        assert first is not None
        assert second is not None
        assert np.array_equal(first["conv.weight"], second["conv.weight"])
