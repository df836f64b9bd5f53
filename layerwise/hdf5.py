"""HDF5 files: opened without trusting them, written so that the first error of the disk is the one that is told.

HDF5 can point out of itself: soft and external links, datasets kept in other files, virtual ones. A file that was
damaged or made to mislead then shows numbers of another file, or hangs on a pipe. And a few bytes can declare an array
of terabytes. No file of this software needs any of that, so `open_hdf5` refuses it before a value is read.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py

from layerwise.errors import UserError, no_file

# What h5py raises on damaged files: OSError and KeyError by its documents, the others where a type is unexpected.
_DAMAGE = (
    OSError,
    LookupError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    SystemError,
)
# Deflate, the densest filter of HDF5's own, makes at most 1,032 bytes of one.
_DENSEST = 1100
# Alignment and caches as h5py has them; the format of 1.10 carries checksums of its metadata.
_VERSION = ("v110", "v110")


@contextmanager
def damage_named(path: Path, advice: str) -> Iterator[None]:
    """Turn what h5py raises on a damaged file into one line that names the file; advice: what to do."""
    try:
        yield
    except UserError:
        raise
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's own, as of a disk that is full or fails: the file may be whole
        raise UserError(
            f"{path} is damaged: its structure cannot be read ({type(error).__name__}). {advice}"
        ) from error


def open_hdf5(path: Path, kind: str, writer: str, advice: str) -> h5py.File:
    """Open a file for reading, after a look at every object's place and size.

    Args:
        kind: what should stand there, as "run file". writer: what writes it, as "layerwise-train".
        advice: what to do if the file is damaged, as "Take an intact copy."

    Raises:
        UserError: the file is missing, closed to reading, locked by another program, no HDF5, cut short, points out of
            itself, or declares more than it holds.
    """
    _require_file(path, f"a {kind}, as {writer} writes it")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise _not_opened(path, kind, writer, advice, error) from None
    try:
        with damage_named(path, advice):
            _require_self_contained(file, path, advice)
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def create_hdf5(path: Path, *, alignment: int = 1) -> Iterator[h5py.File]:
    """Yield a new file to write into; an error of the disk is raised as itself, an OSError with its errno.

    HDF5 on its own answers a full disk with a RuntimeError on closing, which hides the cause, and then crashes the
    process as it ends. So the bytes go through `_Sink`, which remembers the first error and lets HDF5 close in peace.
    Writing 0.5 GB takes as long as without it (29 calls).
    """
    sink = _Sink(path)
    try:
        aligned = {"alignment_threshold": alignment, "alignment_interval": alignment} if alignment > 1 else {}
        file = h5py.File(sink, "w", libver=_VERSION, **aligned)
        try:
            yield file
        except BaseException:
            with suppress(Exception):  # of a disk that took nothing more: the first error is the one to tell
                file.close()
            raise
        try:
            file.close()
        except Exception:
            if sink.error is None:
                raise
        if sink.error is not None:
            raise sink.error
    finally:
        sink.close()


def first_reason(error: BaseException) -> str:
    """Return the innermost reason of h5py's message, in one line, or the error's type where there is none."""
    text = " ".join(str(error).split()).strip("'\"")
    inner = text[text.find("(") + 1 : text.rfind(")")] if "(" in text and ")" in text else text
    return inner[:160] or type(error).__name__


class _Sink(io.RawIOBase):
    """The file under a new HDF5 file, as h5py takes one from Python; after an error it writes no more."""

    def __init__(self, path: Path):
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._path, self._position = path, 0
        self.error: OSError | None = None

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        self._position = offset + (os.fstat(self._handle).st_size if start is None else start)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._handle, [buffer], self._position)
        self._position += count
        return count

    def write(self, data: Any) -> int:
        view, at = memoryview(data).cast("B"), self._position
        self._position += len(view)
        with self._kept():
            while view and self.error is None:
                count = os.pwrite(self._handle, view, at)
                view, at = view[count:], at + count
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        if self.error is None:
            with self._kept():
                os.ftruncate(self._handle, size)
        return size

    def flush(self) -> None:
        pass  # the publication flushes the whole file to the disk

    def close(self) -> None:
        if not self.closed:
            os.close(self._handle)
        super().close()

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Keep the first error of the block and raise it."""
        try:
            yield
        except OSError as error:
            error.filename = str(self._path)
            self.error = error
            raise


def _require_file(path: Path, expected: str) -> None:
    """Raise UserError where no regular file is: a pipe would be waited for, and never end."""
    try:
        is_file = path.is_file()
    except OSError as error:  # a name that is too long, a folder that may not be entered, links in a circle
        raise UserError(f"{path} cannot be looked at ({error.strerror}); expected {expected}.") from None
    if not is_file:
        raise no_file(path, expected)


def _not_opened(path: Path, kind: str, writer: str, advice: str, error: OSError) -> UserError:
    """Return the line for a file that HDF5 does not open: closed, locked, of another kind, or damaged."""
    if isinstance(error, PermissionError):
        return UserError(f"{path} is closed to reading; change its permissions or use another copy.")
    if "unable to lock file" in str(error):
        return UserError(
            f"HDF5 cannot lock {path}: it is open for writing in another program, or its file system has no locks. "
            "Close it there and try again, or set HDF5_USE_FILE_LOCKING=FALSE to read without a lock."
        )
    if "already open for write" in str(error):
        return UserError(
            f"{path} is marked as open for writing. Close it in the program that has it open; if that was killed, "
            f"`h5clear -s {path}` removes the mark."
        )
    if kind == "run file" and path.suffix == ".npz":
        return UserError(
            f"{path} is no run file but arrays: `layerwise-extract --from {path}` makes a run file of them."
        )
    if not h5py.is_hdf5(path):
        return UserError(f"{path} is no {kind}: it is not HDF5. Expected a file written by {writer}.")
    return UserError(
        f"{path} is HDF5, but cannot be opened: it was cut short or damaged ({first_reason(error)}). {advice}"
    )


def _require_self_contained(file: h5py.File, path: Path, advice: str) -> None:
    """Raise UserError at the first link or dataset that points out of the file, or declares more than it holds."""
    size = file.id.get_filesize()
    seen = {h5py.h5o.get_info(file.id).addr}
    groups = [file["/"]]
    while groups:
        group = groups.pop()
        for name in group:
            where = f"{group.name.rstrip('/')}/{name}"
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                kind = "an external link" if isinstance(link, h5py.ExternalLink) else "a soft link"
                raise UserError(
                    f"{path} cannot be used: {where} is {kind}; all values must stand in the file itself. {advice}"
                )
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise UserError(f"{path} cannot be used: {where} is a second name of another object. {advice}")
            seen.add(address)
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif reason := _misleads(item, size):
                raise UserError(f"{path} cannot be used: {where} {reason}. {advice}")


def _misleads(item: h5py.HLObject, size: int) -> str | None:
    """Return what is wrong with where a dataset keeps its values, or None; size: bytes of the file."""
    if not isinstance(item, h5py.Dataset):
        return "is neither a group nor a dataset"
    made = item.id.get_create_plist()
    if made.get_layout() == h5py.h5d.VIRTUAL or made.get_external_count():
        return "keeps its values in another file"
    if item.shape is None:
        return "has no values (a null dataspace)"
    stored = item.id.get_storage_size()
    held = (min(stored, size) * _DENSEST) if made.get_nfilters() else min(stored, size)
    chunk = item.dtype.itemsize
    for side in item.chunks or (0,):
        chunk *= side
    if max(item.nbytes, chunk) > held:
        return f"declares {max(item.nbytes, chunk):,} bytes, more than the file's {stored:,} of it can hold"
    return None
