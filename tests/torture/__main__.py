"""The command line of the torture: which trials, in which order, and what is said at the end."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

from tests.torture import damage, data, disks, flags, kills, processes, ranks, streams
from tests.torture.commands import code
from tests.torture.material import Material
from tests.torture.records import Records, failures, markdown, summary

# Each part has KINDS, and a function `trial` that does one of a kind.
PARTS: dict[str, ModuleType] = {
    "kills": kills,
    "damage": damage,
    "disks": disks,
    "streams": streams,
    "processes": processes,
    "data": data,
    "flags": flags,
    "ranks": ranks,
}
# A prime that divides no number of kinds: a few trials are of all sorts, as many as there are kinds one of each.
STRIDE = 89
COUNTS = {name: len(part.KINDS) for name, part in PARTS.items()} | {"kills": 200, "damage": 1000, "flags": 300}


def main() -> int:
    """Try what was asked for and return 1 where something did not hold."""
    asked = _arguments()
    begin(asked.out)
    records = Records(asked.out / "trials.csv", asked.seed)
    numbers = list(_numbers(asked))
    left = [one for one in numbers if one not in records.done() or asked.trial]
    print(f"{len(numbers)} trials, {len(numbers) - len(left)} of them done before; records in {records.path}")
    if left:
        material = Material(asked.out)
        material.load()
        _share(left, asked.workers, records, material)
    found = [row for row in records.read() if (row["part"], int(row["number"])) in numbers]
    print("\n".join(summary(found)))
    (asked.out / "table.md").write_text(markdown(found) + "\n", encoding="utf-8")
    print(f"\n{markdown(found)}\n")
    broken = failures(found)
    for row in broken:
        print(f"{row['verdict']}: --trial {row['part']}:{row['number']} {row['kind']}, {row['tried']}: {row['stderr']}")
    print(f"{len(found) - len(broken)} of {len(found)} held; {asked.out / 'table.md'} has the table")
    return 1 if broken else 0


def begin(out: Path) -> None:
    """Make the folder of records, or empty one that was made by other code."""
    mark, now = out / "code.txt", code()
    if mark.exists() and mark.read_text() != now:
        print(f"the code has changed since {out} was begun: it begins anew")
        for name in ("material", "ends", "trials"):
            shutil.rmtree(out / name, ignore_errors=True)
        (out / "trials.csv").unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    mark.write_text(now)
    # Where commands keep tracebacks of what they call their own defects; everybody may, as in any such folder.
    temporary = out / "tmp"
    temporary.mkdir(exist_ok=True)
    temporary.chmod(0o1777)
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)


def run_trial(part: str, number: int, records: Records, material: Material) -> None:
    """Do one trial and record it; it follows from seed, part and number alone."""
    rng = np.random.default_rng([records.seed, zlib.crc32(part.encode()), number])
    outcome = PARTS[part].trial(kind_of(part, number), rng, material)
    records.add(part, number, outcome)
    if not outcome.held:
        print(f"  {outcome.verdict}: {outcome.kind} ({part}:{number}): {outcome.tried} {outcome.seen}", flush=True)


def kind_of(part: str, number: int) -> str:
    """Return the kind of a trial: each in its turn, in an order in which neighbours differ."""
    kinds: list[str] = PARTS[part].KINDS
    return kinds[number * STRIDE % len(kinds)]


def _share(left: list[tuple[str, int]], workers: int, records: Records, material: Material) -> None:
    """Divide trials among forks of this process; one needs none."""
    if workers == 1:
        for part, number in left:
            run_trial(part, number, records, material)
        return
    pids = []
    for worker in range(workers):
        if not (pid := os.fork()):
            _share(left[worker::workers], 1, records, material)
            os._exit(0)
        pids.append(pid)
    if any(os.waitpid(pid, 0)[1] for pid in pids):
        raise SystemExit("a worker failed; the same command goes on with what is left")


def _numbers(asked: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Yield (part, number) of the trials asked for: as many of each part as its flag says, of the kinds that match."""
    if asked.trial:
        part, _, number = asked.trial.partition(":")
        yield part, int(number)
        return
    for part in asked.only.split(","):
        kinds: list[str] = PARTS[part].KINDS
        if not any(re.search(asked.kinds, kind) for kind in kinds):
            continue
        number = found = 0
        while found < getattr(asked, part):
            if re.search(asked.kinds, kind_of(part, number)):
                yield part, number
                found += 1
            number += 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="what all trials follow from")
    for part, count in COUNTS.items():
        parser.add_argument(f"--{part}", type=int, default=count, help=f"how many; default {count}")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas")
    parser.add_argument("--kinds", default="", help="kinds of trial to do: a regular expression")
    parser.add_argument("--trial", default="", metavar="PART:NUMBER", help="do this one alone, again")
    parser.add_argument("--workers", type=int, default=1, help="processes that do trials side by side")
    parser.add_argument("--out", type=Path, default=Path("build/torture"), help="folder of records and material")
    asked = parser.parse_args()
    asked.out = asked.out.resolve()
    if unknown := [part for part in asked.only.split(",") if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}; parts: {', '.join(PARTS)}")
    return asked


def _surroundings() -> dict[str, str]:
    """Return the environment of all trials: one thread, which makes runs bit-identical and processes fit for a fork."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    kept = {name: value for name, value in os.environ.items() if name != "LAYERWISE_DATA"}
    # Files that hold names in the order of a set (exported networks) are the same in two processes of one hash seed.
    return kept | one | {"MPLBACKEND": "Agg", "PYTHONHASHSEED": "0"}


if __name__ == "__main__":
    # Numbers of threads count only for libraries that are not loaded yet.
    if _surroundings() != dict(os.environ):
        os.execve(sys.executable, [sys.executable, "-m", "tests.torture", *sys.argv[1:]], _surroundings())
    sys.exit(main())
