"""Owns the choice of device and of the number type in which products are computed while training."""

from __future__ import annotations

import torch

from layerwise.errors import UsageError, unknown

DEVICES = ("auto", "cpu", "cuda")


def pick_device(name: str) -> torch.device:
    """Return the device named "auto", "cpu" or "cuda"; raise UsageError where it is not to be had."""
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda was asked for, but torch sees no GPU here; use --device cpu or auto.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 in silicon: from Ampere on, or a CPU with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return any(flag in _cpu_flags() for flag in ("avx512_bf16", "amx_bf16"))


def pick_precision(name: str, device: torch.device) -> str:
    """Return "fp32" or "bf16": what is asked for, or at "auto" bf16 where the device has it in silicon."""
    if name != "auto":
        return name
    return "bf16" if has_bfloat16(device) else "fp32"


def _cpu_flags() -> set[str]:
    """Return the features that the CPU announces; none where the system does not tell."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return set()
    return set(flags.partition(":")[2].split())
