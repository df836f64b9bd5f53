"""The device, its free memory, and the number type of products while training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

import torch

from layerwise import launch
from layerwise.errors import UsageError, UserError, unknown

DEVICES = ("auto", "cpu", "cuda")


def pick_device(name: str | torch.device) -> torch.device:
    """Return the device named "auto", "cpu" or "cuda", or given as torch has it.

    Raises UsageError where it is not available.
    """
    given, name = name, name.type if isinstance(name, torch.device) else name
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda was asked for, but torch sees no GPU here; use --device cpu or auto.")
    if isinstance(given, torch.device):
        return given
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if not launch.several():
        return torch.device("cuda")
    seen, own = torch.cuda.device_count(), launch.local_number()
    if launch.local_count() > seen > 1:
        raise UsageError(
            f"{launch.local_count()} processes were started on this machine, which has {seen} GPUs. Start one for each "
            "GPU, or give --device cpu."
        )
    return torch.device("cuda", own if own < seen else 0)  # a cluster may let each process see its own GPU alone


def thread_count() -> int:
    """Return how many threads compute on the CPU in this process."""
    return torch.get_num_threads()


def use_threads(count: int) -> None:
    """Let this process compute on the CPU with that many threads."""
    torch.set_num_threads(count)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 in silicon: GPUs from Ampere on, CPUs with AVX512-BF16 or AMX.

    There it shortens a training step by 1.8 (docs/performance.md); emulated, it would be slower than float32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return any(flag in _cpu_flags() for flag in ("avx512_bf16", "amx_bf16"))


def pick_precision(name: str, device: torch.device) -> str:
    """Return "fp32" or "bf16": what is asked for, or at "auto" bf16 where the device has it in silicon."""
    if name != "auto":
        return name
    return "bf16" if has_bfloat16(device) else "fp32"


@contextmanager
def ordinary_torch() -> Iterator[None]:
    """Compute as in a fresh process, whatever surrounds the call: no_grad, inference_mode, autocast, another default.

    In a notebook these stand around whole cells. They would leave training without gradients, or round activations to
    bfloat16 without a word.
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    with ExitStack() as stack:
        stack.callback(torch.set_default_dtype, dtype)
        torch.set_default_dtype(torch.float32)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(kind, enabled=False))
        if device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute in float32 throughout: TF32 off for convolutions and matrix products while the block runs."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@contextmanager
def tf32_products() -> Iterator[None]:
    """Let a GPU multiply float32 matrices as TF32, with 10 binary digits, while the block runs; a CPU has none."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Train in this context: at "fp32" products are exact float32 and never TF32, also backward.

    cuDNN times its algorithms once for each shape and takes the fastest; shapes are few here, and each is computed
    thousands of times.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        with exact_float32() if precision == "fp32" else nullcontext():
            yield
    finally:
        torch.backends.cudnn.benchmark = before


def _cpu_flags() -> set[str]:
    """Return the instruction sets that the CPU reports; none where the system has no /proc/cpuinfo."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return set()
    return set(flags.partition(":")[2].split())


CGROUPS = Path("/sys/fs/cgroup")


def device_room(device: torch.device) -> int:
    """Return the free bytes of a GPU's memory, after torch's allocator has given back what it holds in reserve."""
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def memory_room() -> int:
    """Return the bytes of memory that the system can still give this process; 0 where it has no /proc/meminfo."""
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return 0
    return min([free, *_group_rooms(CGROUPS, Path("/proc/self/cgroup"))])


def _group_rooms(root: Path, own: Path) -> Iterator[int]:
    """Yield the bytes that each control group (version 2) of this process still allows it.

    A container or a batch job is such a group. Inactive file cache counts as free, since the kernel drops it on demand.

    Args:
        root: where control groups are mounted. own: the file that names the process's own, as 0::/path.
    """
    try:
        path = next((line[3:].strip() for line in own.read_text().splitlines() if line.startswith("0::")), "/")
    except OSError:
        path = "/"
    group = root / path.strip("/")
    for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(root))):
        try:
            limit = (folder / "memory.max").read_text().strip()
            taken = int((folder / "memory.current").read_text())
            counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such group, or not of version 2
            continue
        if limit.isdigit():
            yield max(0, int(limit) - taken + int(counts.get("inactive_file", 0)))


def reserve_disk(file: IO[Any], size: int, folder: Path, instead: str) -> None:
    """Let a file have `size` bytes on the disk, before it is mapped into memory.

    A mapped file that grows as it is written ends the process by SIGBUS when the disk is full, without a word.

    Raises UserError where the disk has not as many; instead: what to do then.
    """
    try:
        if size and hasattr(os, "posix_fallocate"):  # which macOS has not
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise UserError(
            f"{folder} has no room for {size:,} bytes of features kept on disk ({error.strerror}). {instead}"
        ) from None
