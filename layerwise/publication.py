"""How a finished file appears under its name: whole or not at all, and never over another by chance."""

from __future__ import annotations

import errno
import functools
import logging
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layerwise.errors import UserError, option

log = logging.getLogger("layerwise.publication")

# A name may have 255 bytes on the usual file systems; temporary and lock files add at most 22 to what they take of it.
_LONGEST = 230
_TEMPORARY = re.compile(r"[0-9a-f]{12}\.partial")


def refuse_existing(path: Path, force: bool) -> None:
    """Raise UserError if `path` exists and `force` is off, or if it could not be written; asked before any work.

    A symbolic link is followed: the file is written where it points to. That the folder takes a file, and gives it
    its name, is tried, since permissions, quotas, full disks and read-only mounts are known in no other way.
    """
    path = followed(path)
    try:
        kind = path.stat().st_mode
    except FileNotFoundError:
        kind = None
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}. Give another name.") from None
    if kind is not None and stat.S_ISDIR(kind):
        raise UserError(f"{path} is a folder, but a file is to be written there. Give another name.")
    if kind is not None and not stat.S_ISREG(kind):
        raise UserError(f"{path} is no regular file, so nothing is written there. Give another name.")
    if kind is not None and not force:
        _unlink_twins(path)
        raise UserError(f"{path} exists already. Give another name, or {option('force', True)} to replace it.")
    _try_folder(path)


def followed(path: Path) -> Path:
    """Return where a file of this name is written: behind a symbolic link, if one stands there."""
    if not os.path.islink(path):
        return path
    try:
        return path.resolve(strict=False)
    except (OSError, RuntimeError):
        raise UserError(f"{path} is a symbolic link in a circle of links. Remove it, or give another name.") from None


def is_there(path: Path) -> bool:
    """Return whether a file stands under this name; say so where a symbolic link leads to nothing.

    Such a link is followed, as of results that are to be on another disk; but one that was there before may be on a
    disk that is not mounted.
    """
    if os.path.islink(path) and not path.exists():
        _say_dangling(path, os.readlink(path))
    return path.exists()


@functools.cache  # once a process, however often it is asked
def _say_dangling(path: Path, target: str) -> None:
    log.warning("%s is a symbolic link to %s, which is not there: it is made there anew", path, target)


@contextmanager
def published(path: Path, *, force: bool) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to the disk and publish it under its name.

    Without `force` the name is taken by a link, which fails if another process took it meanwhile. On any
    exception in the block the temporary file is removed and nothing is published; a finished file that cannot
    have its name stays under another, which the error says.
    """
    refuse_existing(path, force)
    path = followed(path)
    temporary = temporary_beside(path)
    try:
        yield temporary
        _flush(temporary)
        try:
            _name(temporary, path, force)
        except OSError as error:
            raise _kept(temporary, path, error) from None
        _flush_folder(path.parent)
    finally:
        with suppress(OSError):  # the first error is the one to tell, as of a folder that is gone
            temporary.unlink()


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of `path` that killed processes left; only for who holds its lock."""
    for entry in _temporaries(followed(path)):
        entry.unlink(missing_ok=True)


def _unlink_twins(path: Path) -> None:
    """Remove temporary names of a published file: its process was killed between giving it its name and taking this."""
    with suppress(OSError):
        if path.stat().st_nlink > 1:
            for entry in _temporaries(path):
                if entry.samefile(path):
                    entry.unlink()


def _temporaries(path: Path) -> Iterator[Path]:
    prefix = f".{short_name(path)}."
    for entry in path.parent.iterdir():  # not glob, to which names may be patterns
        if entry.name.startswith(prefix) and _TEMPORARY.fullmatch(entry.name.removeprefix(prefix)):
            yield entry


def temporary_beside(path: Path) -> Path:
    """Return a new name beside an output for what is not finished; `remove_leftovers` removes what has such names."""
    return path.with_name(f".{short_name(path)}.{uuid.uuid4().hex[:12]}.partial")


def short_name(path: Path) -> str:
    """Return the name of a path, cut so that what is put before and behind it leaves a name that file systems take."""
    return os.fsdecode(os.fsencode(path.name)[:_LONGEST])


def _try_folder(path: Path) -> None:
    """Raise UserError unless a file can be made beside `path` and be given a name of that length."""
    folder = path.parent
    if not folder.is_dir():
        raise UserError(f"the folder {folder} does not exist, so {path.name} cannot be written there. Make it first.")
    if len(os.fsencode(path.name)) > 255:
        raise UserError(f"the name {path.name[:40]}... is longer than 255 bytes. Give a shorter one.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"the folder {folder} is closed to writing. Give an output elsewhere.")
    # One name for all tries, so that those of killed processes do not pile up.
    trial = path.with_name(f".{short_name(path)}.trial")
    try:
        with open(os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "wb") as file:
            file.write(b"\0")
    except OSError as error:
        closed = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        reason = "is closed to writing" if closed else f"takes no file ({error.strerror})"
        raise UserError(f"the folder {folder} {reason}. Give an output elsewhere.") from None
    finally:
        with suppress(OSError):
            trial.unlink()


def _name(temporary: Path, path: Path, force: bool) -> None:
    """Give a finished file its name: over what is there with `force`, else only if nothing is."""
    if force:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        # File systems without hard links say so by many numbers (EPERM, ENOSYS, ENOTSUP, EINVAL, EMLINK, ...): take
        # the name exclusively, then put the file over it.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(temporary, path)


def _kept(temporary: Path, path: Path, error: OSError) -> UserError:
    """Return the error for a finished file that cannot have its name, which stays beside it under another."""
    other = path.with_name(f"{short_name(path.with_suffix(''))}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        os.rename(temporary, other)
    except OSError:  # the folder is gone, or closed meanwhile
        return UserError(f"{path} cannot be written: {error.strerror}. Give an output elsewhere.")
    if isinstance(error, FileExistsError):
        return UserError(
            f"{path} appeared while it was being made. Give another name, or {option('force', True)} to replace it; "
            f"what was made is kept beside it as {other.name}."
        )
    return UserError(
        f"{path} cannot be given its name ({error.strerror}); what was made is kept as {other.name} beside it."
    )


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(folder: Path) -> None:
    """Flush a folder's names to the disk, where the file system can: some FUSE and network ones say EINVAL."""
    with suppress(OSError):
        _flush(folder)
