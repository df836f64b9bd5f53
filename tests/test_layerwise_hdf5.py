"""HDF5 files that point out of themselves or lie about their size are refused; errors of a disk come as they are."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from layerwise.errors import UserError
from layerwise.hdf5 import create_hdf5, open_hdf5


def opened(path: Path) -> h5py.File:
    return open_hdf5(path, "run file", "layerwise-train", "Take an intact copy.")


def external_raw(file: h5py.File) -> None:
    other = Path(file.filename).with_name("other.bin")
    other.write_bytes(bytes(80))
    file.create_dataset("x", (10,), "<f8", external=[(str(other), 0, 80)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((10,), "<f8")
    layout[:] = h5py.VirtualSource(str(Path(file.filename).with_name("other.h5")), "y", (10,))
    file.create_virtual_dataset("x", layout)


def committed_type(file: h5py.File) -> None:
    file["x"] = np.dtype("<f8")


def second_name(file: h5py.File) -> None:
    file["g/y"] = np.zeros(3)
    file["g/x"] = file["g/y"]


def circle(file: h5py.File) -> None:
    file["g/x"] = file["/"]


MISLEADING: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "soft link": (lambda f: f.__setitem__("x", h5py.SoftLink("/y")), "/x is a soft link"),
    "soft link below": (lambda f: f.__setitem__("g/x", h5py.SoftLink("/y")), "/g/x is a soft link"),
    "external link": (lambda f: f.__setitem__("x", h5py.ExternalLink("other.h5", "/y")), "/x is an external link"),
    "external storage": (external_raw, "/x keeps its values in another file"),
    "virtual": (virtual, "/x keeps its values in another file"),
    "committed type": (committed_type, "/x is neither a group nor a dataset"),
    "second name": (second_name, "is a second name of another object"),
    "circle": (circle, "/g/x is a second name of another object"),
    "no values": (lambda f: f.__setitem__("x", h5py.Empty("f8")), "/x has no values"),
    "never written": (lambda f: f.create_dataset("x", (10**12,), "<f8"), "/x declares 8,000,000,000,000 bytes"),
    "chunked": (lambda f: f.create_dataset("x", (10**9,), "<f8", chunks=(10,)), "/x declares 8,000,000,000 bytes"),
    "compressed": (
        lambda f: f.create_dataset("x", (10**9,), "<f8", chunks=(10,), compression="gzip").__setitem__(0, 1),
        "/x declares 8,000,000,000 bytes",
    ),
}


@pytest.mark.parametrize("case", MISLEADING)
def test_what_points_out_of_the_file_or_declares_too_much_is_refused(tmp_path: Path, case: str) -> None:
    make, words = MISLEADING[case]
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["y"] = np.ones(10)
    with h5py.File(tmp_path / "run.h5", "w") as file:
        make(file)
    with pytest.raises(UserError, match=f"run.h5 cannot be used: .*{words}.*Take an intact copy"):
        opened(tmp_path / "run.h5")


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_what_is_whole_is_opened_compressed_or_not(tmp_path: Path, compression: str | None) -> None:
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file.create_dataset("zeros", data=np.zeros((10**6, 2)), chunks=(10**4, 2), compression=compression)
        file.create_dataset("flat", data=np.arange(7))
        file.create_dataset("empty", (0, 3), "<f4")
        file["scalar"] = 1.5
    with opened(tmp_path / "run.h5") as file:
        assert sorted(file) == ["empty", "flat", "scalar", "zeros"]


@pytest.mark.parametrize("kind", ["pipe", "folder", "missing", "circle of links", "text"])
def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run.h5"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "circle of links":
            path.symlink_to(path)
        case "text":
            path.write_text("no HDF5")
    words = {"pipe": "is no regular file", "folder": "is a folder", "text": "is no run file: it is not HDF5"}
    with pytest.raises(UserError, match=words.get(kind, "does not exist|cannot be looked at")):
        opened(path)


@pytest.mark.parametrize("ends", ["closed", "killed"])
def test_a_file_that_another_program_writes_is_not_called_damaged(tmp_path: Path, ends: str) -> None:
    path = tmp_path / "run.h5"
    with h5py.File(path, "w", libver="v110") as file:
        file["x"] = 1
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'a'); print(flush=True); sys.stdin.read(); f.close()"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(UserError, match="HDF5 cannot lock .*run.h5: it is open for writing in another program"):
            opened(path)
        if ends == "killed":
            holder.kill()
    if ends == "closed":
        opened(path).close()
        return
    with pytest.raises(UserError, match="run.h5 is marked as open for writing. Close it .*h5clear -s .*run.h5"):
        opened(path)


@pytest.mark.parametrize("flushes", ["True", "False"])
@pytest.mark.parametrize("limit", [1, 900, 5_000, 300_000])
def test_a_disk_that_is_full_is_told_as_the_system_tells_it_and_nothing_crashes(
    tmp_path: Path, limit: int, flushes: str
) -> None:
    code = f"""
import errno, resource, sys
import numpy as np
from pathlib import Path
from layerwise.hdf5 import create_hdf5
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    with create_hdf5(Path(sys.argv[1])) as file:
        for i in range(100):
            file[f"g{{i}}/x"] = np.arange(1000)
        if {flushes}:
            file.flush()
except OSError as error:
    print(errno.errorcode[error.errno], Path(error.filename).name)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.h5")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "EFBIG a.h5\n", "")


def test_what_was_written_is_read_back_by_anybody(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(1000, 7))
    with create_hdf5(tmp_path / "a.h5", alignment=4096) as file:
        file["x/y"] = values
        file.attrs["said"] = "ö"
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["x/y"][:], values)
        assert file.attrs["said"] == "ö"
        assert file["x/y"].id.get_offset() % 4096 == 0
    with pytest.raises(FileExistsError), create_hdf5(tmp_path / "a.h5"):
        pytest.fail("it was written over")


def test_a_declared_size_takes_no_memory(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file.create_dataset("x", (2**33,), "<f8")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="declares"):
        opened(tmp_path / "run.h5")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KB
    assert errno.EFBIG  # what RLIMIT_FSIZE gives above, where a full disk gives ENOSPC
