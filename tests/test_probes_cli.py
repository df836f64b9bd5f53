"""probe-depth as people type it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from layerwise.commandline import call
from layerwise.errors import UsageError
from probes.cli import parse_depths, probe


def run_probe(path: Path, *words: str) -> int:
    return call(probe, "probe-depth", [str(path), "--device", "cpu", *words])


def test_linear_probes_of_every_depth_with_a_table_within_80_columns(
    own_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_probe(own_run, "--probe", "linear") == 0
    lines = capsys.readouterr().out.splitlines()
    table = pd.read_csv(own_run.with_name("run.probes.csv"))
    assert set(table.depth) == {0, 1, 2}
    final = table[(table.split == "test") & (table.metric == "accuracy") & (table.refit == 1)].set_index("depth")
    for line in lines[2:5]:
        depth = int(line.split()[0])
        assert f"{100 * final.value[depth]:.2f}" in line
        assert f"[{100 * final.ci_low[depth]:.2f}, {100 * final.ci_high[depth]:.2f}]" in line
    assert all(len(line.replace(str(own_run.parent), "")) <= 80 for line in lines)
    assert lines[-1] == f"rows in {own_run.with_name('run.probes.csv')}"


def test_several_probes_widths_and_depths(own_run: Path) -> None:
    words = ["--probe", "linear-ovr,cnn-1", "--probe-width", "4,6", "--depths", "1-2", "--epochs", "1"]
    assert run_probe(own_run, *words, "--probe-seeds", "2") == 0
    table = pd.read_csv(own_run.with_name("run.probes.csv"))
    names = table[["probe", "depth", "probe_width", "probe_seed"]].drop_duplicates().to_numpy().tolist()
    cnn = [["cnn-1", depth, width, seed] for depth in (1, 2) for width in (4, 6) for seed in (0, 1)]
    assert sorted(names) == sorted(cnn + [["linear-ovr", depth, 0, 0] for depth in (1, 2)])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["--probe", "linnear"],
            2,
            "unknown probe 'linnear'. Did you mean 'linear'? Choices: linear, linear-ovr, cnn-1",
        ),
        (["--probe", "cnn-0"], 2, "unknown probe 'cnn-0'."),
        (["--probe", "cnn-1", "--probe-width", "0"], 2, "--probe-width has '0', but takes positive integers"),
        (["--probe", "cnn-1", "--probe-width", "64;128"], 2, "--probe-width has '64;128', but takes positive integers"),
        (["--probe-seeds", "0"], 2, "--probe-seeds has '0', but takes positive integers"),
        (["--epochs", "0"], 2, "--epochs has '0', but takes positive integers"),
        (["--depths", "1,9"], 2, "unknown depth '9'. Choices: 0, 1, 2"),
        (["--depths", "2-1"], 2, "--depths has '2-1', a range that ends before it begins; write 1-2"),
        (["--depths", "0-99999999999999"], 2, "unknown depth '99999999999999'. Choices: 0, 1, 2"),
        (["--source", "disk"], 2, "unknown source 'disk'. Choices: auto, stored, recompute"),
        (["--depths", "one"], 2, "--depths has 'one', but takes depths and ranges such as 0-3 or 1,4"),
        (["--source", "disk", "--probe", "cnn-1"], 2, "unknown source 'disk'. Choices: auto, stored, recompute"),
    ],
)
def test_bad_input_is_one_line(
    own_run: Path, words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_probe(own_run, *words) == code
    err = capsys.readouterr().err.strip()
    assert err.startswith(f"probe-depth: {message}")
    assert "\n" not in err


def test_a_file_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.h5"
    path.write_text("no")
    assert run_probe(path) == 1
    assert "is no run file: it is not HDF5" in capsys.readouterr().err


def test_depths_are_read_as_lists_and_ranges() -> None:
    assert parse_depths(None, [0, 1, 2]) == [0, 1, 2]
    assert parse_depths("0-1, 3", [0, 1, 2, 3]) == [0, 1, 3]
    with pytest.raises(UsageError, match="unknown depth '4'"):
        parse_depths("4", [0, 1, 2, 3])
