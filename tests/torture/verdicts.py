"""The words for what came of a trial, and which of them mean that a promise did not hold."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

from tests.torture.children import Done

# What holds. same: it ended as an uninterrupted run does. refused: one clear line. harmless: the numbers are equal.
# answered: a file that is whole by its own digests was read. skipped: something is not installed here.
HELD = ("same", "refused", "harmless", "answered", "skipped")

# What does not, the most serious first, with what each means.
BROKEN = {
    "wrong": "another number than the undamaged files give, in silence",
    "lost": "work or rows that were complete are gone, or an output is missing, in silence",
    "half": "an unfinished file under a final name",
    "crash": "the process died of a signal of its own making",
    "hang": "it did not end within its time",
    "memory": "it took far more memory than the same command on a whole file",
    "escaped": "it wrote where it should not have",
    "stuck": "the same command does not go on",
    "leftover": "a file stays behind that an uninterrupted run does not leave",
    "traceback": "a Python traceback",
    "defect": "it called a mistake of input or machine a defect of its own",
    "late": "work was done first that what was known before made useless",
    "unclear": "it failed without one line that says why",
    "silent": "stopped by a signal, it does not say how to go on",
    "code": "another exit code than documented",
}

# Said by a shell as 128 and the signal.
CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)
GO_ON = re.compile(r"\b(same command|again|goes on|go on|resume)")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one trial.

    kind: the row of the table it counts in. tried: what was done, in words. done: the command that decided.
    """

    kind: str
    tried: str
    verdict: str
    done: Done
    seen: str = ""

    @property
    def held(self) -> bool:
        """Whether what is promised held."""
        return self.verdict in HELD


def trouble(done: Done) -> str | None:
    """Return the verdict on an end that no input excuses; None for success, or failure that is said in one line."""
    if done.hung:
        return "hang"
    if done.code < 0 or done.code - 128 in CRASHES:
        return "crash"
    if "Traceback (most recent call last)" in done.err + done.out or "Exception ignored" in done.err:
        return "traceback"
    if "this is a defect" in done.err:
        return "defect"
    if done.code not in (0, 1, 2):
        return "code"
    if done.code and not clear(done):
        return "unclear"
    return None


def clear(done: Done) -> bool:
    """Return whether a failed command ended with one line in its own name."""
    lines = [line for line in done.err.splitlines() if line.startswith(f"{done.command}: ")]
    last = done.err.rstrip("\n").rpartition("\n")[2]
    return len(lines) == 1 and last == lines[0] and len(last) > len(done.command) + 12


def first_line(done: Done) -> str:
    """Return the line of stderr that says most: the command's own, else the last of a traceback, else the first."""
    lines = [line for line in done.err.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith(f"{done.command}: ")]
    if own:
        return own[-1]
    if any("Traceback" in line for line in lines):
        return next((line for line in reversed(lines) if not line.startswith((" ", "Exception ign"))), lines[-1])
    return lines[0] if lines else ""


def ended(code: int) -> str:
    """Return an exit code in words."""
    return signal.Signals(-code).name if code < 0 else str(code)
