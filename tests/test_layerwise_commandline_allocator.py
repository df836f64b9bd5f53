"""Freed memory stays with the process, so that the next large array needs no page of its own from the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource, sys
from layerwise.commandline import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(print("none"))
def faults():
    import ctypes
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        block = libc.malloc(2**26)
        ctypes.memset(block, 1, 2**26)
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def page_faults(word: str) -> int:
    done = subprocess.run([sys.executable, "-c", CODE, word], capture_output=True, text=True, check=True)
    if done.stdout.strip() == "none":
        pytest.skip("this C library has no mallopt")
    return int(done.stdout)


def test_a_large_array_is_paged_in_once_and_not_at_every_allocation() -> None:
    assert page_faults("keep") < 2**26 // 2**21 < page_faults("leave")
