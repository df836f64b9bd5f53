"""The command separability-figure: five files or none, the same each time, and every refusal in one line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.separability import curves
from analysis.tables import read
from figures.commands.separability import separability_figure
from layerwise.commandline import call
from tests.probe_rows import run_rows, write_run

SUFFIXES = (".pdf", ".svg", ".png", ".csv", ".txt")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Write the results of two runs; a run file is named by its stem, and its run_id is that stem."""
    monkeypatch.setattr("analysis.tables.identified", lambda path: (Path(path).stem, ""))
    probes = (("linear", 0), ("cnn-1", 64))
    return [
        write_run(tmp_path, f"k{k}", run_rows([0.3, 0.6, 0.7 + 0.05 * k], probes, run_id=f"k{k}", k=k)) for k in (1, 2)
    ]


def command(*words: Any) -> int:
    return call(separability_figure, "separability-figure", [str(word) for word in words])


def refusal(capsys: Capture, *words: Any) -> tuple[int, str]:
    capsys.readouterr()
    code = command(*words)
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return code, err.removeprefix("separability-figure: ").strip()


def test_five_files_their_paths_and_a_caption(runs: list[Path], tmp_path: Path, capsys: Capture) -> None:
    assert command(*runs, "-o", tmp_path / "figure.pdf") == 0
    *paths, caption = capsys.readouterr().out.splitlines()
    assert paths == [str(tmp_path / f"figure{suffix}") for suffix in SUFFIXES]
    assert caption.startswith("Accuracy of probes against depth j on digits, test split (360 images).")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "figure.txt").read_text() == caption + "\n"
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix not in (".h5",)) == [
        *("figure.csv", "figure.pdf", "figure.png", "figure.svg", "figure.txt", "k1.probes.csv", "k2.probes.csv"),
    ]


def test_words_colours_and_names_of_layers(runs: list[Path], tmp_path: Path, capsys: Capture) -> None:
    assert command(*runs, "-o", tmp_path / "a.pdf", "--labels", "shallow, deep", "--palette", "#010203,red") == 0
    out, err = capsys.readouterr()
    assert "shallow; deep: one network each (M = 64);" in out
    assert "labels: shallow for k = 1; deep for k = 2" in err
    assert b"#010203" in (tmp_path / "a.svg").read_bytes()
    assert command(*runs, "-o", tmp_path / "b.pdf", "--palette", "deep", "--xlabels", "module") == 0
    assert command(runs[0], "-o", tmp_path / "c.pdf", "--palette", "red") == 0
    assert refusal(capsys, *runs, "-o", tmp_path / "d.pdf", "--labels", "one") == (
        2,
        "--labels has 1 for 2 lines: k = 1; k = 2. Give one for each.",
    )
    assert refusal(capsys, *runs, "-o", tmp_path / "d.pdf", "--palette", "red") == (
        2,
        "--palette has 1 for 2 lines: k = 1; k = 2. Give one for each.",
    )


def test_against_probe_width_the_same_five_files(tmp_path: Path, capsys: Capture) -> None:
    rows = run_rows([0.5, 0.6], (("cnn-1", 64), ("cnn-1", 128)), run_id="w")
    run = write_run(tmp_path, "w", rows)
    assert command(run, "-o", tmp_path / "figure.pdf", "--by", "probe-width") == 0
    *paths, caption = capsys.readouterr().out.splitlines()
    assert paths == [str(tmp_path / f"figure{suffix}") for suffix in SUFFIXES]
    assert caption.startswith("Accuracy of CNN-p probes against their width M on digits, test split (360 images)")
    written = pd.read_csv(tmp_path / "figure.csv")
    assert written[["depth", "probe_width", "value"]].to_numpy().tolist() == [
        [0, 64, 0.5], [0, 128, 0.5], [1, 64, 0.6], [1, 128, 0.6],
    ]  # fmt: skip
    assert refusal(capsys, run, "-o", tmp_path / "other.pdf", "--by", "probe-width", "--relative") == (
        2,
        "against the width of a probe no depth is drawn. Leave out --relative.",
    )


def test_the_table_holds_the_points(runs: list[Path], tmp_path: Path) -> None:
    assert command(*runs, "-o", tmp_path / "figure.pdf", "--probe", "linear") == 0
    written = pd.read_csv(tmp_path / "figure.csv", dtype={"interval": str})
    expected = curves(read(runs), ["linear"])
    assert list(written.columns) == list(expected.columns)
    for column in ("depth", "k", "accuracy", "ci_low", "ci_high", "interval", "n_runs", "chance"):
        assert written[column].tolist() == expected[column].tolist()


def test_lines_stand_for_the_factor_asked_for(runs: list[Path], tmp_path: Path, capsys: Capture) -> None:
    words = ("--by", "mode", "--relative", "--probe", "linear")
    assert command(*runs, "-o", tmp_path / "figure.pdf", *words) == 0
    written = pd.read_csv(tmp_path / "figure.csv")
    assert (written["by"].unique().tolist(), written["ks"].unique().tolist()) == (["mode"], ["1, 2"])
    assert written["accuracy"].tolist() == pytest.approx([0.3, 0.6, 0.775])
    assert "against relative depth j/J (J = 4)" in capsys.readouterr().out


@pytest.mark.parametrize(("size", "width"), [("single", 85), ("double", 170)])
def test_size_and_fonts_of_the_page(runs: list[Path], tmp_path: Path, size: str, width: int) -> None:
    assert command(*runs, "-o", tmp_path / "figure", "--size", size) == 0
    pdf = (tmp_path / "figure.pdf").read_bytes()
    (found,) = re.findall(rb"/MediaBox \[ ?0 0 ([0-9.]+) ", pdf)
    assert float(found) * 25.4 / 72 == pytest.approx(width, abs=0.01)
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf


def test_the_same_figure_has_the_same_bytes(runs: list[Path], tmp_path: Path) -> None:
    for name in ("one.pdf", "two.pdf"):
        assert command(*runs, "-o", tmp_path / name) == 0
    for suffix in SUFFIXES:
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_outputs_are_refused_before_anything_is_read(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "figure.png").write_text("mine")
    code, message = refusal(capsys, tmp_path / "no-such.h5", "-o", tmp_path / "figure.pdf")
    assert code == 1 and message.startswith(f"{tmp_path / 'figure.png'} exists already.")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--size", "doubel"], 2, "unknown size 'doubel'. Did you mean 'double'? Choices: single, double."),
        (
            ["--split", "tset"],
            2,
            "unknown split 'tset'. Did you mean 'test'? Choices: train, validation, test.",
        ),
        (
            ["--probe", "linear,cnn1"],
            2,
            "unknown probe 'cnn1'. Did you mean 'cnn-1'? Choices: linear, linear-ovr, cnn-1, cnn-2, cnn-p for any p, "
            "knn, ncm, codelength, auxiliary, ensemble, ensemble-softmax, ensemble-uniform.",
        ),
        (
            ["--by", "seeds"],
            2,
            "unknown factor 'seeds'. Did you mean 'seed'? Choices: k, mode, width, pool, seed, split, probe-width.",
        ),
        (["--quiet", "--verbose"], 2, "--quiet and --verbose exclude each other; give one of them."),
    ],
)
def test_wrong_words(
    runs: list[Path], tmp_path: Path, capsys: Capture, words: list[str], code: int, message: str
) -> None:
    assert refusal(capsys, *runs, "-o", tmp_path / "figure.pdf", *words) == (code, message)


def test_a_probe_that_was_not_run(runs: list[Path], tmp_path: Path, capsys: Capture) -> None:
    code, message = refusal(capsys, *runs, "-o", tmp_path / "figure.pdf", "--probe", "cnn-2")
    assert code == 1
    assert message == (
        f"{runs[0]} has no rows of probe cnn-2 (found: cnn-1, linear). "
        f"`probe-depth {runs[0]} --probe cnn-2` makes them."
    )


def test_the_validation_split_takes_the_probes_before_refitting(tmp_path: Path) -> None:
    rows = run_rows([0.3, 0.6], run_id="v", split="validation", refit=0) + run_rows([0.3, 0.5], run_id="v")
    run = write_run(tmp_path, "v", rows)
    assert command(run, "-o", tmp_path / "figure.pdf", "--split", "validation") == 0
    written = pd.read_csv(tmp_path / "figure.csv")
    assert (written["accuracy"].tolist(), written["split"].unique().tolist()) == ([0.3, 0.6], ["validation"])


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from figures.commands.separability import separability_figure\n"
        "from layerwise.commandline import call\n"
        "assert call(separability_figure, 'separability-figure', ['--help']) == 0\n"
        "print([name for name in ('torch', 'pandas', 'h5py', 'matplotlib') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "separability-figure k1.h5 k2.h5 --probe" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
