"""--dry-run: bytes equal to those of the file that is written, a table that fits, and nothing done."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from conftest import make_run, small_config
from torch.utils.flop_counter import FlopCounterMode

from layerwise.commandline import call
from layerwise.commands.train import train
from layerwise.config import MODES, NetworkConfig, RunConfig
from layerwise.datasets import Sizes
from layerwise.errors import UserError
from layerwise.forecast import rehearsal as timing
from layerwise.forecast.memory import forecast_memory
from layerwise.forecast.table import Forecast, describe_forecast, forecast_run
from layerwise.model.architectures import shapes
from layerwise.model.counts import count_problems
from layerwise.recipes import recipe
from layerwise.runfile.place import Place
from layerwise.runfile.plan import plan
from layerwise.settings import set_fields
from layerwise.training import run
from layerwise.training.dump import depths_of
from layerwise.training.operations import count_operations
from layerwise.units import show_seconds

PRUNED = {"network.k": 3, "network.prune_to": 3, "network.downsample": (2,), "training.finetune_epochs": 3}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "BUDGET", 0)
    monkeypatch.setattr(timing, "LEAST", 0)


def forecast(config: RunConfig, max_size: int = 10**9) -> Forecast:
    return forecast_run(config, Place(out=Path("never.h5"), device=torch.device("cpu"), max_size=max_size))


def bytes_by_path(path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item.nbytes} if isinstance(item, h5py.Dataset) else {}))
    del found["manifest"]
    return found


def below(found: dict[str, int], *groups: str) -> int:
    return sum(count for path, count in found.items() if path.startswith(groups))


@pytest.mark.parametrize(
    ("fields", "max_size"),
    [
        ({}, 10**9),
        ({"store": "maps", "network.downsample": (2,), "network.k": 3}, 10**9),
        ({"network.k": 1, "data.holdout": 0.0, "training.epochs": 1}, 10**9),
        ({"network.k": 1, "network.batch_norm": "on", "network.average": 1}, 10**9),
        ({"mode": "untrained", "store": "auto"}, 10**9),
        ({"mode": "parallel"}, 10**9),
        ({"mode": "end-to-end"}, 10**9),
        ({}, 300_000),
        (PRUNED, 10**9),
    ],
)
def test_bytes_are_those_of_the_file_that_is_written(fields: dict[str, Any], max_size: int, tmp_path: Path) -> None:
    storage = forecast(small_config(**fields), max_size).storage
    found = bytes_by_path(make_run(tmp_path / "run.h5", max_size, **fields))
    depths = tuple(below(found, f"depths/{j:02d}/") for j in range(3))
    assert storage.depth_bytes == depths
    assert storage.images * storage.image_bytes == below(found, "images/")
    assert storage.weight_bytes == below(found, "blocks/", "auxiliaries/", "outputs/", "compression/")
    assert storage.sample_bytes == below(found, "samples/")
    assert storage.history_bytes == below(found, "history", "provenance/")
    assert storage.total == sum(found.values())
    assert storage.images == (max_size > 300_000)


@pytest.mark.parametrize("fields", [*({"mode": mode} for mode in MODES), PRUNED], ids=str)
def test_operations_are_those_of_the_run(fields: dict[str, Any], tmp_path: Path) -> None:
    with FlopCounterMode(display=False) as counter:
        make_run(tmp_path / "run.h5", **fields)
    assert forecast(small_config(**fields)).operations.total == counter.get_total_flops()


def test_what_is_pruned_is_said() -> None:
    lines = list(describe_forecast(forecast(small_config(**PRUNED))))
    assert lines[2] == "each block pruned to 3 (as M), then 3 epochs of fine-tuning"


def test_what_would_not_fit_is_refused_as_it_would_be() -> None:
    with pytest.raises(UserError, match="the run file would take .*, but --max-size allows 1.0 KB"):
        forecast(small_config(), 1000)
    with pytest.raises(UserError, match="P before block 4 cannot halve maps of 1x1"):
        forecast(small_config(**{"network.depth": 4, "network.downsample": (1, 2, 3, 4)}))


def test_dry_run_tells_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "train", lambda *args: pytest.fail("training began"))
    (tmp_path / "run.h5").write_text("kept")
    words = ["--depth", "2", "--width", "6", "--aux-width", "5", "--device", "cpu", "--dry-run"]
    assert call(train, "layerwise-train", words) == 0
    assert call(train, "layerwise-train", [*words, "--out", "no/such/folder/run.h5"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["run.h5"]
    assert (tmp_path / "run.h5").read_text() == "kept"
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("nothing was done: the same command without --dry-run does it") == 2


def test_the_table_shows_every_depth_and_total() -> None:
    found = forecast(small_config())
    lines = list(describe_forecast(found))
    text = " ".join(" ".join(lines).split())
    assert lines[:2] == ["digits, greedy: k = 2, J = 2, M = 6, seed 0", "2 epochs of fp32 products"]
    assert "digits: train 1,295, validation 143, test 359 images" in text
    # Block 1: 9 x 6 weights and BatchNorm's 12; auxiliary: 9 x 6 x 5, BatchNorm 10 twice, 4 x 5 x 10 + 10.
    assert f"1 6 x 8 x 8 66 500 {found.operations.training[0]:.3e} 86.3 KB" in text
    assert "2 6 x 8 x 8 336 500" in text
    assert "parameters 1,402: blocks 402, auxiliaries 1,000" in text
    assert f"operations {found.operations.total:.3e}: training {sum(found.operations.training):.2e}, scoring" in text
    assert "depths hold pooled features as float16" in text
    assert f", in {found.memory.phase}; Python" in text
    assert "time about" in text
    assert "on this cpu: training" in text


def test_no_line_is_wider_than_80_columns_at_the_size_of_imagenet() -> None:
    small = small_config(store="maps")
    net = NetworkConfig(depth=8, width=256, k=3, aux_width=1024, downsample=(1, 3, 4, 5, 7))
    config = replace(small, network=net, training=replace(small.training, epochs=45))
    image, counts = (3, 224, 224), {"train": 1_153_051, "validation": 128_116, "test": 50_000}
    sizes = Sizes(image, 1000, counts)
    depths = depths_of(shapes(image, 8, 256, net.downsample))
    storage = plan(depths, counts, store="maps", max_size=10**18, weight_bytes=10**10, history_bytes=10**5)
    large = Forecast(
        config, torch.device("cpu"), sizes, count_problems(net, image, 1000),
        count_operations(config, sizes), storage, forecast_memory(config, sizes),
        {"training": 1e8, "scoring": 1e5, "dump": 1e5}, is_streamed=True,
    )  # fmt: skip
    lines = list(describe_forecast(large))
    assert any("4096 x 7 x 7" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_the_images_that_each_block_takes_are_said_here_and_on_a_stated_gpu() -> None:
    """Of imagenet-k3, whose counts are known: operations a second over those of an image and an epoch."""
    config = recipe("imagenet-k3")
    sizes = Sizes((3, 224, 224), 1000, {"train": 1_281_167, "test": 50_000})
    spent = count_operations(config, sizes)
    depths, seconds = depths_of(shapes(sizes.image, 8, 128, config.network.downsample)), sum(spent.training) / 1e11
    storage = plan(depths, sizes.counts, store="pooled", max_size=10**18, weight_bytes=10**9, history_bytes=10**5)
    found = Forecast(
        config, torch.device("cpu"), sizes, count_problems(config.network, sizes.image, 1000), spent, storage,
        forecast_memory(config, sizes, streamed=True), {"training": seconds, "scoring": 1, "dump": 1},
        is_streamed=True,
    )  # fmt: skip
    text = " ".join("\n".join(describe_forecast(found)).split())
    rates = "4,696, 4,251, 3,698, 3,698, 3,273, 3,273, 2,935, 2,935"
    assert f"; {rates} on an H100 at 40% of its bfloat16 peak (stated, not measured), where training takes" in text
    assert "training takes 36.5 h if images come as fast" in text
    assert "a second blocks 1..8 take 1, 1, 1, 1, 1, 1, 1, 1 images on this cpu" in text
    few = replace(found, operations=replace(spent, training=tuple(count // 1000 for count in spent.training)))
    assert "H100" not in " ".join(describe_forecast(few))
    other = replace(found, config=replace(config, mode="parallel"), operations=count_operations(config, sizes))
    assert "a second training take" in " ".join("\n".join(describe_forecast(other)).split())


@pytest.mark.parametrize("mode", MODES)
def test_no_line_is_wider_than_80_columns(mode: str) -> None:
    assert max(map(len, describe_forecast(forecast(small_config(mode=mode))))) <= 80


def test_whole_maps_are_named_where_they_are_stored() -> None:
    text = " ".join("\n".join(describe_forecast(forecast(set_fields(small_config(), {"store": "maps"})))).split())
    assert "depths hold pooled features and whole maps as float16" in text


THIS = r" \(this run\): \S+ operations in training, about [^;]*"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, rf"prefix recompute{THIS}; cache of 4 fixed views \(--views 4\): \S+ operations .* s, 8.2 MB kept"),
        ({"training.crop_padding": 0, "training.epochs": 3}, rf"prefix recompute: .*; cache{THIS}, 2.2 MB kept"),
        ({"training.views": 3, "training.epochs": 9}, rf"recompute: .*; cache of 3 fixed views \(--views 3\){THIS}"),
    ],
)
def test_both_prefixes_are_forecast(fields: dict[str, Any], expected: str) -> None:
    found = forecast(small_config(**fields))
    assert re.search(expected, " ".join(" ".join(describe_forecast(found)).split()))
    assert [other.config.training.prefix for other in found.prefixes] == ["recompute", "cache"]
    chosen = [other.config == found.config for other in found.prefixes]
    assert sum(chosen) == 1
    own = found.prefixes[chosen.index(True)]
    assert own.operations == sum(found.operations.training)
    assert own.seconds == found.seconds["training"]
    assert found.memory.kept == own.kept


@pytest.mark.parametrize("fields", [{"mode": "end-to-end"}, {"mode": "untrained"}, {"network.depth": 1}])
def test_without_a_frozen_block_there_is_no_choice_to_show(fields: dict[str, Any]) -> None:
    found = forecast(small_config(**fields))
    assert found.prefixes == ()
    assert not any(line.startswith("prefix") for line in describe_forecast(found))


def test_durations_are_shown_in_the_unit_that_suits_them() -> None:
    assert [show_seconds(s) for s in (0.04, 9.5, 31, 90, 7300)] == ["0.04 s", "9.5 s", "31 s", "1.5 min", "2.0 h"]
