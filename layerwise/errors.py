"""UserError, the one exception that means "the user can mend this", and messages that several files need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol


class Speech(Protocol):
    """How options are called where a user writes no flags; layerwise/spoken.py has that of Python."""

    def option(self, name: str, value: str | bool | None) -> str:
        """Return an option as it is written there."""

    def text(self, message: str) -> str:
        """Return a message, whose flags are those of the commands, as it is said there."""


_speech: ContextVar[Speech | None] = ContextVar("speech", default=None)


class UserError(ValueError):
    """A mistake that the user can mend, said in one line.

    The message states what was found, what was expected, where, and what to do. Commands print it as
    one line and exit with code 1; anything that is not a `UserError` is a defect of this software.
    """


class EndedElsewhere(UserError):
    """Another process of this run was stopped, and says by what; this one ends with it, without a word."""


class UsageError(UserError):
    """A `UserError` in the words of the command line itself; commands exit with code 2."""


class DivergedError(UserError):
    """A training whose loss is no number any more: its settings are at fault, and what chooses settings goes on."""


@contextmanager
def speaking(speech: Speech) -> Iterator[None]:
    """Let errors of the block name options as `speech` does, and not as the commands' flags."""
    token = _speech.set(speech)
    try:
        yield
    except UserError as error:
        error.args = (speech.text(str(error)),)
        raise
    finally:
        _speech.reset(token)


def said(message: str) -> str:
    """Return a message of the log in the words of whoever called."""
    speech = _speech.get()
    return message if speech is None else speech.text(message)


def option(name: str, value: str | bool | None = None) -> str:
    """Return an option as its user writes it: --trained-on nothing, or, in a Python call, trained_on='nothing'.

    Args:
        name: as an argument of a function; value: what is given to it, True for a flag, None where only its name is
            wanted.
    """
    if (speech := _speech.get()) is not None:
        return speech.option(name, value)
    flag = "--" + name.replace("_", "-")
    return f"{flag} {value}" if isinstance(value, str) else flag


def unknown(what: str, found: object, choices: Iterable[object]) -> UsageError:
    """Return the error for a name that is not among its choices, with the nearest one suggested.

    Args:
        what: the kind of thing named, such as "recipe".
        found: what the user wrote.
        choices: what may be written; listed in the order given.
    """
    names = [str(choice) for choice in choices]
    # A value of another type may read like a choice.
    nearest = [name for name in get_close_matches(str(found), names, n=1, cutoff=0.5) if name != str(found)]
    # Of dotted paths, one that ends alike is meant: mode for training.mode, network.k for k.
    ends = str(found).rpartition(".")[2]
    nearest = [name for name in names if name.rpartition(".")[2] == ends and name != str(found)] or nearest
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return UsageError(f"unknown {what} {str(found)!r}.{hint} Choices: {', '.join(names)}.")


def nearest(found: str, names: Sequence[str]) -> str:
    """Return a sentence with the names nearest to what the user wrote, with a space before it; "" where none is near.

    For lists too long to be shown whole; `unknown` answers the others.
    """
    near = get_close_matches(found, names, n=3, cutoff=0.4)
    return f" Nearest: {', '.join(near)}." if near else ""


def no_file(path: Path, expected: str) -> UserError:
    """Return the error for a path that is no regular file; `expected` says what should be there."""
    found = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "does not exist"
    return UserError(f"{path} {found}; expected {expected}.")


def missing_package(what: str, packages: Sequence[str], extra: str, instead: str = "") -> UserError:
    """Return the error for packages that `what` needs and that are not installed.

    extra: the extra of this project that installs them, from its clone: the name is not published.
    instead: what else can be done, after the command.
    """
    noun, verb, pronoun = ("package", "is", "it") if len(packages) == 1 else ("packages", "are", "them")
    return UserError(
        f"{what} needs the {noun} {' and '.join(packages)}, which {verb} not installed; install {pronoun} by: "
        f"pip install '.[{extra}]' in the folder of this project{instead}"
    )


def one_line(error: BaseException) -> str:
    """Return the message of an error, whatever lines it has; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
