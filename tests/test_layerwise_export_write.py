"""Export: what the file on the disk computes elsewhere is what the run says; else there is no file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_run

from layerwise.errors import UserError
from layerwise.export import export_run
from layerwise.export.formats import SUFFIXES, read, trace, write
from layerwise.export.predictor import Predictor
from layerwise.model.blocks import Block, VggHead
from layerwise.model.ensemble import ensemble
from layerwise.model.network import LayerwiseNetwork
from layerwise.recipes import vgg11
from layerwise.runfile import RunFile
from layerwise.settings import set_fields

KINDS: dict[str, dict[str, Any]] = {
    "k1": {"network.k": 1, "network.downsample": (2,), "network.average": 3},
    "k2-pruned": {"network.k": 2, "network.prune_to": 4, "training.finetune_epochs": 1},
    "k3": {"network.k": 3, "network.depth": 3, "network.downsample": (3,)},
    "end-to-end": {"mode": "end-to-end"},
}

# Each runs in a process to which this package cannot be imported: argv is the file, images.npy, scores.npy.
BY_PYTORCH = """
import sys
sys.modules.update(dict.fromkeys(("layerwise", "probes", "analysis", "figures")))
import json, numpy as np, torch
found = {"layerwise.json": ""}
network = torch.export.load(sys.argv[1], extra_files=found).module()
print(found["layerwise.json"])
images = torch.from_numpy(np.load(sys.argv[2]))
np.save(sys.argv[3], torch.cat([network(part) for part in images.split([1, 2, 30])]).numpy())
"""
BY_ONNXRUNTIME = """
import sys
sys.modules.update(dict.fromkeys(("layerwise", "torch")))
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(session.get_modelmeta().custom_metadata_map["layerwise.json"])
images = np.load(sys.argv[2])
parts = [session.run(None, {"images": part})[0] for part in np.split(images, [1, 3])]
np.save(sys.argv[3], np.concatenate(parts))
"""


def elsewhere(code: str, file: Path, images: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
    """Return metadata and scores as another process reads them of an exported file, in batches of 1, 2 and 30."""
    given, scores = file.parent / "images.npy", file.parent / "scores.npy"
    np.save(given, images)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(file), str(given), str(scores)],
        cwd=file.parent, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), np.load(scores)


def assert_equal_within_rounding(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=4e-6 * np.abs(expected).max())


def load(path: Path) -> torch.nn.Module:
    return torch.export.load(path).module()


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_of_each_depth_computes_the_outputs_of_the_run(kind: str, tmp_path: Path) -> None:
    with RunFile(make_run(tmp_path / "run.h5", **KINDS[kind])) as run:
        images = torch.from_numpy(run.images("test")[:])
        for depth in [j for j in run.depths if run.scores(j)]:
            expected = run.outputs(depth, "test")
            done = export_run(run, tmp_path / f"{depth}.pt2", depth=depth)
            assert done.difference <= 4e-6 * np.abs(expected).max()
            network = load(done.path)
            for part in (slice(0, 1), slice(5, 8), slice(0, None)):
                assert_equal_within_rounding(network(images[part]).numpy(), expected[part])


@pytest.fixture(scope="module")
def pruned_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with P, BatchNorm and pruned blocks."""
    fields = KINDS["k3"] | {"network.prune_to": 4, "training.finetune_epochs": 1, "training.epochs": 1}
    return make_run(tmp_path_factory.mktemp("pruned") / "run.h5", **fields)


@pytest.mark.parametrize(("suffix", "code"), [(".pt2", BY_PYTORCH), (".onnx", BY_ONNXRUNTIME)])
def test_another_process_without_this_package_has_the_same_scores(
    suffix: str, code: str, pruned_run: Path, tmp_path: Path
) -> None:
    with RunFile(pruned_run) as run:
        done = export_run(run, tmp_path / f"model{suffix}", weighting="softmax", takes="float")
        assert done.images == "64 test images, with the outputs in run.h5"
        about, scores = elsewhere(code, tmp_path / f"model{suffix}", run.images("test")[:33].astype(np.float32) / 255)
        logits = [run.outputs(j, "test")[:33] for j in (1, 2, 3)]
        assert_equal_within_rounding(scores, ensemble(logits, "softmax"))
        assert (about["run_id"], about["content_digest"]) == (run.run_id, run.content_digest)
        assert (about["depth"], about["auxiliaries"], about["ensemble"]) == (3, [1, 2, 3], "softmax")
        assert about["classes"] == list("0123456789")
        assert about["input"]["shape"] == ["n", 1, 8, 8]
        assert about["input"]["normalisation"] == run.dataset["normalisation"]
        right = {split: run.scores(3)[f"ensemble_softmax_{split}_accuracy"] for split in ("validation", "test")}
        assert about["accuracy"] == right


def test_vgg11_is_the_same_in_both_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VggHead, "HIDDEN", 8)
    config = set_fields(vgg11(), {"network.width": 2, "network.aux_width": 4}).network
    network = LayerwiseNetwork(config, (3, 162, 160), 10, (0.5, 0.4, 0.3), (0.2, 0.2, 0.3), seed=0)
    predictor = Predictor(network, (7, 8), "softmax", "uint8")
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 162, 160), dtype=np.uint8))
    program = trace(predictor, images[:2])
    for suffix in SUFFIXES:
        write(program, tmp_path / f"m{suffix}", suffix, "{}")
        found = read(tmp_path / f"m{suffix}", suffix)(images.numpy())
        assert_equal_within_rounding(found, predictor(images).numpy())


def test_a_run_without_images_is_checked_on_random_ones_or_those_it_was_made_of(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithoutImages(RunFile):
        def images(self, split: str) -> None:
            return None

    with WithoutImages(run_path) as run:
        done = export_run(run, tmp_path / "again.pt2")
        assert done.images == "64 test images, with the outputs in run.h5"  # digits are read again
    monkeypatch.setattr("layerwise.images.data_config", lambda run: None)
    with WithoutImages(run_path) as run:
        for weighting in (None, "uniform"):
            done = export_run(run, tmp_path / f"{weighting}.pt2", weighting=weighting)
            assert done.images == "64 random images, since run.h5 keeps none"
            assert 0 <= done.difference < done.allowed


def test_what_differs_from_the_run_is_not_published(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old.pt2").write_bytes(b"old")
    right = Predictor.forward
    for factor, said in ((1.001, r"differs by \d\S+ from"), (float("nan"), "differs by nan from")):
        monkeypatch.setattr(Predictor, "forward", lambda self, images, factor=factor: right(self, images) * factor)
        for name, force in (("new.pt2", False), ("old.pt2", True)):
            with (
                RunFile(run_path) as run,
                pytest.raises(UserError, match=f"{name} was not written: .* {said}.*newer torch"),
            ):
                export_run(run, tmp_path / name, force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["old.pt2"]
    assert (tmp_path / "old.pt2").read_bytes() == b"old"


def test_a_file_is_replaced_only_by_force(run_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"mine")
    with RunFile(run_path) as run:
        with pytest.raises(UserError, match="model.pt2 exists already. Give another name, or --force to replace it"):
            export_run(run, path)
        assert path.read_bytes() == b"mine"
        export_run(run, path, depth=1, force=True)
        export_run(run, path, depth=2, force=True)
        images = torch.from_numpy(run.images("test")[:4])
        assert_equal_within_rounding(load(path)(images).numpy(), run.outputs(2, "test")[:4])


def test_a_block_that_looks_at_values_is_refused_in_one_line(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Block, "forward", lambda self, x: self.conv(x) if x.sum() > 0 else self.conv(-x))
    with (
        RunFile(run_path) as run,
        pytest.raises(UserError, match="torch.export cannot follow this network: .+ no branch"),
    ):
        export_run(run, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []
