"""The Python API of figures: the figure of the command, which a notebook shows by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

import figures
import probes
from layerwise.errors import UserError
from layerwise.runfile import RunFile


def test_the_figure_is_drawn_from_the_rows_beside_the_runs(own_run: Path) -> None:
    with pytest.raises(UserError, match="has no probe results"):
        figures.draw([own_run])
    with RunFile(own_run) as run:
        probes.fit(run, "linear", depths=[1, 2], device="cpu")
    figure = figures.draw([str(own_run)], ["linear"])
    (line, *_) = [line for line in figure.axes[0].lines if not str(line.get_label()).startswith("_")]
    assert len(line.get_xdata()) == 2
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
