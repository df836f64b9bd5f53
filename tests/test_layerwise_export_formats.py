"""The formats of exported networks: a file holds metadata and any size of batch; what cannot be written is named."""

from __future__ import annotations

import importlib.util
import resource
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from layerwise.errors import UsageError, UserError
from layerwise.export import formats as export_formats
from layerwise.export.formats import ONNX_PACKAGES, SUFFIXES, read, require_format, trace, write


class Doubled(nn.Module):
    """A network whose right answer is known without computing it: twice the image, plus a weight of one."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return 2 * images + self.one


@pytest.fixture
def program() -> torch.export.ExportedProgram:
    return trace(Doubled(), torch.zeros(2, 3))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_written_is_run_with_any_number_of_images(
    suffix: str, program: torch.export.ExportedProgram, tmp_path: Path
) -> None:
    write(program, tmp_path / ".model.partial", suffix, '{"classes": ["ä"]}')
    run = read(tmp_path / ".model.partial", suffix)
    for n in (1, 2, 7):
        images = np.arange(3 * n, dtype=np.float32).reshape(n, 3)
        np.testing.assert_array_equal(run(images), 2 * images + 1)
    assert [path.name for path in tmp_path.iterdir()] == [".model.partial"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_that_is_full_is_an_error_of_the_system(
    suffix: str, program: torch.export.ExportedProgram, tmp_path: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(program, tmp_path / ".model.partial", suffix, "{}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["model.pt", "model", "model.h5", "model.PT2"])
def test_a_name_says_its_format(name: str) -> None:
    with pytest.raises(UsageError, match=f"-o is '{name}', but an exported network's name ends in .pt2 or .onnx."):
        require_format(Path(name))


def without(monkeypatch: pytest.MonkeyPatch, names: Collection[str]) -> None:
    """Make some packages look as if they were not installed."""
    find = importlib.util.find_spec

    def found(name: str, *rest: Any) -> Any:
        return None if name in names else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", found)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (ONNX_PACKAGES, "the packages onnx and onnxscript and onnxruntime, which are"),
        (("onnxruntime",), "the package onnxruntime, which is"),
    ],
)
def test_onnx_says_what_it_needs(names: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, names)
    monkeypatch.setattr(export_formats, "ONNX_PACKAGES", names)
    with pytest.raises(UserError, match=rf"m.onnx needs {said} not installed; .* '.\[onnx\]' .*, or give"):
        require_format(Path("m.onnx"))
    require_format(Path("m.pt2"))


def test_a_network_too_large_for_onnx_is_refused(
    program: torch.export.ExportedProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_formats, "ONNX_LIMIT", 11)
    with pytest.raises(UserError, match="weights are 12 B, but one ONNX file holds less than 2 GiB; export it as .pt2"):
        write(program, tmp_path / "m.onnx", ".onnx", "{}")
    write(program, tmp_path / "m.pt2", ".pt2", "{}")


def test_a_network_that_branches_on_values_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images if images.sum() > 0 else -images

    with pytest.raises(UserError, match="torch.export cannot follow this network: .+ no branch on values of a tensor"):
        trace(Branching(), torch.zeros(2, 3))
