"""Several files that appear all or none, also where the process is killed between two of them.

Before the first file has its name, a journal beside them says which are made, by digest; it goes when all have theirs.
The next command that is to write there removes what a killed one left, so that the same command can be given again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

from layerwise.errors import UserError
from layerwise.locks import held_briefly
from layerwise.publication import followed, published, remove_leftovers, short_name


def write(contents: Mapping[Path, bytes], force: bool) -> None:
    """Write all files under temporary names first, then give each its own.

    Args:
        contents: of each file, in an order that is the same each time.
        force: whether existing files are replaced.
    """
    paths = list(contents)
    journal = _journal(paths)
    with _alone(journal):
        _remove_unfinished(journal, paths)
        digests = {path.name: _digest(content) for path, content in contents.items()}
        try:
            with ExitStack() as stack:
                _fill(journal, json.dumps(digests).encode(), paths[0])
                for path, content in contents.items():
                    _fill(stack.enter_context(published(path, force=force)), content, path)
        except BaseException:
            if not force:  # what was there before is gone, so that what was made of the new is better than nothing
                _remove_unfinished(journal, paths)
            raise
        finally:
            journal.unlink(missing_ok=True)


def remove_unfinished(paths: Sequence[Path]) -> None:
    """Remove what a killed process left of a set of files: those of its journal's digests, temporary ones, the journal.

    A file that holds anything else, as one that the user put there meanwhile, is kept.
    """
    journal = _journal(paths)
    if os.path.lexists(journal) or os.path.lexists(_lock(journal)):
        with _alone(journal):
            _remove_unfinished(journal, paths)


def _remove_unfinished(journal: Path, paths: Sequence[Path]) -> None:
    digests = _read(journal)
    for path in paths:
        remove_leftovers(path)
        with suppress(OSError):
            file = followed(path)
            if digests.get(path.name) == _digest(file.read_bytes()):
                file.unlink()
    journal.unlink(missing_ok=True)


def _read(journal: Path) -> dict[str, str]:
    """Return the digests of a journal; none where there is none, or where its process was killed while it wrote."""
    try:
        found = json.loads(journal.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _alone(journal: Path) -> AbstractContextManager[None]:
    """Return the hold of the set's lock."""
    return held_briefly(_lock(journal), f"command is writing {journal.name[1:].removesuffix('.unfinished')}")


def _journal(paths: Sequence[Path]) -> Path:
    """Return the journal's name: the first file's, which a set with another first file does not share."""
    return paths[0].with_name(f".{short_name(paths[0])}.unfinished")


def _lock(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}.lock")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _fill(file: Path, content: bytes, path: Path) -> None:
    try:
        file.write_bytes(content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}. No file was made.") from None
