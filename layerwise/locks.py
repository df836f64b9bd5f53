"""Lock files: one process at a time works on an output, and the second one is told which has it.

A lock file holds the number of the process that has it. It is opened without following a link and without emptying
what is there: a link in its place, or another file, keeps every byte.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layerwise.errors import UserError, option

log = logging.getLogger("layerwise.locks")

# What flock says on a file system without locks (NFS without its daemon, some FUSE file systems).
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
_OWN = re.compile(rb"(\d+\n)?")
WAIT = 0.1  # seconds between two tries of a process that waits: results are written in tens of milliseconds


@contextmanager
def held(path: Path, work: str, *, wait: bool, in_own_folder: bool = False) -> Iterator[None]:
    """Hold a lock file in the block.

    Args:
        work: what is done under it, as "layerwise-train is working on run.h5", for who comes second.
        wait: whether the second waits, saying so, or is refused.
        in_own_folder: whether its folder is made with it, which the last holder may have removed a moment ago. Any
            other folder that is gone stays gone: its user moved it.

    Raises:
        UserError: another process holds it (where `wait` is off), or something else stands in its place.
    """
    handle = _taken(path, work, wait, in_own_folder)
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def held_briefly(path: Path, work: str) -> Iterator[None]:
    """Hold a lock file in the block, waiting for it, and remove it: nothing stays beside a user's files.

    A killed process leaves it, and the next holder removes it. Raises as `held` does.
    """
    with held(path, work, wait=True):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _taken(path: Path, work: str, wait: bool, in_own_folder: bool) -> int:
    """Return the open lock file, locked; tried anew where the holder removed it while it was waited for."""
    told = False
    while True:
        if in_own_folder:
            with suppress(OSError):  # what is wrong is said when the lock is opened
                path.parent.mkdir(exist_ok=True)
        handle = _opened(path)
        try:
            if _locked(handle, path):
                if not _is_still(handle, path):
                    os.close(handle)
                    continue
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
                return handle
            holder = os.pread(handle, 20, 0).decode().strip()
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        by = f" (process {holder})" if holder else ""
        if not wait:
            raise UserError(f"another {work}{by}. Wait for it, or give another {option('out')}.")
        if not told:
            log.info("waiting: another %s%s", work, by)
            told = True
        time.sleep(WAIT)


def _opened(path: Path) -> int:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(f"{path} is a symbolic link, but a lock file is to stand there. Remove the link.") from None
        if error.errno == errno.EISDIR:
            raise UserError(f"{path} is a folder, but a lock file is to stand there. Move it away.") from None
        closed = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        cure = "Make the folder writable, or work on a copy elsewhere." if closed else "Work in another folder."
        raise UserError(f"the lock file {path} cannot be opened ({error.strerror}). {cure}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode) or not _OWN.fullmatch(os.pread(handle, 64, 0)):
        os.close(handle)
        raise UserError(f"{path} is no lock file, but a lock file is to stand there. Move it away.")
    return handle


def _locked(handle: int, path: Path) -> bool:
    """Lock an open file if it is free; where the file system has no locks, go on without, and say so."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log.warning(
            "%s cannot be locked (%s): do not run a second command on the same file meanwhile", path, error.strerror
        )
    return True


def _is_still(handle: int, path: Path) -> bool:
    """Return whether the locked file still has its name: its last holder may have removed it after we opened it."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    own = os.fstat(handle)
    return (own.st_dev, own.st_ino) == (named.st_dev, named.st_ino)
