"""Tests of blocks of a user's own: they train like the paper's, and a file of code is run where it is named alone."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import small_config

import layerwise
import probes
from layerwise.activations import open_activations
from layerwise.commandline import call
from layerwise.commands.export import export as export_command
from layerwise.commands.inspect import inspect
from layerwise.commands.train import train as train_command
from layerwise.config import NetworkConfig, RunConfig
from layerwise.datasets import Sizes
from layerwise.errors import UsageError, UserError
from layerwise.forecast.memory import forecast_memory
from layerwise.model import custom as factories
from layerwise.model.architectures import settled
from layerwise.model.counts import count_problems
from layerwise.model.custom import block_shapes, make_block, register
from layerwise.model.network import LayerwiseNetwork
from layerwise.runfile import RunFile
from layerwise.runfile.place import Place
from layerwise.settings import set_fields
from layerwise.training.checkpoint import Checkpoint
from layerwise.training.operations import count_operations
from layerwise.training.prefix import FrozenPrefix
from layerwise.training.run import train_run
from probes.cli import probe as probe_command
from probes.results.table import read_rows

GOLDEN = Path(__file__).parent / "golden" / "run-v1.h5"
IMAGE = (1, 8, 8)
RESIDUAL = """
    import torch
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
            )

        def forward(self, x):
            return torch.relu(x + self.body(x))

    def blocks():
        return [nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU()), Residual(6), nn.MaxPool2d(2)]
"""
PLAIN = """
    from torch import nn
    from layerwise.model.blocks import Block

    def blocks():
        make = lambda c, w, p: Block(c, w, downsampling=p, batch_norm=True, bias=False)
        return nn.Sequential(make(1, 6, False), make(6, 12, True), make(12, 12, False))
"""


@pytest.fixture(autouse=True)
def unknown_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let each test begin in a process that knows no factory."""
    monkeypatch.setattr(factories, "_known", {})
    block_shapes.cache_clear()
    yield
    block_shapes.cache_clear()


def written(folder: Path, text: str = RESIDUAL, name: str = "net.py") -> str:
    (folder / name).write_text(textwrap.dedent(text))
    return f"{folder / name}:blocks"


def config_of(spec: str, **fields: Any) -> RunConfig:
    return set_fields(small_config(), {**register(spec), **fields})


def trained(spec: str, out: Path, **fields: Any) -> Path:
    train_run(config_of(spec, **fields), Place(out=out, device=torch.device("cpu")))
    return out


def test_a_residual_network_is_trained_and_kept_as_any_other(tmp_path: Path) -> None:
    path = trained(written(tmp_path), tmp_path / "run.h5", store="maps")
    with RunFile(path) as run:
        assert run.config is not None
        net = run.config.network
        assert (net.factory, net.depth, net.width, net.has_batch_norm) == ("net.py:blocks", 3, 6, True)
        assert [run.depth_shape(j) for j in range(4)] == [IMAGE, (6, 8, 8), (6, 8, 8), (6, 4, 4)]
        assert all(run.scores(j)["test_accuracy"] > 0.2 for j in (1, 2, 3))
        for depth in range(4):  # recomputed from the blocks in the file, it is what was stored
            stored, again = (open_activations(run, depth, "test", source=s)[:20] for s in ("stored", "recompute"))
            torch.testing.assert_close(stored, again, rtol=1e-3, atol=1e-3)
        table = probes.fit(run, "linear")
    assert set(table["variant"]) == {"net.py:blocks"} and set(table["depth"]) == {0, 1, 2, 3}


@pytest.mark.parametrize("mode", ["parallel", "end-to-end", "untrained"])
def test_the_other_modes(mode: str, tmp_path: Path) -> None:
    with RunFile(trained(written(tmp_path), tmp_path / "run.h5", mode=mode)) as run:
        assert max(run.depths) == 3 and (run.weights("auxiliaries", 3) is None) == (mode == "untrained")
        if mode == "untrained":  # BatchNorm has the statistics of the images, and no weight has moved
            weights = run.weights("blocks", 2)
            network = LayerwiseNetwork(config_of(written(tmp_path)).network, IMAGE, 10, (0.5,), (0.5,), 0)
            assert weights is not None and np.abs(weights["body.1.running_mean"]).max() > 0
            assert np.array_equal(weights["body.0.weight"], network.blocks[1].state_dict()["body.0.weight"].numpy())


def test_the_same_seed_gives_the_same_file_and_another_another(tmp_path: Path) -> None:
    spec, digests = written(tmp_path), []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        with RunFile(trained(spec, tmp_path / f"{name}.h5", seed=seed)) as run:
            digests.append(run.content_digest)
    assert digests[0] == digests[1] != digests[2]


def test_what_dropout_draws_is_repeated_also_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
    from torch import nn
    conv = lambda c: nn.Sequential(nn.Conv2d(c, 6, 3, padding=1), nn.ReLU(), nn.Dropout(0.5))

    def blocks():
        return [conv(1), conv(6)]
    """
    spec, fields = written(tmp_path, text), {"training.epochs": 3}
    torch.manual_seed(1)
    whole = trained(spec, tmp_path / "whole.h5", **fields)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    saves = 0

    def saved(self: Checkpoint, *words: Any) -> None:
        nonlocal saves
        saves += 1
        save(self, *words)
        if saves == 5:  # in the second epoch of block 2
            raise KeyboardInterrupt

    save = Checkpoint.save
    monkeypatch.setattr(Checkpoint, "save", saved)
    with pytest.raises(KeyboardInterrupt):
        trained(spec, tmp_path / "run.h5", **fields)
    stopped = trained(spec, tmp_path / "run.h5", **fields)
    assert torch.equal(torch.get_rng_state(), before)  # the caller's stream stands where it stood
    with RunFile(whole) as one, RunFile(stopped) as other:
        assert one.content_digest == other.content_digest


@pytest.mark.parametrize("fields", [{}, {"mode": "parallel"}, {"training.views": 2, "training.prefix": "cache"}])
def test_a_block_that_writes_into_its_input_changes_nothing_of_it(fields: dict[str, Any], tmp_path: Path) -> None:
    text = """
    from torch import nn

    def blocks():
        conv = lambda c: nn.Sequential(nn.Conv2d(c, 6, 3, padding=1), nn.BatchNorm2d(6))
        return [conv(1), nn.Sequential(nn.ReLU(inplace=IN_PLACE), conv(6))]
    """
    made = []
    for kind in ("True", "False"):
        spec = written(tmp_path, text.replace("IN_PLACE", kind), f"{kind}.py")
        with RunFile(trained(spec, tmp_path / f"{kind}.h5", store="maps", **fields)) as run:
            made.append([run.maps(j, "test")[:] for j in (1, 2)] + [run.outputs(j, "test")[:] for j in (1, 2)])  # type: ignore[index]
    assert (made[0][0] < 0).any()
    assert all(np.array_equal(one, other) for one, other in zip(*made, strict=True))


def test_an_untrained_networks_statistics_are_taken_without_dropout(tmp_path: Path) -> None:
    text = """
    from torch import nn

    def blocks():
        return [nn.Sequential(nn.Dropout(0.9), nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6))]
    """
    with RunFile(trained(written(tmp_path, text), tmp_path / "run.h5", mode="untrained")) as run:
        made, x = open_activations(run, 1, "train"), torch.cat(list(open_activations(run, 1, "train").batches()))
    assert made.source == "recompute"
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(6), atol=1e-2, rtol=0)


def test_where_block_j_starts_does_not_depend_on_what_was_drawn_before(tmp_path: Path) -> None:
    net = settled(config_of(written(tmp_path)).network, IMAGE)
    network = LayerwiseNetwork(net, IMAGE, 10, (0.5,), (0.5,), 3)
    torch.manual_seed(17)
    again = network.new_block(2).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in network.blocks[1].state_dict().items())
    other = LayerwiseNetwork(net, IMAGE, 10, (0.5,), (0.5,), 4).new_block(2).state_dict()
    assert not torch.equal(other["body.0.weight"], again["body.0.weight"])


def test_frozen_blocks_below_compute_what_they_are(tmp_path: Path) -> None:
    net = settled(config_of(written(tmp_path)).network, IMAGE)
    network = LayerwiseNetwork(net, IMAGE, 10, (0.5,), (0.5,), 0).eval()
    images = torch.randint(0, 256, (5, *IMAGE), dtype=torch.uint8)
    with torch.no_grad():
        expected = network.advance(network.normalise(images), 0, 2)
    found = FrozenPrefix(network, 2, "fp32")(images)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad


def test_counts_are_those_of_the_formulas_where_the_blocks_are_the_papers(tmp_path: Path) -> None:
    own = settled(config_of(written(tmp_path, PLAIN), **{"network.k": 3}).network, IMAGE)
    plain = NetworkConfig(depth=3, width=6, k=3, aux_width=5, downsample=(2,))
    theirs = [(p.shape, p.block, p.learning) for p in count_problems(plain, IMAGE, 10)]
    assert [(p.shape, p.block, p.learning) for p in count_problems(own, IMAGE, 10)] == theirs
    sizes = Sizes(IMAGE, 10, {"train": 100, "validation": 20, "test": 30})
    # M~ doubles at P in the paper's network alone.
    flat = set_fields(small_config(), {"network.depth": 3, "network.k": 3, "network.downsample": ()})
    mine = set_fields(flat, register(written(tmp_path, PLAIN.replace("6, 12, True", "6, 6, False").replace("12", "6"))))
    mine = set_fields(mine, {"network.width": 6})
    for mode in ("greedy", "parallel", "end-to-end"):
        one, other = (set_fields(c, {"mode": mode}) for c in (flat, mine))
        assert count_operations(one, sizes) == count_operations(other, sizes)
        memory = [forecast_memory(set_fields(c, {"precision": "fp32"}), sizes).total for c in (one, other)]
        assert memory[1] == pytest.approx(memory[0], rel=0.35)


def test_batch_norm_of_the_blocks_is_that_of_the_auxiliaries(tmp_path: Path) -> None:
    with_it = settled(config_of(written(tmp_path), **{"network.k": 1}).network, IMAGE)
    bare = "from torch import nn\ndef blocks():\n    return [nn.Conv2d(1, 3, 3)]\n"
    without = settled(config_of(written(tmp_path, bare), **{"network.k": 1}).network, IMAGE)
    assert (with_it.has_batch_norm, without.has_batch_norm, without.width) == (True, False, 3)
    assert settled(config_of(written(tmp_path), **{"network.batch_norm": "off"}).network, IMAGE).batch_norm == "off"


def test_a_run_file_brings_no_code_and_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = written(tmp_path)
    path = trained(spec, tmp_path / "run.h5")
    monkeypatch.setattr(factories, "_known", {})
    needed = (
        r"the blocks are those of net.py:blocks, which a run file does not hold. Name .* network='PATH/net.py:blocks'"
    )
    with layerwise.open_run(path) as run:
        probes.fit(run, "linear", depths=[1])  # reads what is stored
        assert open_activations(run, 0, "test")[:2].shape == (2, *IMAGE)  # needs no block
        with pytest.raises(UserError, match=needed):
            open_activations(run, 2, "test")
    other = written(tmp_path, RESIDUAL + "\n    # another file\n", "other.py")
    with pytest.raises(UserError, match="run.h5 was trained with other blocks, net.py:blocks .the SHA-256 or the"):
        layerwise.open_run(path, network=other)
    register(other)
    with layerwise.open_run(path) as run, pytest.raises(UserError, match="is another .its SHA-256 differs"):
        open_activations(run, 2, "test")
    with layerwise.open_run(path, network=spec) as run:
        assert open_activations(run, 2, "test")[:2].shape == (2, 6, 8, 8)


def test_other_blocks_of_one_file_and_blocks_of_a_run_without_any_are_refused(tmp_path: Path) -> None:
    two = written(tmp_path, RESIDUAL + "\n    def others():\n        return blocks()[:1]\n", "two.py")
    with pytest.raises(
        UserError, match="was trained with other blocks, two.py:blocks .the SHA-256 or the name differs"
    ):
        layerwise.open_run(trained(two, tmp_path / "two.h5"), network=two.replace(":blocks", ":others"))
    with pytest.raises(UserError, match="run-v1.h5 holds no blocks of your own, and needs none. Leave out network"):
        layerwise.open_run(GOLDEN, network=two)


def test_by_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    spec, out = written(tmp_path), str(tmp_path / "run.h5")
    words = ["digits", "--network", spec, "--epochs", "1", "--device", "cpu", "--quiet", "--out", out]
    assert call(train_command, "layerwise-train", [*words, "--dry-run"]) == 0
    assert "greedy: k = 2, J = 3, M = 6" in capsys.readouterr().out
    assert call(train_command, "layerwise-train", words) == 0
    assert call(inspect, "layerwise-inspect", [out]) == 0
    assert "network         net.py:blocks: J = 3, M = 6, k = 2" in capsys.readouterr().out
    monkeypatch.setattr(factories, "_known", {})
    probe_words = [out, "--probe", "cnn-1", "--probe-width", "2", "--probe-seeds", "1", "--epochs", "1", "--quiet"]
    assert call(probe_command, "probe-depth", probe_words) == 1
    assert "--network PATH/net.py:blocks" in capsys.readouterr().err
    assert call(probe_command, "probe-depth", [*probe_words, "--network", spec]) == 0
    assert set(pd.read_csv(tmp_path / "run.probes.csv")["depth"]) == {0, 1, 2, 3}
    monkeypatch.setattr(factories, "_known", {})
    exported = [out, "--depth", "2", "-o", str(tmp_path / "model.pt2")]
    assert call(export_command, "layerwise-export", exported) == 1
    assert "--network PATH/net.py:blocks" in capsys.readouterr().err and not (tmp_path / "model.pt2").exists()
    assert call(export_command, "layerwise-export", [*exported, "--network", spec]) == 0
    assert "with the outputs in run.h5" in capsys.readouterr().out
    with layerwise.train(out=tmp_path / "b.h5", network=spec, settings={"training.epochs": 1}) as run:
        assert read_rows(run).empty and max(run.depths) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--network", "{spec}", "--depth", "3"], "--depth is determined by the blocks of --network; leave it"),
        (["--network", "{spec}", "--set", "network.width=3"], "network.width names what another flag"),
        (["--network", "{spec}", "--prune-to", "3"], "network.prune_to is 3, but must be"),
        (["--network", "{spec}", "--from", "a.h5", "--replace-auxiliary", "3"], "--network starts a new training"),
        (["--network", "net"], "network 'net' is not understood; write path/to/file.py:FACTORY"),
        (["--network", "/nowhere/net.py:blocks"], "/nowhere/net.py does not exist; expected a file of Python."),
        (["--set", "network.architecture=custom"], "network.factory is '', but must be path/to/file.py:FUNCTION by"),
        (["--set", "network.architecture=resnet"], "unknown network.architecture 'resnet'"),
        (["--set", "network.factory=a.py:b"], "network.factory is 'a.py:b', but must be empty but for custom."),
    ],
)  # fmt: skip
def test_wrong_words(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = written(tmp_path)
    given = [word.format(spec=spec) for word in words]
    assert call(train_command, "layerwise-train", [*given, "--out", str(tmp_path / "run.h5")]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run.h5").exists()


CONV = "from torch import nn\nimport torch\nconv = lambda: nn.Conv2d(1, 1, 3, padding=1)\n"


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("3", r"the blocks of net.py:blocks are a int, but a list of torch.nn.Module is needed, one for each block."),
        ("[]", r"the blocks of net.py:blocks are nothing, but a list of torch.nn.Module is needed"),
        ("[conv(), 3]", r"block 2 of net.py:blocks is a int, but a torch.nn.Module is needed."),
        ("[nn.LazyConv2d(2, 3)]", r"block 1 of net.py:blocks has a lazy layer, whose shape is not known"),
        ("[conv(), nn.Flatten()]", r"block 2 .* makes \[2, \d+\] .* Leave out what makes vectors of maps"),
        ("[nn.Conv2d(1, 0, -3)]", r"net.py:blocks failed: \w+: .* \(.*, line \d+\)\.$"),
        ("(lambda c: [c, nn.Sequential(c)])(conv())", r"blocks 1 and 2 of net.py:blocks share parameters or buffers"),
        ("(lambda n: [nn.Sequential(conv(), n), n])(nn.BatchNorm2d(1, affine=False))", r"blocks 1 and 2 .* or buffers"),
        ("[conv(), nn.Conv2d(3, 1, 1)]", r"block 2 of net.py:blocks failed on maps of 1x8x8: RuntimeError: "),
        ("[nn.Flatten()]", r"block 1 of net.py:blocks makes \[2, 64\] of two maps of 1x8x8, but \[2, C, H, W\]"),
        ("[nn.AvgPool2d(8)]", r"block 1 of net.py:blocks makes \[2, 1, 1, 1\] of two maps of 1x8x8"),
        ("[nn.Unflatten(0, (1, 2))]", r"block 1 of net.py:blocks makes \[1, 2, 1, 8, 8\] of two"),
    ],
)  # fmt: skip
def test_what_is_no_blocks(returned: str, message: str, tmp_path: Path) -> None:
    spec = written(tmp_path, f"{CONV}def blocks():\n    return {returned}\n")
    with pytest.raises(UserError, match=message):
        block_shapes(config_of(spec).network, IMAGE)


def test_a_factory_that_changes_its_mind(tmp_path: Path) -> None:
    text = f"{CONV}made = []\ndef blocks():\n    made.append(1)\n    return [conv() for _ in made]\n"
    with pytest.raises(UserError, match=r"net.py:blocks returned 2 blocks, but 1 before."):
        register(written(tmp_path, text))
    net = config_of(written(tmp_path)).network
    with pytest.raises(UserError, match=r"net.py:blocks returned 3 blocks, but 5 before."):
        make_block(replace(net, depth=5), 1)


def test_a_factory_that_keeps_its_modules(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="net.py:blocks returned the same modules twice, .* Build them inside the func"):
        register(written(tmp_path, f"{CONV}kept = [conv()]\ndef blocks():\n    return kept\n"))


def test_a_sequential_may_hold_one_module_twice(tmp_path: Path) -> None:
    text = f"{CONV}def blocks():\n    p = nn.MaxPool2d(2)\n    return nn.Sequential(conv(), p, conv(), p)\n"
    assert [h for _, h, _ in block_shapes(config_of(written(tmp_path, text)).network, IMAGE)] == [8, 8, 4, 4, 2]


def test_arguments_of_no_network() -> None:
    with pytest.raises(UsageError, match="write path/to/file.py:FACTORY"):
        register("torchvision:resnet18")
