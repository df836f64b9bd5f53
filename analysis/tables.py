"""The probe results beside several run files as one table, free of the rows of older runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.failures import FAILED, failure, identified
from layerwise.errors import UserError
from probes.results.columns import SCHEMA
from probes.results.predictions import predictions_path
from probes.results.table import experiment, parse_table, table_path

if TYPE_CHECKING:
    from layerwise.runfile import RunFile

log = logging.getLogger("layerwise.analysis")

# What makes a panel of a figure, and a line in it. The mode of a network that was built elsewhere is its label.
PANEL = ["probe", "probe_width", "pooling"]
LINE = ["mode", "k"]
# What runs of one recipe have in common, which differ in their seed alone.
LIKE = ["network", "mode", "k", "width", "aux_width", "experiment"]
UNTRAINED = "untrained"  # what the mode of such networks begins with; their kind follows
# What tells one network of a line from another: the widths are fixed factors, the seed is the repetition.
NETWORK = ["width", "aux_width", "seed"]


def read(runs: Sequence[Path]) -> pd.DataFrame:
    """Return the probe results of the given run files, one row for each number.

    Args:
        runs: paths of run files `x.h5`, each with its `x.probes.csv` beside it. A run given twice, under the
            same or another name, is counted once; the predictions beside a run, which `*.h5` names too, are left out.

    Returns:
        The rows whose run_id is that of the run file, all columns, `run`: the path as given, and `failed`: how the
        network shows that it did not train, empty for others.

    Raises:
        UserError: if a file is no run, or its table is missing, unreadable or holds only older runs.
    """
    names: dict[str, Path] = {}
    tables = []
    for run in without_predictions(runs):
        identity, failed = identified(run)
        if identity in names:
            log.warning("%s is the same run as %s; it is counted once.", run, names[identity])
            continue
        names[identity] = run
        tables.append(_rows(run, identity).assign(**{FAILED: failed}))
    return pd.concat(tables, ignore_index=True)


def without_predictions(runs: Sequence[Path]) -> list[Path]:
    """Return the run files among paths, of which `*.h5` names the predictions beside them too."""
    beside = {predictions_path(run) for run in runs}
    return [run for run in runs if run not in beside]


def about_run(run: RunFile) -> dict[str, Any]:
    """Return what rows that no probe makes say of their run, by the names that rows of probes have."""
    config, seed = run.config, (run.extraction or {}).get("seed", math.nan)
    net = None if config is None else config.network
    return {
        "run": str(run.path), "run_id": run.run_id, "network": run.network_name,
        "mode": "" if config is None else config.mode, "k": math.nan if net is None else net.k,
        "width": math.nan if net is None else net.width, "aux_width": math.nan if net is None else net.aux_width,
        "experiment": experiment(run) or "", "seed": seed if config is None else config.seed, "failed": failure(run),
        "dataset": run.dataset["name"],
    }  # fmt: skip


def file_names(runs: Iterable[str]) -> dict[str, str]:
    """Return what each run file is called: its name, and as many folders before it as tell all of them apart."""
    parts = {run: Path(run).parts for run in runs}
    most = max(map(len, parts.values()), default=1)
    for count in range(1, most + 1):
        found = {run: str(Path(*own[-count:])).removesuffix(".h5") for run, own in parts.items()}
        if len(set(found.values())) == len(found):
            break
    return found


def _rows(run: Path, identity: str) -> pd.DataFrame:
    """Return the rows of `run` in its own table, and raise if there are none."""
    path = table_path(run)
    cure = f"`probe-depth {run} --probe linear` makes them."
    if not path.is_file():
        raise UserError(f"{run} has no probe results: {path} does not exist. {cure}")
    table = _parse(path)
    rows = table[table["run_id"] == identity]
    if table.empty:
        raise UserError(f"{path} is empty, so {run} has no probe results. {cure}")
    if rows.empty:
        older = ", ".join(sorted(map(str, table["run_id"].unique())))
        raise UserError(
            f"{path} holds results of older runs only (run_id {older}), none of {run} as it is now "
            f"(run_id {identity}). {cure}"
        )
    return rows.assign(run=str(run))


def _parse(path: Path) -> pd.DataFrame:
    table = parse_table(path, "probe results", SCHEMA)
    # A network that was not built here has no mode of training in its run file; its label takes that place.
    mode = table["mode"].fillna(table["network"]).fillna("extracted")
    mode = mode.where(mode != UNTRAINED, mode + _kind_of_untrained(table))
    # What a table of an older version, or of a network without a configuration, does not say is nothing in particular.
    return table.assign(mode=mode, experiment=table["experiment"].fillna(""), variant=table["variant"].fillna(""))


def is_linear(rows: pd.DataFrame) -> pd.Series:
    """Return which rows are of a network without relu, whose features are linear functions of the pixels."""
    return rows["activation"] == "none"


def _kind_of_untrained(table: pd.DataFrame) -> pd.Series:
    """Return ", linear" (without relu) and ", kaiming" (its first weights), as they apply: lines of their own."""
    linear = is_linear(table).map({True: ", linear", False: ""})
    start = table["initialisation"].fillna("default")
    return linear + ("," + " " + start).where(start != "default", "")
