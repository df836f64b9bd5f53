"""What is kept of trials: a line of CSV each, from which a later call goes on, and the tables made of them."""

from __future__ import annotations

import csv
import fcntl
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.torture.verdicts import BROKEN, HELD, Outcome, ended, first_line

COLUMNS = (
    "part", "number", "seed", "kind", "tried", "command", "exit_code", "verdict", "seen", "stderr", "seconds",
    "peak_mb",
)  # fmt: skip
Record = dict[str, str]


class Records:
    """The trials of one seed, in a file that grows by a line for each."""

    def __init__(self, path: Path, seed: int):
        self.path, self.seed = path, seed

    def read(self) -> list[Record]:
        """Return the records of this seed, in the order of their parts and numbers."""
        if not self.path.exists():
            return []
        with open(self.path, newline="", encoding="utf-8") as file:
            found = [row for row in csv.DictReader(file) if row["seed"] == str(self.seed)]
        return sorted(found, key=lambda row: (row["part"], int(row["number"])))

    def done(self) -> set[tuple[str, int]]:
        """Return which trials are done: (part, number)."""
        return {(row["part"], int(row["number"])) for row in self.read()}

    def add(self, part: str, number: int, outcome: Outcome) -> None:
        """Write the record of a trial; several processes may."""
        done = outcome.done
        values = (
            part, number, self.seed, outcome.kind, outcome.tried, " ".join([done.command, *done.words]),
            ended(done.code), outcome.verdict, outcome.seen, first_line(done)[:400],
            f"{done.seconds:.2f}", done.peak >> 20,
        )  # fmt: skip
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            writer = csv.writer(file)
            if not os.fstat(file.fileno()).st_size:
                writer.writerow(COLUMNS)
            writer.writerow([_printable(str(value)) for value in values])


def summary(records: Sequence[Record]) -> list[str]:
    """Return a line for each kind of trial: how many, how many held, and the verdicts."""
    lines = []
    for kind in dict.fromkeys(row["kind"] for row in records):
        verdicts = Counter(row["verdict"] for row in records if row["kind"] == kind)
        held = sum(count for verdict, count in verdicts.items() if verdict in HELD)
        words = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
        lines.append(f"{'held' if held == verdicts.total() else 'FAILED':6} {held}/{verdicts.total()} {kind}: {words}")
    return lines


def markdown(records: Sequence[Record]) -> str:
    """Return the table of docs/reliability.md: a row for each group of kinds."""
    lines = ["| what was tried | trials | held | what did not hold |", "| --- | --- | --- | --- |"]
    groups = sorted({group(row["kind"]) for row in records})
    for name in groups:
        verdicts = Counter(row["verdict"] for row in records if group(row["kind"]) == name)
        skipped = verdicts.pop("skipped", 0)
        held = sum(count for verdict, count in verdicts.items() if verdict in HELD)
        broken = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in BROKEN if verdicts[verdict])
        note = f" ({skipped} skipped)" if skipped else ""
        lines.append(f"| {name}{note} | {verdicts.total()} | {held} | {broken or '-'} |")
    return "\n".join(lines)


def group(kind: str) -> str:
    """Return the row of the table in which a kind of trial is counted."""
    if kind.startswith("damage"):
        name, _, way = kind.partition(": ")
        return f"{name}, digests made to fit" if way.endswith("digests made to fit") else name
    if kind.startswith(("disk", "stream", "data", "flags")):
        name = kind.partition(":")[0]
        return {"data": "data of all kinds", "flags": "flags of all commands"}.get(name, name)
    # The commands that are killed or stopped, by what they do: train, extract, probe, study, or their own name.
    return kind if kind.startswith("processes") else " ".join(kind.split()[:2])


def failures(records: Sequence[Record]) -> list[Record]:
    """Return the records of what did not hold, the most serious first."""
    order = list(BROKEN)
    found = [row for row in records if row["verdict"] not in HELD]
    return sorted(found, key=lambda row: (order.index(row["verdict"]), row["kind"]))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
