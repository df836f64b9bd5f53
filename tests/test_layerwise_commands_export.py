"""layerwise-export as people type it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import layerwise
from layerwise.commandline import call
from layerwise.commands.export import export
from layerwise.model import custom as factories
from layerwise.model.ensemble import ensemble
from layerwise.runfile import RunFile

RESIDUAL = """
from torch import nn

class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(5, 5, 3, padding=1), nn.BatchNorm2d(5)

    def forward(self, x):
        return x + self.norm(self.conv(x)).relu()

def blocks():
    return [nn.Conv2d(1, 5, 3, padding=1), nn.Sequential(nn.MaxPool2d(2), Residual()), nn.Dropout(0.5)]
"""


def run_export(*words: object) -> int:
    return call(export, "layerwise-export", [str(word) for word in words])


def test_it_says_what_it_wrote_and_how_it_was_checked(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.pt2"
    assert run_export(run_path, "--ensemble", "logits", "--input", "float", "-o", out) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "network  greedy, k = 2: depth 2 with the ensemble (logits) of 2 auxiliaries"
    assert said[2:5] == [
        "input    images: float32 [n, 1, 8, 8], 0 to 1",
        "output   scores: float32 [n, 10], log-probabilities",
        "checked  on 64 test images, with the outputs in run.h5",
    ]
    assert said[-1] == f"wrote {out}"
    assert max(map(len, said[:-1])) <= 80


def test_the_api_does_what_the_command_does(run_path: Path, tmp_path: Path) -> None:
    assert run_export(run_path, "--depth", 1, "-o", tmp_path / "a.pt2", "--quiet") == 0
    with layerwise.open_run(run_path) as run:
        done = layerwise.export_network(run, out=str(tmp_path / "b.pt2"), depth=1)
        shapes = [(6, 1, 3, 3), (6,), (6,), (5, 6, 3, 3), (5,), (5,), (5,), (5,), (10, 20), (10,)]
        assert done.parameters == sum(int(np.prod(shape)) for shape in shapes)
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    a, b = (torch.export.load(tmp_path / name).module()(images) for name in ("a.pt2", "b.pt2"))
    assert torch.equal(a, b)


def test_wrong_words_are_answered_in_one_line(
    run_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there.pt2"
    there.write_bytes(b"mine")
    for words, code, said in (
        ((run_path, "--depth", 9, "-o", tmp_path / "m.pt2"), 2, "--depth is 9, but"),
        ((run_path, "-o", tmp_path / "m.pth"), 2, "an exported network's name ends in .pt2 or .onnx"),
        ((run_path, "-o", there), 1, "exists already. Give another name, or --force"),
        ((tmp_path / "no.h5", "-o", tmp_path / "m.pt2"), 1, "does not exist; expected a run file"),
        ((there, "-o", tmp_path / "m.pt2"), 1, "is no run file: it is not HDF5"),
    ):
        assert run_export(*words) == code
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("layerwise-export: ") and said in line
    assert [path.name for path in tmp_path.iterdir()] == ["there.pt2"]


def test_blocks_of_a_users_own_are_exported_with_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(factories, "_known", {})
    (tmp_path / "net.py").write_text(RESIDUAL)
    spec, out = f"{tmp_path / 'net.py'}:blocks", tmp_path / "m.pt2"
    fields = {"training.epochs": 1, "network.aux_width": 4}
    layerwise.train(network=spec, settings=fields, out=tmp_path / "run.h5", device="cpu").close()
    factories._known.clear()
    assert run_export(tmp_path / "run.h5", "-o", out) == 1
    assert "Name the file that it was trained with: --network PATH/net.py:blocks" in capsys.readouterr().err
    assert not out.exists()
    assert run_export(tmp_path / "run.h5", "-o", out, "--network", spec, "--ensemble", "uniform") == 0
    with RunFile(tmp_path / "run.h5") as run:
        expected = ensemble([run.outputs(j, "test")[:5] for j in (1, 2, 3)], "uniform")
        found = torch.export.load(out).module()(torch.from_numpy(run.images("test")[:5])).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=4e-6 * np.abs(expected).max())


def test_a_run_of_arrays_has_no_network_to_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = {"layer": np.random.default_rng(0).normal(size=(60, 3)), "labels": np.arange(60) % 3}
    layerwise.extract_arrays(arrays, out=tmp_path / "run.h5", trained_on="other-data").close()
    assert run_export(tmp_path / "run.h5", "-o", tmp_path / "m.pt2") == 1
    assert "has no network: it was extracted from one built elsewhere, or from arrays" in capsys.readouterr().err
    with RunFile(tmp_path / "run.h5") as run:
        assert run.config is None
