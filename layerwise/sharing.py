"""What the ranks of one machine hold in memory once: images, and the kept output of frozen blocks.

The first rank of a machine makes a file in memory without a name, the others map the same pages. It goes with the last
process that maps it, however that ends. Only Linux has such files: elsewhere each rank holds its own.
"""

from __future__ import annotations

import io
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from layerwise import launch, ranks
from layerwise.errors import UserError, option
from layerwise.hardware import reserve_disk

Value = TypeVar("Value")

# Smaller arrays travel as they are: a mapping takes a page and an open file of each rank.
MAPPED = 2**20


def is_shared() -> bool:
    """Return whether the ranks of this machine share memory."""
    return ranks.world() > 1 and hasattr(os, "memfd_create")


def loaded_once(load: Callable[[], Value]) -> Value:
    """Return what the first rank of this machine loads; of arrays of a megabyte and more there is one copy a machine.

    load: returns what can be pickled; arrays that it had from `room` are not copied.
    """
    global _given
    if not is_shared():
        return load()
    _given = {}
    try:
        packed = ranks.of_machine(lambda: _packed(load()))
        found = _Unpickler(io.BytesIO(packed)).load()
        ranks.all_of(None)  # every rank has mapped it before the files are closed
    finally:
        for handle, _ in _given.values():
            os.close(handle)
        _given = None
    return found


def room(shape: tuple[int, ...]) -> np.ndarray:
    """Return an array to be filled, uint8, that `loaded_once` gives to the other ranks without a copy."""
    if _given is None or not prod(shape):
        return np.empty(shape, np.uint8)
    return _in_memory(prod(shape)).reshape(shape)


def shared_tensor(shape: tuple[int, ...], dtype: torch.dtype, folder: Path | None = None) -> Tensor:
    """Return a tensor to be filled that all ranks of this machine share, each rank its part; all ranks call this.

    folder: where its bytes lie in an unlinked file; None for memory.

    Raises UserError where the disk is too full.
    """
    if folder is None and not is_shared():
        return torch.empty(shape, dtype=dtype)
    with ExitStack() as stack:
        path = ranks.of_machine(lambda: stack.enter_context(_file(prod(shape) * dtype.itemsize, folder)))
        tensor = _mapped(path, prod(shape), dtype).view(shape)
        ranks.all_of(None)  # before its name goes
    return tensor


def part(n: int) -> slice:
    """Return which of n things that the ranks of this machine make together this rank makes."""
    return slice(launch.local_number(), n, launch.local_count()) if is_shared() else slice(n)


# While `loaded_once` loads: open files that other ranks are to map, by the address of their array here; with the array,
# so that no other one gets its address meanwhile.
_given: dict[int, tuple[int, np.ndarray]] | None = None


def _in_memory(size: int) -> np.ndarray:
    """Return so many bytes that lie in a file in memory, uint8 [size], and keep that file open."""
    handle = _unnamed(size)
    array = _mapped(_path(handle), size, torch.uint8).numpy()
    assert _given is not None
    _given[array.ctypes.data] = handle, array
    return array


def _unnamed(size: int) -> int:
    """Open a new file in memory, of so many bytes."""
    handle = os.memfd_create("layerwise")
    os.ftruncate(handle, size)
    return handle


def _path(handle: int) -> str:
    """Return the path by which the other ranks of this machine open a file of this process."""
    return f"/proc/{os.getpid()}/fd/{handle}"


@contextmanager
def _file(size: int, folder: Path | None) -> Iterator[str]:
    """Make a file in a folder, or in memory, of so many bytes; yield its path, under which it can be opened until the
    end of the block."""
    if folder is None:
        handle = _unnamed(size)
        try:
            yield _path(handle)
        finally:
            os.close(handle)
        return
    # The name goes with the block, the bytes with the tensor: a process that is killed leaves no file behind.
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".prefix.") as file:
        reserve_disk(file, size, Path(file.name).parent, f"Free some, or give {option('prefix', 'recompute')}.")
        yield file.name


def _packed(value: object) -> bytes:
    """Return a value pickled, of its large arrays where they lie in memory."""
    packed = io.BytesIO()
    _Pickler(packed, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return packed.getvalue()


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> tuple[str, tuple[int, ...], np.dtype[Any]] | None:
        if not isinstance(value, np.ndarray) or value.nbytes < MAPPED or value.dtype.hasobject:
            return None
        assert _given is not None
        if value.ctypes.data not in _given or not value.flags.c_contiguous:
            source, value = value, _in_memory(value.nbytes).view(value.dtype).reshape(value.shape)
            value[...] = source
        return _path(_given[value.ctypes.data][0]), value.shape, value.dtype


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, found: Any) -> np.ndarray:
        path, shape, dtype = found
        size = prod(shape) * dtype.itemsize
        return _mapped(path, size, torch.uint8).numpy().view(dtype).reshape(shape)


def _mapped(path: str, count: int, dtype: torch.dtype) -> Tensor:
    """Map a file that another rank may have made."""
    try:
        return torch.from_file(path, shared=True, size=count, dtype=dtype)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"memory that ranks of one machine share cannot be opened ({path}: {str(error).splitlines()[0]}). Start "
            "all ranks of a machine as one user and in one container."
        ) from None
