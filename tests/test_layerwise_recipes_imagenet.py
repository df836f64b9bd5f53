"""The recipes for ImageNet from files to probes, at a sixteenth of their width on a handful of photographs' sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import probes
from layerwise.recipes import recipe
from layerwise.runfile import RunFile
from layerwise.runfile.place import Place
from layerwise.settings import set_fields
from layerwise.training.run import train_run


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 40 JPEGs, whose shorter sides have 150 to 300 pixels, of two classes that differ in colour."""
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for split, count in (("train", 14), ("val", 6)):
        for c, name in enumerate(("n01440764", "n02102040")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                coarse = rng.integers(0, 200, (4, 5, 3), dtype=np.uint8)
                coarse[:, :, 2 * c] //= 4
                width, height = (int(side) for side in rng.integers(150, 300, 2))
                Image.fromarray(coarse).resize((width, height)).save(root / split / name / f"{name}_{i}.JPEG", "JPEG")
    return root


@pytest.mark.parametrize("name", ["imagenet-k1", "imagenet-k2", "imagenet-k3"])
def test_two_blocks_of_a_recipe_from_files_to_probes(name: str, photographs: Path, tmp_path: Path) -> None:
    """At 224 pixels, the first two of eight blocks, of an epoch each: trained from the stream, dumped and probed."""
    config = recipe(name)
    net = config.network
    fields: dict[str, Any] = {
        "network.width": net.width // 16, "network.aux_width": net.aux_width // 16, "network.depth": 2,
        "network.downsample": (1,), "training.epochs": 1, "training.batch_size": 14, "data.holdout": 0.2,
        "precision": "fp32",
    }  # fmt: skip
    out = tmp_path / "run.h5"
    place = Place(out=out, device=torch.device("cpu"), data_dir=photographs, workers=0)
    scores = train_run(set_fields(config, fields), place)
    assert [score.shape for score in scores] == [(net.width // 16, 112, 112)] * 2
    with RunFile(out) as run:
        list(run.verify())
        assert run.provenance["images"] == "files"
        assert (run.dataset["normalisation"]["mean"], run.depths) == ([0.485, 0.456, 0.406], [0, 1, 2])
        assert len(run.labels("test")) == 12
    linear = probes.fit(out, "linear", depths=[1, 2], quiet=True)
    assert set(linear.depth) == {1, 2} and (linear.query("metric == 'accuracy' and split == 'test'").value >= 0.5).any()
    cnn = probes.fit(out, "cnn-1", depths=2, widths=4, seeds=1, epochs=1, quiet=True)
    assert set(cnn.probe) == {"cnn-1"} and cnn.value.notna().any()
