"""The choice of the prefix: auto never fixes what is augmented, keeps what repeats and fits, and is told where."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import make_run, small_config

from layerwise import hardware
from layerwise.datasets import Sizes, reading
from layerwise.errors import UsageError, UserError
from layerwise.runfile import RunFile
from layerwise.training import stage_batches as reuse
from layerwise.training.stage_batches import fitting_place, kept_bytes, resolve_prefix

CPU = torch.device("cpu")
SIZES = Sizes((3, 8, 8), 10, {"train": 100, "validation": 20, "test": 50})
STILL = {"training.crop_padding": 0}


def resolved(memory: int = 10**12, **fields: Any) -> str:
    config = small_config(**fields)
    patch = pytest.MonkeyPatch()
    with patch.context() as inside:
        inside.setattr(reuse, "memory_room", lambda: memory)
        return resolve_prefix(config, SIZES, CPU).training.prefix


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (STILL, "cache"),
        ({}, "recompute"),  # crops are drawn anew in each epoch
        (STILL | {"training.flip": True}, "recompute"),
        ({"training.views": 1}, "cache"),
        ({"training.views": 2}, "recompute"),  # two epochs: no view comes again
        (STILL | {"training.epochs": 1}, "recompute"),
        (STILL | {"network.depth": 1}, "recompute"),
        (STILL | {"mode": "parallel"}, "recompute"),
        (STILL | {"mode": "end-to-end"}, "recompute"),
        (STILL | {"training.prefix": "recompute"}, "recompute"),
        ({"training.views": 2, "training.prefix": "cache"}, "cache"),
    ],
)
def test_auto_keeps_what_repeats(fields: dict[str, Any], expected: str) -> None:
    assert resolved(**fields) == expected


def test_auto_keeps_only_what_fits() -> None:
    # 120 images of 6 x 8 x 8 values of four bytes, and as much again left free.
    needed = 120 * 6 * 64 * 4
    assert kept_bytes(small_config(**STILL), SIZES) == needed
    assert resolved(memory=2 * needed, **STILL) == "cache"
    assert resolved(memory=2 * needed - 2, **STILL) == "recompute"


def test_the_largest_output_is_that_of_a_block_below_the_last_with_all_views() -> None:
    fields = {"network.depth": 3, "network.downsample": (2,), "training.views": 3, "precision": "bf16"}
    assert kept_bytes(small_config(**fields), SIZES) == (3 * 100 + 20) * 6 * 64 * 2
    assert kept_bytes(small_config(**{"network.depth": 1}), SIZES) == 0


@pytest.mark.parametrize(("memory", "expected"), [(2000, "device"), (1998, "disk")])
def test_memory_comes_before_the_disk(
    memory: int, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reuse, "memory_room", lambda: memory)
    assert fitting_place(1000, CPU, tmp_path) == expected


def test_what_fits_nowhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse, "memory_room", lambda: 0)
    message = "keeping the output of the frozen blocks takes 1.0 EB|1000000.0 TB, .* Use --prefix recompute, or fewer"
    with pytest.raises(UserError, match=message):
        fitting_place(10**18, CPU, tmp_path)


def test_on_a_gpu_auto_keeps_what_fits_the_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = kept_bytes(small_config(**STILL), SIZES)
    for device, memory, expected in ((2 * needed, 0, "cache"), (2 * needed - 2, 10**12, "recompute")):
        monkeypatch.setattr(reuse, "device_room", lambda _, room=device: room)
        monkeypatch.setattr(reuse, "memory_room", lambda room=memory: room)
        config = resolve_prefix(small_config(**STILL), SIZES, torch.device("cuda"))
        assert config.training.prefix == expected


def test_what_torch_holds_for_nobody_is_given_back_before_the_device_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free = [0]
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: free.__setitem__(0, 2000))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0], 4000))
    assert fitting_place(1000, torch.device("cuda"), tmp_path) == "device"


def test_this_machine_tells_its_free_memory() -> None:
    assert hardware.memory_room() > 10**6


def make_group(folder: Path, limit: str, current: int, cache: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{current}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cache}\n")


def test_the_limit_of_a_container_or_job_is_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    own.write_text("0::/job/step\n")
    make_group(tmp_path / "groups" / "job" / "step", "max", 10, 0)
    make_group(tmp_path / "groups" / "job", "1000", 600, 100)
    make_group(tmp_path / "groups", "3000", 700, 0)
    make_group(tmp_path, "1", 0, 0)  # above where groups are mounted
    assert list(hardware._group_rooms(tmp_path / "groups", own)) == [500, 2300]
    own.write_text("3:memory:/elsewhere\n")
    assert list(hardware._group_rooms(tmp_path / "groups", own)) == [2300]
    assert list(hardware._group_rooms(tmp_path / "nowhere", tmp_path / "nothing")) == []
    monkeypatch.setattr(hardware, "_group_rooms", lambda *words: iter([7, 10**18]))
    assert hardware.memory_room() == 7


def test_keeping_what_is_augmented_anew_is_refused_with_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"crops and flips are drawn anew in each epoch. Give --views N .*recompute"):
        small_config(**{"training.prefix": "cache"})


def test_keeping_is_refused_where_no_block_is_frozen() -> None:
    with pytest.raises(UsageError, match="training.prefix is 'cache', but must be recompute or auto: mode parallel"):
        small_config(mode="parallel", **STILL | {"training.prefix": "cache"})


def test_views_of_what_is_not_augmented_are_refused() -> None:
    with pytest.raises(UsageError, match="training.views is 2, but must be 0 where nothing is augmented"):
        small_config(**STILL | {"training.views": 2})


@pytest.mark.parametrize(("fields", "expected"), [({}, "recompute"), (STILL, "cache")])
def test_what_auto_became_stands_in_the_run(fields: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with RunFile(make_run(tmp_path / "run.h5", **fields)) as run:
        assert run.config is not None
        assert run.config.training.prefix == expected


def test_ranks_of_one_machine_share_its_cores_and_keep_once_what_its_memory_or_disk_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "_group_rooms", lambda *paths: iter([4000]))
    monkeypatch.setattr(reading, "cores", lambda: 16)
    monkeypatch.setattr(reuse.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**6))
    most = 500_000
    for processes, here, decode in ((1, 1, 15), (8, 4, 3)):
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
        assert (hardware.memory_room(), reading.AUTO.processes) == (4000, decode)
        assert fitting_place(most, CPU, tmp_path) == "disk"
        with pytest.raises(UserError, match="more than half of what is free"):
            fitting_place(most + 1, CPU, tmp_path)
