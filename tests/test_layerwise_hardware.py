"""Device and precision: what auto takes, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from layerwise import hardware
from layerwise.errors import UsageError, UserError
from layerwise.hardware import exact_float32, has_bfloat16, pick_device, pick_precision, products, reserve_disk

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("flags", "has"), [({"avx2"}, False), ({"avx512f"}, False), ({"avx512_bf16"}, True), ({"amx_bf16", "avx2"}, True)]
)
def test_auto_takes_bfloat16_where_the_cpu_has_it(flags: set[str], has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_cpu_flags", lambda: flags)
    assert has_bfloat16(CPU) == has
    assert pick_precision("auto", CPU) == ("bf16" if has else "fp32")


@pytest.mark.parametrize(("capability", "has"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_auto_takes_bfloat16_from_ampere_on(
    capability: tuple[int, int], has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bfloat16(torch.device("cuda")) == has


def test_what_is_asked_for_is_taken() -> None:
    assert pick_precision("fp32", CPU) == "fp32"
    assert pick_precision("bf16", CPU) == "bf16"


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == CPU
    with pytest.raises(UsageError, match="--device cuda was asked for, but torch sees no GPU here"):
        pick_device("cuda")
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        pick_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda"
    assert pick_device("cpu") == CPU


def test_each_process_of_a_machine_has_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name, value in {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    for seen, own in ((4, 3), (1, 0)):  # all GPUs, or its own alone, which a cluster may number 0
        monkeypatch.setattr(torch.cuda, "device_count", lambda seen=seen: seen)
        assert pick_device("auto") == torch.device("cuda", own)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="4 processes were started on this machine, which has 2 GPUs. Start one for"):
        pick_device("auto")


def test_a_system_that_does_not_tell_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", refuse)
    assert hardware._cpu_flags() == set()


def test_tf32_is_off_inside_and_as_before_outside() -> None:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        with exact_float32():
            assert not torch.backends.cudnn.allow_tf32
            assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("bf16", True)])
def test_training_in_fp32_uses_no_tf32(precision: str, allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with products(precision):
        assert torch.backends.cudnn.allow_tf32 == allowed


def test_room_on_the_disk_is_taken_before_a_file_is_mapped_or_refused(tmp_path: Path) -> None:
    with open(tmp_path / "a", "w+b") as file:
        reserve_disk(file, 0, tmp_path, "")
        reserve_disk(file, 10_000, tmp_path, "")
        assert os.stat(file.fileno()).st_size == 10_000
        assert os.stat(file.fileno()).st_blocks * 512 >= 10_000  # no hole
        with pytest.raises(UserError, match=r"has no room for 900,\S+ bytes of features kept on disk \(.*\). Free"):
            reserve_disk(file, 9 * 10**17, tmp_path, "Free some.")
