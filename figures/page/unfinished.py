"""Which networks of a study are complete, and in words what the others lack."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from figures.study import grid
from figures.study.definition import Study, Unit, diverged_path, run_path
from layerwise.runfile import RunFile
from layerwise.runfile.layout import POOL_SIDE
from probes.names import TRAINED
from probes.results.table import table_path

_NAMED = 5


def complete_units(folder: Path, study: Study) -> tuple[list[Unit], list[str]]:
    """Return the networks that are trained and have each of their probes at every depth, and sentences on the rest."""
    complete, untrained, unprobed = [], [], []
    for unit in study.units():
        if diverged_path(folder, unit).exists():
            complete.append(unit)
        elif not run_path(folder, unit).exists():
            untrained.append(unit.name)
        elif lacking := _lacking(run_path(folder, unit), study, unit):
            unprobed.append(f"{unit.name} ({', '.join(lacking)})")
        else:
            complete.append(unit)
    every, tried, asked = len(study.units()), grid.left(folder, study), len(grid.trials(study))
    said = [f"{len(tried)} of {asked} settings of the grid are not tried yet."] if tried else []
    said += [f"{len(untrained)} of {every} networks are not trained yet: {_some(untrained)}."] if untrained else []
    said += [f"{len(unprobed)} of {every} networks lack probes: {_some(unprobed)}."] if unprobed else []
    return complete, [*said, "The command that made the study goes on with it."] if said else []


def _lacking(run: Path, study: Study, unit: Unit) -> list[str]:
    """Return the probes that a network's table lacks at a depth from 1 on; whoever reads the rows then checks them."""
    if not (path := table_path(run)).is_file():
        return ["all"]
    with path.open(newline="", encoding="utf-8") as file:
        had = {(row.get("probe"), row.get("features"), row.get("depth")) for row in csv.DictReader(file)}
    with RunFile(run) as opened:
        sides = {j: min(opened.depth_shape(j)[1:]) for j in opened.depths}
    found = []
    for job in study.jobs(unit):
        kind = str(job.settings.get("features", "native"))
        for name in job.probes:
            at = {depth for probe, features, depth in had if (probe, features) == (name, kind)}
            wanted = {str(j) for j, side in sides.items() if side >= POOL_SIDE or not name.startswith("cnn-")}
            if not at or (name not in TRAINED and wanted - at - {"0"}):
                found.append(f"{name}, {kind} features" if kind != "native" else name)
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
