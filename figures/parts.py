"""The other figures, the captions and the tables of a paper, as Python makes them; files are written only to `out`.

The commands of the same names write what these functions return.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.attribution import attribution
from analysis.contrasts import BOUND
from analysis.geometry.decoding import EPSILON
from analysis.tables import read
from analysis.training import training_curves
from figures import output, tables
from figures.api import drawn
from figures.file_set import write
from figures.plots import attribution as attribution_plot
from figures.plots import training as training_plot
from layerwise.config import TRAINED_MODES
from layerwise.errors import UsageError, unknown
from layerwise.runfile.given import Runs, paths_of
from layerwise.spoken import python_call

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from figures.output import Made

TABLES = ("accuracy", "top5", "trends", "contrasts", "differences", "shifts", "codelength", "published")
TABLE_FILES = (".md", ".tex", ".csv")


@python_call("attribution-figure")
def draw_attribution(
    runs: Runs,
    probe: str = "linear",
    *,
    split: str = "test",
    pool: int = 2,
    keep_failed: bool = False,
    size: str = "single",
    out: Path | str | None = None,
    force: bool = False,
) -> Figure:
    """Return the figure that splits the gain of each depth over the input into what architecture and training give.

    Args:
        runs: greedy and untrained runs of the same widths and seeds, by their paths or open, as attribution-figure
            says.
        probe: linear or linear-ovr. split: train, validation or test. pool: the grid that the probe reads.
        keep_failed: average networks that did not train with the others; they are named and left out otherwise.
        size: "single" (85 mm wide) or "double" (170 mm).
        out: a name for figure.pdf, .svg, .png, .csv (the points) and .txt (the caption); None writes nothing.
        force: whether these are replaced.

    Raises UserError where a run that is needed is missing.
    """
    return _kept(attribution_made(paths_of(runs), probe, split, pool, size, keep_failed), out, runs, force)


@python_call("training-figure")
def draw_training(
    runs: Runs,
    mode: str = "greedy",
    *,
    keep_failed: bool = False,
    size: str = "single",
    out: Path | str | None = None,
    force: bool = False,
) -> Figure:
    """Return the figure of loss and accuracy of each auxiliary problem against epochs: a column for each k.

    Args:
        runs: run files, by their paths or open; they need no probes. mode: which of them, by how they were trained.
        keep_failed, size, out, force: as of `draw_attribution`.

    Raises UserError where no run of that mode has a history, or the runs differ in data or epochs.
    """
    return _kept(training_made(paths_of(runs), mode, size, keep_failed), out, runs, force)


@python_call("separability-figure")
def caption(
    runs: Runs,
    probes: Sequence[str] | None = None,
    *,
    split: str = "test",
    refit: bool = True,
    by: str = "k",
    relative: bool = False,
    keep_failed: bool = False,
    labels: Mapping[str, str] | Sequence[str] | None = None,
) -> str:
    """Return the caption of `figures.draw` of the same arguments, one paragraph."""
    own: dict[str, Any] = {"labels": labels, "keep_failed": keep_failed}
    return drawn(paths_of(runs), probes, split, refit, by, relative, "double", **own)[2]


@python_call("attribution-figure")
def attribution_caption(
    runs: Runs, probe: str = "linear", *, split: str = "test", pool: int = 2, keep_failed: bool = False
) -> str:
    """Return the caption of `figures.draw_attribution` of the same arguments, one paragraph."""
    return attribution_plot.caption(attribution(read(paths_of(runs)), probe, split, pool, keep_failed))


@python_call("training-figure")
def training_caption(runs: Runs, mode: str = "greedy", *, keep_failed: bool = False) -> str:
    """Return the caption of `figures.draw_training` of the same arguments, one paragraph."""
    return training_plot.caption(training_curves(paths_of(runs), mode, keep_failed))


@python_call("separability-table")
def table(
    runs: Runs = (),
    what: str = "accuracy",
    *,
    probes: Sequence[str] | None = None,
    split: str = "test",
    keep_failed: bool = False,
    bound: float | None = None,
    epsilon: float | None = None,
    columns: str = "probe",
    out: Path | str | None = None,
    force: bool = False,
) -> pd.DataFrame:
    """Return the numbers of a table of probe results, all digits; `analysis` documents their columns.

    Args:
        runs: probed run files, by their paths or open; two for differences, none for published.
        what: accuracy (beside published numbers), top5 (the same of the five likeliest classes), trends (Page's test),
            contrasts (between k and between modes), differences (two runs at each depth), shifts (on test images that
            layerwise-corrupt changed), codelength (with how many images a loss of epsilon takes), or published.
        probes: names of probes; None takes those that the runs have.
        split: train, validation or test. keep_failed: average networks that did not train with the others; they are
            named and left out otherwise.
        bound: of contrasts: the largest difference, in percentage points, that counts
            as none; None for 1. epsilon: of codelength, in bits a label; None for 0.5.
        columns: of accuracy: a column for each "probe", or for each "depth".
        out: a name for table.md, .tex and .csv; None writes nothing. force: whether these are replaced.

    Raises UsageError for another table or number of runs, UserError for runs that lack what it needs.
    """
    given = [] if isinstance(runs, Sequence) and not isinstance(runs, str) and not runs else paths_of(runs)
    check_table(what, len(given), bound, probes, epsilon)
    paths = None if out is None else output.outputs(Path(out), given, force, TABLE_FILES, "table")
    data, shown = tables.made(
        given,
        what,
        split,
        share_of(bound),
        columns,
        probes=_listed(probes),
        keep_failed=keep_failed,
        epsilon=EPSILON if epsilon is None else epsilon,
    )
    if paths is not None:
        write({paths[suffix]: content for suffix, content in tables.rendered(data, shown).items()}, force)
    return data


def attribution_made(
    runs: Sequence[Path], probe: str, split: str, pool: int, size: str, keep_failed: bool = False
) -> Made:
    """Return the figure of `draw_attribution`, its points and its caption."""
    _check_size(size)
    points = attribution(read(runs), probe, split, pool, keep_failed)
    return attribution_plot.draw(points, size), points, attribution_plot.caption(points)


def training_made(runs: Sequence[Path], mode: str, size: str, keep_failed: bool = False) -> Made:
    """Return the figure of `draw_training`, its points and its caption."""
    if mode not in TRAINED_MODES:
        raise unknown("mode", mode, TRAINED_MODES)
    _check_size(size)
    points = training_curves(runs, mode, keep_failed)
    return training_plot.draw(points, size), points, training_plot.caption(points)


def _check_size(size: str) -> None:
    if size not in output.SIZES:
        raise unknown("size", size, output.SIZES)


def share_of(bound: float | None) -> float:
    """Return the bound of contrasts as a share of 1, from percentage points or None for the usual one."""
    return BOUND if bound is None else bound / 100


def _listed(probes: Sequence[str] | None) -> Sequence[str] | None:
    return [probes] if isinstance(probes, str) else probes


def check_table(
    what: str, count: int, bound: float | None, probes: Sequence[str] | None = None, epsilon: float | None = None
) -> None:
    """Raise UsageError for a table that there is not, or that cannot be made of so many runs."""
    if what not in TABLES:
        raise unknown("table", what, TABLES)
    if bound is not None and what != "contrasts":
        raise UsageError(f"--bound is of contrasts, but --what is {what}. Leave one of them out.")
    if bound is not None and not 0 < bound <= 100:
        raise UsageError(f"--bound is {bound:g}, but takes percentage points above 0, up to 100.")
    if epsilon is not None and what != "codelength":
        raise UsageError(f"--epsilon is of codelength, but --what is {what}. Leave one of them out.")
    if epsilon is not None and not 0 < epsilon < math.inf:
        raise UsageError(f"--epsilon is {epsilon:g}, but takes a loss above 0, in bits a label.")
    if what == "differences" and count != 2:
        raise UsageError(f"differences are between two runs, but {count} were given. Give two run files.")
    if what == "published" and probes is not None:
        raise UsageError("published numbers are of no probe. Leave out --probe.")
    if what == "published" and count:
        raise UsageError("published numbers are of no run. Leave the run files out.")
    if what != "published" and not count:
        raise UsageError(f"no run file was given. `separability-table RUN.H5... --what {what} -o table.md`")


def _kept(made: Made, out: Path | str | None, runs: Runs, force: bool) -> Figure:
    """Write a figure, its points and its caption where that is asked for, and return the figure."""
    figure, points, words = made
    if out is not None:
        output.publish(figure, points, words, output.outputs(Path(out), paths_of(runs), force), force)
    return figure
