"""An extraction as a whole: what is stored is what the network computes, in memory that does not grow with the data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_networks import SmallNet, Transformer, made_dataset
from torch import nn

from layerwise.activations import open_activations, pooled_features, pooled_width
from layerwise.api import extract_network
from layerwise.errors import UsageError, UserError
from layerwise.extraction import networks as foreign
from layerwise.extraction.inputs import DatasetFeed
from layerwise.extraction.preprocessing import Wishes, preprocessing_for
from layerwise.runfile import RunFile, plan

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")


def seeded(kind: type[nn.Module], **words: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(**words).eval()


def extract(folder: Path, net: nn.Module, **words: Any) -> RunFile:
    as_they_are = {"mean": "data", "std": "data", "image_size": made_dataset().image_shape[1]}
    words = {"out": folder / "run.h5", "trained_on": "other-data", "device": "cpu"} | as_they_are | words
    return extract_network(net, made_dataset(), **words)


def directly(net: nn.Module, split: str, names: list[str]) -> list[torch.Tensor]:
    """Return the outputs of the named modules over a whole split at once, without any of the code under test."""
    data, kept = made_dataset(), []
    x = torch.from_numpy(data.splits[split].images) / 255
    x = (x - torch.tensor(data.mean).view(-1, 1, 1)) / torch.tensor(data.std).view(-1, 1, 1)
    handles = [net.get_submodule(n).register_forward_hook(lambda m, a, out: kept.append(out.clone())) for n in names]
    with torch.no_grad():
        net(x)
    for handle in handles:
        handle.remove()
    return [x, *kept]


@pytest.mark.parametrize("batch_size", [7, 64])
def test_each_depth_is_what_the_network_computes(batch_size: int, tmp_path: Path) -> None:
    net = seeded(SmallNet)
    with extract(tmp_path, net, layers="conv1,norm,conv2", batch_size=batch_size) as run:
        assert [run.depth_module(j) for j in run.depths] == ["input", "conv1", "norm", "conv2"]
        for split in ("train", "validation", "test"):
            for j, x in enumerate(directly(net, split, ["conv1", "norm", "conv2"])):
                stored = torch.cat(list(open_activations(run, j, split).batches()))
                torch.testing.assert_close(stored, x, rtol=2**-10, atol=1e-5)
                pooled = nn.functional.adaptive_avg_pool2d(x, 2).flatten(1).numpy()
                np.testing.assert_allclose(pooled_features(run, j, split), pooled, rtol=2**-9, atol=1e-4)
            np.testing.assert_array_equal(run.images(split)[:], made_dataset().splits[split].images)  # type: ignore[index]
            np.testing.assert_array_equal(run.labels(split), made_dataset().splits[split].label)
        assert list(run.verify())


def test_patch_tokens_and_class_token_of_a_transformer(tmp_path: Path) -> None:
    net = seeded(Transformer)
    with extract(tmp_path, net) as run:
        assert [run.depth_module(j) for j in run.depths] == ["input", "embed", "blocks.0", "blocks.1"]
        assert run.depth_form(3) == "patch tokens" and run.depth_shape(3) == (8, 4, 4)
        x = directly(net, "test", ["blocks.1"])[1]
        grid = torch.stack([x[:, 1 + i] for i in range(16)], 2).reshape(-1, 8, 4, 4)
        stored = torch.cat(list(open_activations(run, 3, "test").batches()))
        torch.testing.assert_close(stored, grid, rtol=2**-10, atol=1e-4)
        token = run.class_token(3, "test")
        assert token is not None and run.class_token(1, "test") is None
        np.testing.assert_allclose(token[:], x[:, 0].numpy(), rtol=2**-10, atol=1e-4)
    with extract(tmp_path, net, layers="blocks.*", tokens="class", force=True) as run:
        kept = run.pooled(2, "test")  # in float32: tokens differ little from image to image
        assert kept is not None and kept.dtype == np.float32
        np.testing.assert_array_equal(pooled_features(run, 2, "test"), x[:, 0].numpy())


def test_an_untrained_network_settles_its_batch_norm_as_untrained_runs_do(tmp_path: Path) -> None:
    net = seeded(SmallNet)
    foreign.settle_batch_norm(net.eval(), feed := feed_of(net))
    x = torch.cat([batch.x for batch in feed.batches("train")])
    batches = list(x.split(30))
    first = [net.conv1(part) for part in batches]
    torch.testing.assert_close(net.norm.running_mean, sum(c.mean((0, 2, 3)) for c in first) / len(first))
    torch.testing.assert_close(
        net.norm.running_var, sum(c.var((0, 2, 3)) for c in first) / len(first), rtol=1e-4, atol=1e-5
    )
    assert net.norm.momentum == 0.1 and not net.norm.training
    with extract(tmp_path, fresh := seeded(SmallNet), trained_on="nothing", batch_size=30):
        torch.testing.assert_close(fresh.norm.running_mean, net.norm.running_mean)
    with extract(tmp_path, fresh := seeded(SmallNet), force=True):
        assert not fresh.norm.running_mean.any()


def feed_of(net: nn.Module) -> DatasetFeed:
    data = made_dataset()
    return DatasetFeed(data, preprocessing_for(net, None, data, Wishes()), 30, CPU)


def test_depths_beyond_float16_are_written_in_float32_by_a_second_pass(tmp_path: Path) -> None:
    net = seeded(SmallNet)
    with torch.no_grad():
        net.conv2.weight.mul_(1e6)
    with extract(tmp_path, net, layers="conv1,conv2") as run:
        types = [run.pooled(j, "train").dtype for j in run.depths]  # type: ignore[union-attr]
        assert types == [np.float16, np.float16, np.float32]
        x = directly(net, "test", ["conv2"])[1]
        torch.testing.assert_close(torch.cat(list(open_activations(run, 2, "test").batches())), x)
    assert [path.name for path in tmp_path.iterdir()] == ["run.h5"]


def test_a_network_that_computes_nan_is_named_and_leaves_no_file(tmp_path: Path) -> None:
    net = seeded(SmallNet)
    with torch.no_grad():
        net.conv2.bias[2] = float("nan")
    with pytest.raises(UserError, match=r"layer conv2 \(depth 4\) has NaN or infinity for sample 0 of the train split"):
        extract(tmp_path, net)
    assert list(tmp_path.iterdir()) == []


def test_two_extractions_have_the_same_content(tmp_path: Path) -> None:
    with extract(tmp_path, seeded(SmallNet), trained_on="nothing") as one:
        digest, run_id = one.content_digest, one.run_id
    with extract(tmp_path, seeded(SmallNet), trained_on="nothing", force=True) as other:
        assert other.content_digest == digest and other.run_id != run_id


def test_the_file_says_where_it_comes_from(tmp_path: Path) -> None:
    with extract(tmp_path, seeded(SmallNet), label="small", seed=4, mean=(0.5,), layers="conv*") as run:
        origin = run.extraction
        assert origin is not None and run.config is None
        assert (origin["label"], origin["seed"], origin["trained_on"]) == ("small", 4, "other-data")
        assert (origin["kind"], origin["model"], origin["layers"]) == ("network", "SmallNet", "conv*")
        assert origin["preprocessing"]["mean"] == run.dataset["normalisation"]["mean"] == [0.5]
        assert "small, made (train 60, validation 30, test 30), depths 0..2" in repr(run)
        assert "<td>conv2</td><td>6 x 4 x 4</td>" in run._repr_html_()
    assert repr(run) == f"RunFile({str(tmp_path / 'run.h5')!r}, closed)"
    assert "closed" in run._repr_html_()


def test_what_cannot_be_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    net = seeded(SmallNet)
    for words, message in (
        ({"tokens": "all"}, "unknown tokens 'all'"),
        ({"trained_on": "train"}, "unknown trained_on 'train'. Did you mean"),
        ({"label": "a\nb"}, "label is 'a\\nb', but must be one line"),
        ({"seed": -1}, "seed is -1, but must be an integer"),
        ({"trained_on": "train-split"}, "but the data set has one; load it by holdout=0"),
    ):
        with pytest.raises(UsageError) as error:
            extract(tmp_path, net, **words)
        assert message in str(error.value)
    (tmp_path / "run.h5").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        extract(tmp_path, net)


def test_a_full_disk_is_forecast_with_the_table_of_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []
    net = seeded(SmallNet)
    net.register_forward_hook(lambda module, args, out: calls.append(len(out)))
    monkeypatch.setattr(plan, "free_bytes", lambda path: 10_000)
    with pytest.raises(UserError, match="but the disk has free 10.0 KB. What would make it fit"):
        extract(tmp_path, net)
    assert calls == [2, 1]  # the two images that show the shapes, and one of them alone
    assert [record.message.split()[:2] for record in caplog.records if "x 8 x 8" in record.message] == [
        ["0", "input"], ["1", "conv1"], ["2", "norm"], ["3", "relu:1"]
    ]  # fmt: skip
    monkeypatch.undo()
    with pytest.raises(UserError, match="max_size allows 20.0 KB"):
        extract(tmp_path, net, max_size=20_000, store="maps")
    assert list(tmp_path.iterdir()) == []


HEAD = """
import resource, sys
from pathlib import Path
import h5py, numpy as np, torch
from foreign_networks import made_dataset
from layerwise.api import extract_arrays, extract_network

torch.set_num_threads(1)
n, out = int(sys.argv[1]), Path(sys.argv[2])
"""
# Linux's ru_maxrss begins with that of the process which started this one; VmHWM is its own.
TAIL = """
status = Path("/proc/self/status")
own = [line.split()[1] for line in status.read_text().splitlines() if "VmHWM" in line] if status.exists() else []
print(*(own or [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]), out.stat().st_size)
"""
MEASURED = {
    "network": """
net = torch.nn.Sequential(torch.nn.Conv2d(1, 64, 1), torch.nn.ReLU(), torch.nn.Conv2d(64, 64, 1))
extract_network(net, made_dataset(n, side=16), out=out, trained_on="nothing", store="maps", device="cpu").close()
""",
    "arrays": """
with h5py.File(out.with_suffix(".arrays.h5"), "w") as file:
    file["labels"] = np.arange(2 * n) % 3
    rows = file.create_dataset("layer", (2 * n, 192, 16, 16), np.float16)
    for start in range(0, 2 * n, 50):
        rows[start : start + 50] = np.full((50, 192, 16, 16), start / n, np.float16)
extract_arrays(out.with_suffix(".arrays.h5"), out=out, trained_on="other-data", store="maps").close()
""",
}


@pytest.mark.parametrize("source", MEASURED)
def test_peak_memory_does_not_grow_with_the_data(source: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "MALLOC_ARENA_MAX": "1"}
    found = []
    for n in (500, 2000):
        command = [sys.executable, "-c", HEAD + MEASURED[source] + TAIL, str(n), str(tmp_path / f"{n}.h5")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peak, size = map(int, done.stdout.split())
        found.append((1024 * peak if sys.platform == "linux" else peak, size))
    (small, _), (large, size) = found
    allowed = 0.1 * small
    assert 0.75 * size > 2 * allowed  # held in memory, the activations would show: the files differ by so much
    assert abs(large - small) < allowed


def test_the_input_is_computed_again_from_the_images_where_its_maps_are_not_kept(tmp_path: Path) -> None:
    net = seeded(SmallNet)
    with extract(tmp_path, net, store="pooled", image_size=6, mean=(0.5,)) as run:
        x = open_activations(run, 0, "test")
        assert x.source == "recompute" and run.maps(0, "test") is None
        data = made_dataset()
        prepare = preprocessing_for(net, None, data, Wishes(image_size=6, mean=(0.5,)))
        expected = prepare(torch.from_numpy(data.splits["test"].images))
        torch.testing.assert_close(torch.cat(list(x.batches())), expected, rtol=0, atol=0)
        np.testing.assert_array_equal(pooled_features(run, 0, "test", side=0), expected.flatten(1).numpy())
        with pytest.raises(UserError, match=r"holds no blocks .* again with store='maps' and another out=..., as"):
            open_activations(run, 1, "test")


def test_the_number_of_features_is_that_of_the_form(tmp_path: Path) -> None:
    with extract(tmp_path, seeded(SmallNet), layers="conv2,fc") as run:
        for depth, side, expected in ((1, 2, 24), (2, 2, 10), (1, 1, 6), (1, 0, 96), (2, 0, 10)):
            assert pooled_width(run, depth, side) == expected == pooled_features(run, depth, "test", side=side).shape[1]


def loaders_of(*batches: torch.Tensor) -> dict[str, Any]:
    return {name: [(x, torch.arange(len(x)) % 3) for x in batches] for name in ("train", "test")}


def from_loaders(folder: Path, net: nn.Module, loaders: dict[str, Any], layers: str) -> None:
    extract_network(net, loaders, out=folder / "run.h5", trained_on="other-data", layers=layers, holdout=0.0)


def test_inputs_of_another_size_than_the_first_are_named(tmp_path: Path) -> None:
    loaders = loaders_of(torch.randn(6, 1, 8, 8), torch.randn(6, 1, 10, 10))
    with pytest.raises(UserError, match="inputs of 1 x 10 x 10 come after inputs of 1 x 8 x 8, but a run has one"):
        from_loaders(tmp_path, seeded(SmallNet), loaders, "conv1")
    assert list(tmp_path.iterdir()) == []


class Growing(nn.Module):
    """Returns another number of tokens for bright images."""

    def __init__(self) -> None:
        super().__init__()
        self.crop = Crop()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.crop(x)


class Crop(nn.Module):
    """Takes fewer rows of dark images."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.any() else x[:, :, :4]


def test_a_layer_whose_output_changes_its_size_is_named(tmp_path: Path) -> None:
    loaders = loaders_of(torch.randn(6, 1, 8, 8), torch.zeros(6, 1, 8, 8))
    with pytest.raises(
        UserError, match="layer crop returns 6 x 1 x 4 x 8 for a batch of 6, but 6 x 1 x 8 x 8 is expected"
    ):
        from_loaders(tmp_path, Growing(), loaders, "crop")


class Hurried(nn.Module):
    """Leaves its second layer out where all images are dark."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 2, 3), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x)) if x.any() else self.a(x)


def test_a_layer_that_is_left_out_for_some_images_is_named(tmp_path: Path) -> None:
    loaders = loaders_of(torch.randn(6, 1, 8, 8), torch.zeros(6, 1, 8, 8))
    with pytest.raises(UserError, match="layer b was called for the first images and not for later ones"):
        from_loaders(tmp_path, seeded(Hurried), loaders, "b")


def test_a_network_that_cannot_take_the_number_type_is_answered_with_what_to_do(tmp_path: Path) -> None:
    loaders = loaders_of(torch.zeros(6, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(UserError, match=r"cannot take inputs of torch.uint8: .* Give float32, .* x.float\(\) / 255"):
        from_loaders(tmp_path, seeded(SmallNet), loaders, "auto")


def test_how_outputs_are_read_is_said_and_can_be_overruled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    net = seeded(Transformer)
    with extract(tmp_path, net, layers="embed,blocks.*") as run:
        assert (
            "read as channels first: embed; 1 token, the class token first, + 4 x 4 patches of width 8: blocks.0, b"
            in (caplog.text)
        )
        assert run.extraction is not None and run.extraction["layout"] == "auto"
    with extract(tmp_path, net, layers="blocks.*", tokens="2+3x5", force=True) as run:
        x = directly(net, "test", ["blocks.0"])[1]
        assert run.depth_shape(1) == (8, 3, 5)
        grid = x[:, 2:].transpose(1, 2).reshape(-1, 8, 3, 5).numpy()
        np.testing.assert_allclose(run.maps(1, "test")[:], grid, rtol=2**-10, atol=1e-4)  # type: ignore[index]
