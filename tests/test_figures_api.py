"""The Python API of figures: the figure of the command, which a notebook shows by itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import figures
import probes
from layerwise.errors import UserError
from layerwise.runfile import RunFile

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "backend", ["nonsense", "module://matplotlib_inline.backend_inline", "module://no.such", "agg", ""]
)
def test_a_backend_that_is_not_there_stops_no_figure(backend: str) -> None:
    code = "import os, figures.api, matplotlib as m; print(m.rcParams._get_backend_or_none(), os.environ['MPLBACKEND'])"
    environment = {**os.environ, "MPLBACKEND": backend, "DISPLAY": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    # What a later pyplot takes is what the reader named, where it is there to be taken.
    there = backend in ("module://no.such", "agg")
    assert done.stdout.strip().lower() == f"{backend if there else 'none'} {backend}".lower().strip()


def test_a_matplotlibrc_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe: 3\n")
    code = "import figures.api"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert "UserError: matplotlib cannot be loaded ('utf-8' codec can't decode" in done.stderr
    assert "Mend or remove the matplotlibrc or MPLCONFIGDIR that it reads." in done.stderr


def test_the_figure_is_drawn_from_the_rows_beside_the_runs(own_run: Path) -> None:
    with pytest.raises(UserError, match="has no probe results"):
        figures.draw([own_run])
    with RunFile(own_run) as run:
        probes.fit(run, "linear", depths=[1, 2], device="cpu")
    figure = figures.draw([str(own_run)], ["linear"])
    (line, *_) = [line for line in figure.axes[0].lines if not str(line.get_label()).startswith("_")]
    assert len(line.get_xdata()) == 2
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
