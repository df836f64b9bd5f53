"""Images that stay in their files: the same results as from memory, by any number of processes, also after a kill."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import small_config
from PIL import Image
from torch import nn

from layerwise.commandline import call
from layerwise.commands.extract import extract
from layerwise.config import RunConfig
from layerwise.datasets import Dataset, load_dataset, reading
from layerwise.datasets.stream import PIECE, StreamedSplit
from layerwise.errors import UserError
from layerwise.model.custom import register
from layerwise.runfile import RunFile
from layerwise.runfile.place import Place
from layerwise.training import checkpoint as state
from layerwise.training import loop as training
from layerwise.training.run import train_run

AUGMENTED: dict[str, Any] = {
    "training.crop_padding": 2, "training.flip": True, "training.cutout": 4, "training.batch_size": 16,
}  # fmt: skip


def mixed_folder(root: Path, n: int = 20) -> Path:
    """Write n images of each of two classes and two splits: of many sizes, one CMYK, one grey, one PNG named JPEG."""
    rng = np.random.default_rng(0)
    for split, count in (("train", n), ("test", n // 2)):
        for c in ("cat", "dog"):
            folder = root / split / c
            folder.mkdir(parents=True)
            for i in range(count):
                height, width = rng.integers(16, 40, 2)
                image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
                image = image.convert("CMYK") if i == 1 else image.convert("L") if i == 2 else image
                image.save(folder / f"{i:03}.jpg", "PNG" if i == 3 else "JPEG")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_folder(tmp_path_factory.mktemp("mixed"))


def load(folder: Path, read: str, **words: Any) -> Dataset:
    words = {"holdout": 0.2, "image_size": 16, "workers": 0} | words
    return load_dataset("imagefolder", data_dir=folder, read=read, **words)


def config_of(**fields: Any) -> RunConfig:
    data = {"data.dataset": "imagefolder", "data.image_size": 16, "data.holdout": 0.2, "network.width": 4}
    return small_config(**data | AUGMENTED | fields)


def digest(folder: Path, out: Path, read: str, workers: int = 0, **fields: Any) -> str:
    place = Place(out=out, device=torch.device("cpu"), data_dir=folder, read=read, workers=workers)
    train_run(config_of(**fields), place)
    with RunFile(out) as run:
        list(run.verify())
        return run.content_digest


@pytest.mark.parametrize("words", [{}, {"subset": 20}, {"holdout": 0}, {"fold_seed": 3}])
def test_a_streamed_data_set_is_that_in_memory(folder: Path, words: dict[str, Any]) -> None:
    held, streamed = load(folder, "memory", **words), load(folder, "stream", **words)
    assert (held.kept, streamed.kept) == ("memory", "files")
    assert (streamed.mean, streamed.std) == (held.mean, held.std)
    assert streamed.sizes == held.sizes and list(streamed.splits) == list(held.splits)
    for name, split in held.splits.items():
        own = streamed.splits[name]
        assert own.fingerprint() == split.fingerprint()
        assert np.array_equal(own.read(slice(None)), split.images)
        assert np.array_equal(own.read(np.array([3, 1])), split.images[[3, 1]])
        assert np.array_equal(own.index, split.index) and np.array_equal(own.label, split.label)


def test_class_folders_alone_are_split_alike(folder: Path) -> None:
    held, streamed = (load(folder / "train", read, test_share=0.25) for read in ("memory", "stream"))
    assert held.counts == streamed.counts == {"train": 24, "validation": 6, "test": 10}
    for name, split in held.splits.items():
        assert streamed.splits[name].fingerprint() == split.fingerprint()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_parts_come_in_their_order_from_any_number_of_processes(folder: Path, workers: int) -> None:
    held = load(folder, "memory", holdout=0).splits["train"]
    streamed = load(folder, "stream", holdout=0, workers=workers).splits["train"]
    rng = np.random.default_rng(1)
    parts = [rng.permutation(40)[:n] for n in (1, PIECE + 5, PIECE, 7)]
    for rows, images in zip(parts, streamed.stream(parts), strict=True):
        assert np.array_equal(images, held.images[rows])
    assert streamed.waited > 0


def test_a_pass_that_is_given_up_disturbs_no_other(folder: Path) -> None:
    streamed = load(folder, "stream", holdout=0, workers=2).splits["train"]
    parts = [np.array([i]) for i in range(40)]
    first, second = streamed.stream(parts), streamed.stream(parts)
    assert np.array_equal(next(first), next(second))
    first.close()
    assert len(list(second)) == 39


def test_the_global_random_numbers_are_not_touched(folder: Path) -> None:
    streamed = load(folder, "stream", holdout=0, workers=1).splits["train"]
    before = torch.get_rng_state()
    list(streamed.stream([slice(0, 3)]))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture(scope="module")
def expected(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return digest(folder, tmp_path_factory.mktemp("memory") / "run.h5", "memory")


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_run_has_the_same_digest_from_memory_and_streamed(
    folder: Path, expected: str, workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "layerwise")
    assert digest(folder, tmp_path / "run.h5", "stream", workers) == expected
    assert "of it waiting for images" in caplog.text
    by = "3 processes" if workers == 3 else "1 process"
    assert f"decoded anew in each epoch by {by}: about" in caplog.text


@pytest.mark.parametrize("fields", [
    {"training.views": 2, "training.prefix": "cache"}, {"mode": "untrained"}, {"mode": "parallel"},
    {"network.prune_to": 2, "network.k": 3, "training.finetune_epochs": 1}, {"store": "maps", "mirrored": True},
])  # fmt: skip
def test_so_it_has_in_every_mode(folder: Path, fields: dict[str, Any], tmp_path: Path) -> None:
    held = digest(folder, tmp_path / "held.h5", "memory", **fields)
    assert digest(folder, tmp_path / "streamed.h5", "stream", **fields) == held


class Killed(BaseException):
    """Stands for a process that ends here and now."""


@pytest.fixture
def saved_inside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(state, "SAVE_INSIDE", 0.0)
    yield


def kill_after(patch: pytest.MonkeyPatch, steps: int) -> None:
    """End the process after so many steps, and the one in which it ends."""
    step, count = training.Report.step, [0]

    def killed(self: Any, score: Any) -> None:
        step(self, score)
        count[0] += 1
        if count[0] == steps + 1:  # the state has all steps before this one
            raise Killed

    patch.setattr(training.Report, "step", killed)


@pytest.mark.parametrize(("read", "steps"), [("stream", 1), ("stream", 3), ("memory", 5), ("stream", 7)])
@pytest.mark.usefixtures("saved_inside")
def test_killed_inside_an_epoch_it_goes_on_at_that_step(
    folder: Path, expected: str, read: str, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    out = tmp_path / "run.h5"
    with monkeypatch.context() as patch:
        kill_after(patch, steps)
        with pytest.raises(Killed):
            digest(folder, out, read)
    caplog.set_level(logging.INFO, "layerwise")
    assert digest(folder, out, "stream", 1) == expected
    inside = steps % 2  # an epoch has two steps
    assert ("and 1 steps of the next" in caplog.text) == bool(inside)


def dropping_blocks() -> list[nn.Module]:
    """Return blocks that draw random numbers in each step."""
    return [
        nn.Sequential(nn.Conv2d(c, 4, 3, padding=1), nn.ReLU(), nn.Dropout(0.5)) for c in (3, 4)
    ]  # fmt: skip


@pytest.mark.usefixtures("saved_inside")
def test_so_do_blocks_that_draw_random_numbers(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = register(dropping_blocks)
    whole = digest(folder, tmp_path / "whole.h5", "memory", **fields)
    with monkeypatch.context() as patch:
        kill_after(patch, 3)
        with pytest.raises(Killed):
            digest(folder, tmp_path / "run.h5", "memory", **fields)
    assert digest(folder, tmp_path / "run.h5", "stream", **fields) == whole


def test_an_extraction_has_the_same_digest_from_memory_and_streamed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "cores", lambda: 3)
    words = ["torchvision:resnet18", "--layers", "layer1", "--image-size", "32", "--device", "cpu", "--batch-size", "7"]
    words += ["--dataset", "imagefolder", "--set", "data.image_size=24", "--data-dir", str(folder)]
    digests = []
    for read in ("memory", "stream"):
        out = tmp_path / f"{read}.h5"
        assert call(extract, "layerwise-extract", [*words, "--read", read, "--out", str(out)]) == 0
        with RunFile(out) as run:
            digests.append(run.content_digest)
            assert run.provenance["images"] == ("memory" if read == "memory" else "files")
    assert digests[0] == digests[1]


def test_images_that_are_not_in_memory_say_so(folder: Path) -> None:
    split = load(folder, "stream").splits["train"]
    assert isinstance(split, StreamedSplit)
    with pytest.raises(UserError, match=r"stay in their files: read\(rows\) returns some .* with read='memory'"):
        _ = split.images
    assert repr(split) == "Split(32 images of 3 x 16 x 16, 2 classes)"
