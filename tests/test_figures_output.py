"""All outputs of a figure or none, the same bytes each time, and every refusal before the work."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from figures.file_set import write
from figures.kit import style
from figures.output import SUFFIXES, outputs, publish, write_figure
from layerwise.errors import UsageError, UserError

POINTS = pd.DataFrame({"depth": [0, 1], "accuracy": [0.3, 0.1 + 0.2]})

# Draws with marks, a hatch and a clip path, which an SVG names; prints the digest of each output.
DRAW = """
import hashlib, sys, pathlib
import tests.test_figures_output as t
from figures.output import outputs, publish
paths = outputs(pathlib.Path(sys.argv[1]) / "figure", [], False)
publish(t.figure(), t.POINTS, "Words.", paths, False)
for path in paths.values():
    print(path.suffix, hashlib.sha256(path.read_bytes()).hexdigest())
"""


def figure() -> Figure:
    with style.applied():
        made = style.new_figure(85.0, 40.0)
        axes = made.add_axes((0.2, 0.2, 0.7, 0.7))
        axes.plot([0, 1], [0.3, 0.6], marker="o")
        axes.fill_between([0, 1], [0.1, 0.2], [0.2, 0.3], hatch="////")
        axes.set_xlabel("depth $j$")
        return made


def test_five_outputs_by_any_of_their_names(tmp_path: Path) -> None:
    expected = {suffix: tmp_path / f"figure{suffix}" for suffix in (".pdf", ".svg", ".png", ".csv", ".txt")}
    for name in ("figure", *(f"figure{suffix}" for suffix in SUFFIXES)):
        assert outputs(tmp_path / name, [], False) == expected


def test_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = outputs(tmp_path / "figure.svg", [], False)
    write_figure(lambda: (figure(), POINTS, "Accuracy of nothing."), tmp_path / "figure.svg", [], "single", False)
    assert sorted(tmp_path.iterdir()) == sorted(paths.values())
    assert paths[".pdf"].read_bytes().startswith(b"%PDF")
    assert paths[".png"].read_bytes().startswith(b"\x89PNG")
    assert paths[".svg"].read_bytes().startswith(b"<?xml")
    assert paths[".txt"].read_text() == "Accuracy of nothing.\n"
    assert paths[".csv"].read_text() == "depth,accuracy\n0,0.3\n1,0.30000000000000004\n"
    assert capsys.readouterr().out.splitlines() == [*map(str, paths.values()), "Accuracy of nothing."]


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "figure", [], False)
    publish(figure(), POINTS, "Words.", paths, False)
    here = [f"{suffix} {hashlib.sha256(path.read_bytes()).hexdigest()}" for suffix, path in paths.items()]
    (tmp_path / "again").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", DRAW, str(tmp_path / "again")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parent.parent,
    )
    assert done.stdout.splitlines() == here


def test_an_svg_needs_no_font_of_the_reader(tmp_path: Path) -> None:
    paths = outputs(tmp_path / "figure", [], False)
    publish(figure(), POINTS, "Words.", paths, False)
    svg = paths[".svg"].read_text()
    assert "<text" not in svg and "font-family" not in svg and "DejaVuSans" in svg
    assert "<dc:date>" not in svg


def test_all_existing_outputs_are_named_and_kept(tmp_path: Path) -> None:
    for name in ("figure.pdf", "figure.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(UserError) as refused:
        outputs(tmp_path / "figure.pdf", [], False)
    assert str(refused.value) == (
        f"{tmp_path / 'figure.pdf'}, {tmp_path / 'figure.txt'} exist already. "
        "Give another name, or --force to replace them."
    )
    paths = outputs(tmp_path / "figure.pdf", [], True)
    publish(figure(), POINTS, "Words.", paths, True)
    assert paths[".txt"].read_text() == "Words.\n"


@pytest.mark.parametrize("ending", [".probes", ".candidates"])
def test_results_are_never_written_over(tmp_path: Path, ending: str) -> None:
    run, path = tmp_path / "k1.h5", tmp_path / f"k1{ending}.pdf"
    with pytest.raises(UsageError) as refused:
        outputs(path, [tmp_path / "other.h5", run], True)
    over = tmp_path / f"k1{ending}.csv"
    assert str(refused.value) == f"-o {path} would write over the probe results {over}. Give another name."


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_an_input_without_a_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^[./] is a folder, but a run file \(.h5\) is needed.$"):
        outputs(tmp_path / "figure", [Path(name)], False)


def test_another_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        outputs(tmp_path / "figure.eps", [], False)
    assert str(refused.value) == (
        f"-o {tmp_path / 'figure.eps'} ends in .eps, but a figure is written as .pdf, .svg, .png, .csv, .txt. "
        f"Give -o {tmp_path / 'figure.pdf'}."
    )
    with pytest.raises(UsageError, match=r"but a table is written as \.md, \.tex\. Give -o \S*/accuracy\.md\.$"):
        outputs(tmp_path / "accuracy.pdf", [], False, (".md", ".tex"), "table")
    assert set(outputs(tmp_path / "accuracy", [], False, (".md", ".tex"), "table")) == {".md", ".tex"}


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^the folder {tmp_path / 'none'} does not exist, so figure.pdf cannot"):
        outputs(tmp_path / "none" / "figure.pdf", [], False)


def test_nothing_is_left_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.csv").write_text("mine")
    written: list[Path] = []

    def fail_at_the_third(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) == 4:  # the journal, two of the files, the third
            raise OSError(28, "No space left on device")
        with open(path, "wb") as file:
            return file.write(content)

    monkeypatch.setattr(Path, "write_bytes", fail_at_the_third)
    contents = {tmp_path / f"{name}.csv": b"new" for name in ("one", "two", "three", "four")}
    with pytest.raises(UserError, match="three.csv cannot be written: No space left on device. No file was made.$"):
        write(contents, True)
    assert [path.name for path in tmp_path.iterdir()] == ["one.csv"] and len(written) == 4
    assert (tmp_path / "one.csv").read_text() == "mine"


def test_a_size_that_there_is_not_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="^unknown size 'doubel'. Did you mean 'double'. Choices: single, double.$"):
        write_figure(lambda: pytest.fail("made"), tmp_path / "figure", [], "doubel", False)
    assert list(tmp_path.iterdir()) == []
