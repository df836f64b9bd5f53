"""Owns the one exception that means "the user can mend this", and how a wrong name is answered."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake that the user can mend, said in one line.

    The message states what was found, what was expected, where, and what to do. Commands print it as
    one line and exit with code 1; anything that is not a `UserError` is a defect of this software.
    """


class UsageError(UserError):
    """A `UserError` in the words of the command line itself; commands exit with code 2."""


def unknown(what: str, found: object, choices: Iterable[object]) -> UsageError:
    """Return the error for a name that is not among its choices, with the nearest one suggested.

    Args:
        what: the kind of thing named, such as "recipe".
        found: what the user wrote.
        choices: what may be written; listed in the order given.
    """
    names = [str(choice) for choice in choices]
    nearest = get_close_matches(str(found), names, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return UsageError(f"unknown {what} {str(found)!r}.{hint} Choices: {', '.join(names)}.")
