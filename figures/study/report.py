"""The figures and tables of a study, made anew each time from the networks that are complete."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
    from matplotlib.figure import Figure

    from figures.kit.table import Table

log = logging.getLogger("layerwise.study")

# The points of a figure, what draws them in a size, and the caption.
Drawing = tuple[pd.DataFrame, Callable[[pd.DataFrame, str], "Figure"], str]

TABLES = ("accuracy", "trends", "contrasts")
_SIZE = "double"
_METRICS = ("accuracy", HALF, "linear_gap", "linear_gap_p_holm")


@dataclass(frozen=True)
class Material:
    """What figures and tables of a study are made of: probe results of the networks that trained, these networks, and
    the sentences that are said of all of it.
    """

    rows: pd.DataFrame
    units: Sequence[Unit]
    said: Sequence[str]


def report(folder: Path, study: Study, units: Sequence[Unit]) -> list[Path]:
    """Draw the figures and make the tables of complete networks; return the paths written.

    Figure 2 (separability), it again for each M, the training curves, and the attribution; tables of accuracy, trends
    and contrasts, and the rows that all are made of. Each says what was matched and chosen, and names the networks that
    did not train, which are left out. What the networks do not suffice for yet is left out, with a warning. Made twice,
    the bytes are the same.
    """
    material = read_material(folder, study, units)
    if material is None:
        return []
    found: list[Path] = []
    for name, drawing in drawings(folder, study, material):
        points, draw, words = drawing
        paths = {suffix: folder / "figures" / f"{name}{suffix}" for suffix in SUFFIXES}
        (folder / "figures").mkdir(exist_ok=True)
        publish(draw(points, _SIZE), points, " ".join([words, *material.said]), paths, force=True)
        found += paths.values()
    (folder / "tables").mkdir(exist_ok=True)
    for what in TABLES:
        data, table = numbers(material, what)
        contents = tables.rendered(data, replace(table, notes=[*table.notes, *material.said]))
        paths = {suffix: folder / "tables" / f"{what}{suffix}" for suffix in contents}
        write({paths[suffix]: content for suffix, content in contents.items()}, force=True)
        found += paths.values()
    path = folder / "tables" / "rows.csv"
    write({path: str(write_csv(_rows(material.rows))).encode()}, force=True)
    return [*found, path]


def read_material(folder: Path, study: Study, units: Sequence[Unit]) -> Material | None:
    """Return what figures and tables of complete networks are made of; None where no greedy one trained."""
    without = failed(folder, units)
    for unit, words in without.items():
        log.warning("%s did not train (%s): it is left out of figures and tables.", unit.name, words)
    said = notes(folder, study, units, without)
    asked = [(unit.mode, unit.k, unit.width) for unit in units if unit.mode != UNTRAINED]
    units = [unit for unit in units if unit not in without]
    if not any(unit.mode == "greedy" for unit in units):
        log.warning("no greedy network trained, so nothing is drawn.")
        return None
    return Material(with_asked(read([run_path(folder, unit) for unit in units]), asked), units, said)


def numbers(material: Material, what: str) -> tuple[pd.DataFrame, Table]:
    """Return the numbers of one of `TABLES`, and the table."""
    # Networks without relu are no lines to compare, and would count in Holm's adjustment.
    return tables.of_rows(material.rows if what == "accuracy" else material.rows[~is_linear(material.rows)], what)


def _rows(every: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of all networks that figures and tables are made of, to be kept beside what quotes them."""
    own = every[(every["split"] == "test") & every["metric"].isin(_METRICS)]
    own = last_fits(own)
    return own.assign(run=own["run"].map(lambda run: Path(run).name)).drop(columns=[DIGEST, ASKED, FAILED])


def of_figure(rows: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Return the rows of Figure 2: CNN probes of the greatest width alone, so that there is a panel for each p.

    Networks without relu have no CNN probes; they are there for the attribution.
    """
    own = rows[~is_linear(rows)]
    return own[~own["probe"].str.startswith("cnn-") | (own["probe_width"] == max(study.probe_widths))]


def drawings(folder: Path, study: Study, material: Material) -> Iterator[tuple[str, Drawing]]:
    """Yield each figure that the networks suffice for, under its name; say of each other why it is left out."""
    for name, make in _drawings(folder, study, material):
        try:
            drawing = make()
        except UserError as error:
            log.warning("figure %s is left out: %s", name, error)
            continue
        yield name, drawing


def _drawings(folder: Path, study: Study, material: Material) -> Iterator[tuple[str, Callable[[], Drawing]]]:
    every, rows = material.rows, of_figure(material.rows, study)
    probes = probes_of_figure(study)
    yield "separability", lambda: _separability(rows, probes)
    for width in study.widths if len(study.widths) > 1 else ():
        own = rows[rows["width"] == width]
        if len(own):
            yield f"separability-M{width}", lambda own=own: _separability(own, probes)  # type: ignore[misc]
    greedy = [run_path(folder, unit) for unit in material.units if unit.mode == "greedy"]
    yield "training", lambda: _training(greedy, every)
    yield "attribution", lambda: _attribution(every, probes[0])


def probes_of_figure(study: Study) -> list[str]:
    """Return the probes of Figure 2, a panel each, one linear probe first."""
    linear = next(name for name in study.probes if name in LINEAR)
    return [linear, *(name for name in study.probes if name not in LINEAR)]


def _separability(rows: pd.DataFrame, probes: Sequence[str]) -> Drawing:
    points = curves(rows, probes)
    return points, separability.draw, caption(points)


def _training(runs: Sequence[Path], every: pd.DataFrame) -> Drawing:
    cells = every.loc[every["mode"] == "greedy", ["k", "width", ASKED]].drop_duplicates()
    points = training_curves(runs)
    points = points.assign(n_asked=points["k"].map(cells.groupby("k")[ASKED].sum()))
    return points, training_figure.draw, training_figure.caption(points)


def _attribution(rows: pd.DataFrame, probe: str) -> Drawing:
    points = attribution(rows, probe)
    return points, attribution_figure.draw, attribution_figure.caption(points)
