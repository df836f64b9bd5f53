"""How a finished file appears under its name: whole or not at all, and never over another by chance."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layerwise.errors import UserError, option


def refuse_existing(path: Path, force: bool) -> None:
    """Raise UserError if `path` exists and `force` is off, or if its folder is missing or closed to writing."""
    if path.is_dir():
        raise UserError(f"{path} is a folder, but a file is to be written there. Give another name.")
    if path.exists() and not force:
        raise UserError(f"{path} exists already. Give another name, or {option('force', True)} to replace it.")
    folder = path.parent
    if not folder.is_dir():
        raise UserError(f"the folder {folder} does not exist, so {path.name} cannot be written there. Make it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"the folder {folder} is closed to writing. Give an output elsewhere.")


@contextmanager
def published(path: Path, *, force: bool) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to the disk and publish it under its name.

    Without `force` the name is taken by a link, which fails if another process took it meanwhile. On any
    exception the temporary file is removed and nothing is published.
    """
    refuse_existing(path, force)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        yield temporary
        _flush(temporary)
        if force:
            os.replace(temporary, path)
        else:
            _link(temporary, path)
        _flush(path.parent)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of `path` that killed processes left; only for who holds its lock."""
    for leftover in path.parent.glob(f".{path.name}.*.partial"):
        leftover.unlink()


def _link(temporary: Path, path: Path) -> None:
    try:
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                raise
            # A file system without hard links: take the name exclusively, then put the file over it.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.replace(temporary, path)
    except FileExistsError:
        raise UserError(
            f"{path} appeared while it was being made. Give another name, or {option('force', True)} to replace it."
        ) from None


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
