"""What a page is made of: a study with the networks that are complete, or run files on the same images."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from analysis.attribution import attribution
from analysis.failures import only_trained
from analysis.selection import of_classes
from analysis.separability import curves
from analysis.tables import LINE, UNTRAINED, read, without_predictions
from analysis.training import training_curves
from figures import tables
from figures.kit.table import Table
from figures.page.unfinished import complete_units
from figures.plots import attribution as attribution_figure
from figures.plots import separability
from figures.plots import training as training_figure
from figures.plots.caption import caption
from figures.study import grid
from figures.study import report as study_report
from figures.study.choices import choices_table
from figures.study.definition import read_study, run_path
from figures.study.report import Drawing
from layerwise.config import TRAINED_MODES
from layerwise.errors import UsageError, UserError

log = logging.getLogger("layerwise.figures")

# Of a figure, its points, and of what it shows more than accuracy against depth.
TABLES = ("accuracy", "contrasts", "trends")
_NAMED = 5  # of run files, in the heading


@dataclass(frozen=True)
class Given:
    """What a page is made of.

    name: of the study, or of the runs. paths: run files. rows: probe results of the networks that trained. drawn: the
    rows of the first figure. drawings: by name, `separability` first. tables: by their names, of `TABLES`, each with
    its numbers. fold: points of the first figure on the validation fold; None where no fold is unseen. said: sentences
    on all of it. choices: the grid of a study. lacking: what is not there yet. settings: of a study, in words.
    """

    name: str
    paths: Sequence[Path]
    rows: pd.DataFrame
    drawings: dict[str, Drawing]
    tables: dict[str, tuple[pd.DataFrame, Table]]
    fold: pd.DataFrame | None
    said: Sequence[str] = ()
    choices: Table | None = None
    lacking: Sequence[str] = ()
    settings: str = ""


def read_given(inputs: Sequence[Path]) -> Given:
    """Return what a page of a study's folder, or of run files, is made of.

    Raises:
        UsageError: a folder beside others. UserError: a folder that is no study, a study without a complete greedy
            network, run files that were not probed, or that are of different images.
    """
    folders = [path for path in inputs if path.is_dir()]
    if folders and len(inputs) > 1:
        raise UsageError(
            f"{folders[0]} is a folder, and a study stands alone in a report. Give it alone, or run files."
        )
    if folders:
        return _of_study(folders[0])
    return _of_runs(list(dict.fromkeys(without_predictions(inputs))))


def _of_study(folder: Path) -> Given:
    if not (folder / "study.json").is_file():
        raise UserError(
            f"{folder} holds no study.json, so it is no study. Give the folder of separability-study, or run files."
        )
    study = grid.with_choices(folder, read_study(folder / "study.json"))
    units, lacking = complete_units(folder, study)
    material = study_report.read_material(folder, study, units) if units else None
    if material is None:
        raise UserError(
            f"{folder} has no greedy network that is trained and probed, so there is nothing to report. "
            f"{' '.join(lacking)}"
        )
    rows = study_report.of_figure(material.rows, study)
    probes = study_report.probes_of_figure(study)
    drawings = dict(study_report.drawings(folder, study, material))
    found = {what: _tried(what, lambda what=what: study_report.numbers(material, what)) for what in TABLES}  # type: ignore[misc]
    tried = grid.results(folder, study)
    return Given(
        name=folder.resolve().name,
        paths=[run_path(folder, unit) for unit in material.units],
        rows=material.rows,
        drawings=drawings,
        tables={what: one for what, one in found.items() if one},
        fold=_on_the_fold(rows, probes),
        said=material.said,
        choices=choices_table(tried) if tried else None,
        lacking=lacking,
        settings=_words(json.loads(study.to_json())),
    )


def _words(asked: Mapping[str, Any]) -> str:
    """Return what study.json holds in a line."""
    shown = {name: " ".join(map(str, value)) if isinstance(value, list) else value for name, value in asked.items()}
    flat = {name: value for name, value in shown.items() if not isinstance(value, dict)}
    fields = [f"{name} = {value}" for name, value in asked["settings"].items()]
    fields += [f"{mode}: {name} = {value}" for mode, own in asked["own"].items() for name, value in own.items()]
    return ", ".join([*(f"{name} {value}" for name, value in flat.items()), *fields])


def _of_runs(paths: Sequence[Path]) -> Given:
    rows = read(paths)
    paths = [Path(run) for run in dict.fromkeys(rows["run"])]
    require_same_images(paths)
    rows = only_trained(rows, [*LINE, "variant"])
    points = curves(rows)
    drawings: dict[str, Drawing] = {"separability": (points, separability.draw, caption(points))}
    drawings |= dict(_more_drawings(paths, rows))
    wanted = TABLES if (rows.groupby(LINE, dropna=False)["seed"].nunique() > 1).any() else ("accuracy",)
    found = {what: _tried(what, lambda what=what: tables.of_rows(rows, what)) for what in wanted}  # type: ignore[misc]
    return Given(
        name=" ".join(path.name for path in paths[:_NAMED])
        + f" and {len(paths) - _NAMED} more" * (len(paths) > _NAMED),
        paths=paths,
        rows=rows,
        drawings=drawings,
        tables={what: one for what, one in found.items() if one},
        fold=_on_the_fold(rows, list(dict.fromkeys(points["probe"]))),
    )


def _more_drawings(paths: Sequence[Path], rows: pd.DataFrame) -> Iterator[tuple[str, Drawing]]:
    """Yield the training curves of each mode, and the attribution where runs are both greedy and untrained."""
    modes = set(rows["mode"])
    makes: dict[str, Callable[[], Drawing]] = {
        f"training-{mode}": lambda mode=mode: _training(paths, mode)  # type: ignore[misc]
        for mode in TRAINED_MODES
        if mode in modes
    }
    if "greedy" in modes and any(mode.startswith(UNTRAINED) for mode in modes):
        makes["attribution"] = lambda: _attribution(rows)
    for name, make in makes.items():
        if drawing := _tried(name, make):
            yield name, drawing


def _training(paths: Sequence[Path], mode: str) -> Drawing:
    points = training_curves(paths, mode)
    return points, training_figure.draw, training_figure.caption(points)


def _attribution(rows: pd.DataFrame) -> Drawing:
    points = attribution(rows)
    return points, attribution_figure.draw, attribution_figure.caption(points)


Found = TypeVar("Found")


def _tried(name: str, make: Callable[[], Found]) -> Found | None:
    """Return what can be made, or None, and say why not."""
    try:
        return make()
    except UserError as error:
        log.warning("%s is left out: %s", name, error)
        return None


def _on_the_fold(rows: pd.DataFrame, probes: Sequence[str]) -> pd.DataFrame | None:
    """Return accuracy against depth on the validation fold, of probes fitted without it; None where a run has none."""
    own = of_classes(rows)
    own = own[(own["split"] == "validation") & (own["refit"] == 0) & (own["probe"] == probes[0])]
    if set(own["run"]) != set(rows["run"]):
        return None
    return curves(rows, probes[:1], "validation", refit=False)


def require_same_images(paths: Sequence[Path]) -> None:
    """Raise UserError unless all runs hold the same test images in the same order, naming the two that do not."""
    from layerwise.runfile import RunFile

    first = None
    for path in paths:
        with RunFile(path) as run:
            prints = run.dataset["fingerprint"].get("test"), run.indices("test")
            name = run.dataset["name"]
        if first is None:
            first = path, name, prints
        elif first[2][0] != prints[0] or not np.array_equal(first[2][1], prints[1]):
            raise UserError(
                f"{path} cannot stand in one report with {first[0]}: their test images differ ({first[1]} and {name}, "
                "by their fingerprints and indices). Make a report of each."
            )
