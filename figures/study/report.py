"""The figures and tables of a study, made anew each time from the networks that are complete."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analysis.attribution import attribution
from analysis.failures import ASKED, FAILED, with_asked
from analysis.separability import curves
from analysis.tables import UNTRAINED, is_linear, read
from analysis.training import training_curves
from figures import tables
from figures.file_set import write
from figures.output import SUFFIXES, publish
from figures.plots import attribution as attribution_figure
from figures.plots import separability
from figures.plots import training as training_figure
from figures.plots.caption import caption
from figures.study.definition import Study, Unit, run_path
from figures.study.notes import failed, notes
from layerwise.errors import UserError
from probes.csvfile import write_csv
from probes.names import LINEAR
from probes.results.columns import DIGEST
from probes.results.metrics import HALF
from probes.results.table import last_fits

if TYPE_CHECKING:
    from figures.output import Made

log = logging.getLogger("layerwise.study")

TABLES = ("accuracy", "trends", "contrasts")
_SIZE = "double"
_METRICS = ("accuracy", HALF, "linear_gap", "linear_gap_p_holm")


def report(folder: Path, study: Study, units: Sequence[Unit]) -> list[Path]:
    """Draw the figures and make the tables of complete networks; return the paths written.

    Figure 2 (separability), it again for each M, the training curves, and the attribution; tables of accuracy, trends
    and contrasts, and the rows that all are made of. Each says what was matched and chosen, and names the networks that
    did not train, which are left out. What the networks do not suffice for yet is left out, with a warning. Made twice,
    the bytes are the same.
    """
    without = failed(folder, units)
    for unit, words in without.items():
        log.warning("%s did not train (%s): it is left out of figures and tables.", unit.name, words)
    said = notes(folder, study, units, without)
    asked = [(unit.mode, unit.k, unit.width) for unit in units if unit.mode != UNTRAINED]
    units = [unit for unit in units if unit not in without]
    if not any(unit.mode == "greedy" for unit in units):
        log.warning("no greedy network trained, so nothing is drawn.")
        return []
    every = with_asked(read([run_path(folder, unit) for unit in units]), asked)
    found: list[Path] = []
    for name, make in _figures(folder, study, units, every):
        try:
            figure, points, words = make()
        except UserError as error:
            log.warning("figure %s is left out: %s", name, error)
            continue
        paths = {suffix: folder / "figures" / f"{name}{suffix}" for suffix in SUFFIXES}
        (folder / "figures").mkdir(exist_ok=True)
        publish(figure, points, " ".join([words, *said]), paths, force=True)
        found += paths.values()
    (folder / "tables").mkdir(exist_ok=True)
    for what in TABLES:
        # Networks without relu are no lines to compare, and would count in Holm's adjustment.
        data, table = tables.of_rows(every if what == "accuracy" else every[~is_linear(every)], what)
        contents = tables.rendered(data, replace(table, notes=[*table.notes, *said]))
        paths = {suffix: folder / "tables" / f"{what}{suffix}" for suffix in contents}
        write({paths[suffix]: content for suffix, content in contents.items()}, force=True)
        found += paths.values()
    path = folder / "tables" / "rows.csv"
    write({path: str(write_csv(_rows(every))).encode()}, force=True)
    return [*found, path]


def _rows(every: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of all networks that figures and tables are made of, to be kept beside what quotes them."""
    own = every[(every["split"] == "test") & every["metric"].isin(_METRICS)]
    own = last_fits(own)
    return own.assign(run=own["run"].map(lambda run: Path(run).name)).drop(columns=[DIGEST, ASKED, FAILED])


def _of_figure(rows: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Return the rows of Figure 2: CNN probes of the greatest width alone, so that there is a panel for each p.

    Networks without relu have no CNN probes; they are there for the attribution.
    """
    own = rows[~is_linear(rows)]
    return own[~own["probe"].str.startswith("cnn-") | (own["probe_width"] == max(study.probe_widths))]


def _figures(
    folder: Path, study: Study, units: Sequence[Unit], every: pd.DataFrame
) -> Iterator[tuple[str, Callable[[], Made]]]:
    rows = _of_figure(every, study)
    linear = next(name for name in study.probes if name in LINEAR)
    probes = [linear, *(name for name in study.probes if name not in LINEAR)]
    yield "separability", lambda: _separability(rows, probes)
    for width in study.widths if len(study.widths) > 1 else ():
        own = rows[rows["width"] == width]
        if len(own):
            yield f"separability-M{width}", lambda own=own: _separability(own, probes)  # type: ignore[misc]
    yield "training", lambda: _training([run_path(folder, unit) for unit in units if unit.mode == "greedy"], every)
    yield "attribution", lambda: _attribution(every, linear)


def _separability(rows: pd.DataFrame, probes: Sequence[str]) -> Made:
    points = curves(rows, probes)
    return separability.draw(points, _SIZE), points, caption(points)


def _training(runs: Sequence[Path], every: pd.DataFrame) -> Made:
    cells = every.loc[every["mode"] == "greedy", ["k", "width", ASKED]].drop_duplicates()
    points = training_curves(runs)
    points = points.assign(n_asked=points["k"].map(cells.groupby("k")[ASKED].sum()))
    return training_figure.draw(points, _SIZE), points, training_figure.caption(points)


def _attribution(rows: pd.DataFrame, probe: str) -> Made:
    points = attribution(rows, probe)
    return attribution_figure.draw(points, _SIZE), points, attribution_figure.caption(points)
