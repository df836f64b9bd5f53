"""The torture in its short form, of what holds; and that its judges see what is wrong."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import h5py
import pytest

from tests.torture.children import Done
from tests.torture.contents import UNREADABLE, content, rows
from tests.torture.records import markdown
from tests.torture.seal import is_intact, seal
from tests.torture.verdicts import BROKEN, HELD, trouble

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "run-v1.h5"

# Few of each part, of the kinds that hold whenever the signal comes; `make torture` does all.
COUNTS = {"kills": 3, "damage": 30, "flags": 4}
KINDS = (
    "kill train (greedy|untrained|pruned)",
    "damage run.h5(, untrained|, maps|, arrays)?: (bits|cut|blank block|swapped blocks|[a-z]+ gone|values)$",
    "flags: (layerwise-inspect|separability-table|training-figure)",
)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Return the records of the short form, made by the tool as `make torture` runs it."""
    out = tmp_path_factory.mktemp("torture")
    counts = [word for part, count in COUNTS.items() for word in (f"--{part}", str(count))]
    words = ["--only", ",".join(COUNTS), *counts, "--kinds", "|".join(KINDS), "--out", str(out)]
    command = [sys.executable, "-m", "tests.torture", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    with open(out / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_what_the_short_torture_tries_holds(trials: list[dict[str, str]]) -> None:
    assert Counter(row["part"] for row in trials) == COUNTS
    # A kill right behind the publication may leave a temporary name or a state behind: the numbers are the same.
    excused = ("kills", "leftover")
    assert [row for row in trials if row["verdict"] not in HELD and (row["part"], row["verdict"]) != excused] == []


def test_killed_commands_end_as_undisturbed_ones(trials: list[dict[str, str]]) -> None:
    kills = [row for row in trials if row["part"] == "kills"]
    assert {row["verdict"] for row in kills} <= {"same", "leftover"}
    assert all("SIGKILL" in row["tried"] for row in kills)


def test_damage_is_refused_or_harmless(trials: list[dict[str, str]]) -> None:
    verdicts = Counter(row["verdict"] for row in trials if row["part"] == "damage")
    assert set(verdicts) <= {"refused", "harmless", "skipped", "answered"}
    assert verdicts["refused"] > 5


def test_a_run_is_intact_until_a_bit_changes(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    shutil.copyfile(GOLDEN, path)
    assert is_intact(path)
    with h5py.File(path, "r+") as file:
        file["depths/00/test/pooled"][0, 0, 0, 0] += 1
        before = file.attrs["content_digest"]
    assert not is_intact(path)
    assert content(path).startswith(UNREADABLE)
    seal(path)
    assert is_intact(path)
    with h5py.File(path) as file:
        assert file.attrs["content_digest"] != before


def test_sealing_an_intact_run_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    shutil.copyfile(GOLDEN, path)
    seal(path)
    with h5py.File(path) as new, h5py.File(GOLDEN) as old:
        assert bytes(new["manifest"][:]) == bytes(old["manifest"][:])
        assert new.attrs["manifest_digest"] == old.attrs["manifest_digest"]


def test_rows_are_compared_without_what_is_incidental(tmp_path: Path) -> None:
    for name, lines in {
        "a.csv": "run_id,depth,value,seconds\nx,1,0.5,1.0\nx,2,0.6,1.0\n",
        "b.csv": "run_id,depth,value,seconds\ny,2,0.6,7.0\ny,1,0.5,7.0\n",
        "c.csv": "run_id,depth,value,seconds\ny,2,0.7,7.0\ny,1,0.5,7.0\n",
        "ragged.csv": "run_id,depth,value,seconds\ny,2\n",
    }.items():
        (tmp_path / name).write_text(lines)
    assert content(tmp_path / "a.csv") == content(tmp_path / "b.csv") != content(tmp_path / "c.csv")
    assert content(tmp_path / "ragged.csv").startswith(UNREADABLE)
    assert rows(tmp_path / "a.csv")[0] == (("depth", "1"), ("value", "0.5"))


@pytest.mark.parametrize(
    ("code", "err", "expected"),
    [
        (0, "", None),
        (1, "wrote nothing\nprobe-depth: run.h5 is damaged: rows 0 to 9 differ.\n", None),
        (1, "", "unclear"),
        (1, "probe-depth: first words of it.\nprobe-depth: and then the second.\n", "unclear"),
        (1, "Traceback (most recent call last):\n  File\nKeyError: 3\n", "traceback"),
        (1, "probe-depth: this is a defect of probe-depth, not of your input: KeyError.\n", "defect"),
        (3, "probe-depth: what was the matter?\n", "code"),
        (-11, "", "crash"),
        (139, "", "crash"),
    ],
)
def test_ends_are_judged(code: int, err: str, expected: str | None) -> None:
    done = Done(command="probe-depth", code=code, out="", err=err, seconds=1, peak=0, hung=False)
    assert trouble(done) == expected


def test_the_table_counts_what_held() -> None:
    verdicts = ("refused", "harmless", "skipped", "wrong")
    kinds = [{"kind": f"damage run.h5: {word}", "verdict": word} for word in verdicts]
    assert markdown(kinds).splitlines()[2:] == ["| damage run.h5 (1 skipped) | 3 | 2 | 1 wrong |"]
    assert set(HELD).isdisjoint(BROKEN)


def test_the_tool_keeps_to_commands_and_files() -> None:
    for path in (ROOT / "tests" / "torture").glob("*.py"):
        words = [line.split() for line in path.read_text().splitlines() if line.startswith(("import ", "from "))]
        packages = {line[1].partition(".")[0] for line in words}
        assert packages.isdisjoint({"layerwise", "probes", "analysis", "figures"})
