"""Owns run.probes.csv, a row for each number that a probe of a run gives.

The table is replaced whole and atomically, under a lock, so that two probes of one run may be fitted at the same
time. Running a probe again replaces its rows and leaves all others. docs/format.md specifies the columns.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from layerwise import __version__
from layerwise.errors import UserError
from layerwise.publication import published
from layerwise.runfile import RunFile
from layerwise.runfile.manifest import canonical, sha256
from probes.probe import ProbeName
from probes.protocol import PROTOCOL_VERSION, Fit
from probes.results.metrics import metrics
from probes.results.predictions import check_predictions, save_predictions
from probes.results.statistics import wilson_interval
from probes.tasks.task import CLASS, Task

# What one fitted probe is; running it again replaces all rows that agree in these.
PROBE_KEY = (
    "run_id", "depth", "probe", "probe_width", "probe_seed", "control", "pooling", "features", "target",
    "protocol_version",
)  # fmt: skip
_FIRST = (
    "run_id", "depth", "probe", "probe_width", "probe_seed", "control", "pooling", "features", "split", "metric",
    "refit", "protocol_version",
)  # fmt: skip
# What one number is. A column that came later stands at the end of the table, in the key or not.
KEY = (*_FIRST, "target")
COLUMNS = (
    *_FIRST,
    "mode", "k", "width", "aux_width", "seed", "dataset", "module", "channels", "map_height", "map_width",
    "n_features", "n_classes", "n_train", "n_samples", "chance", "value", "ci_low", "ci_high", "lambda", "C",
    "learning_rate", "selection", "converged", "certificate", "iterations", "precision", "seconds", "software",
    "experiment", "target", "test_reads", "network", "neighbors", "distance", "blocks", "batch_norm", "variant",
)  # fmt: skip

# Counts that some rows lack (k of a foreign network) stay integers in the text.
_COUNTS = (
    "k",
    "width",
    "aux_width",
    "seed",
    "converged",
    "iterations",
    "test_reads",
    "neighbors",
    "blocks",
    "batch_norm",
)
_TYPES = {"run_id": "str", "target": "str", "variant": "str"} | dict.fromkeys(_COUNTS, "Int64")


def table_path(run_path: Path) -> Path:
    """Return where the rows of a run stand: x.probes.csv for x.h5."""
    return run_path.with_name(run_path.stem + ".probes.csv")


def rows(run: RunFile, task: Task, name: ProbeName, fits: Sequence[Fit]) -> list[dict[str, Any]]:
    """Return one row for each number of the fits of one probe at one depth, with every column of the table."""
    fixed = _run_columns(run, task) | _probe_columns(run, name)
    frequent = int(np.bincount(task.labels("train")).argmax())
    result = []
    for fit in fits:
        for split, scored in fit.scores.items():
            about = fixed | _fit_columns(fit) | {"split": split, "n_samples": len(scored.label)}
            about["chance"] = float((scored.label == frequent).mean())
            for metric, value in metrics(scored, task.classes).items():
                row = about | {"metric": metric, "value": value}
                if metric == "accuracy" and split != "train":
                    row["ci_low"], row["ci_high"] = wilson_interval(value, len(scored.label))
                result.append(row)
    return [{column: row.get(column) for column in COLUMNS} for row in result]


def _run_columns(run: RunFile, task: Task) -> dict[str, Any]:
    columns = {"run_id": run.run_id, "dataset": run.dataset["name"], "n_classes": len(task.classes)}
    columns |= {"experiment": experiment(run), "blocks": max(run.depths)}
    origin = run.extraction
    if origin is not None:
        columns |= {"network": origin["label"], "seed": origin["seed"]}
    cfg = run.config
    if cfg is not None:
        net = cfg.network
        columns |= {
            "mode": cfg.mode,
            "k": net.k,
            "width": net.width,
            "aux_width": net.aux_width,
            "seed": cfg.seed,
            "batch_norm": int(net.has_batch_norm),
            "variant": net.variant or None,
        }
    return columns


def experiment(run: RunFile) -> str | None:
    """Return a name for all that a run has in common with the runs it may be averaged or compared with.

    A digest of its data and its configuration, but for how the network was trained (mode, match), its k, M and M~, its
    seed, where its prefix came from, and what is stored. For a network built elsewhere, of its data and origin, but for
    its seed and which weights those were; None where a file says neither.
    """
    if (origin := run.extraction) is not None:
        kept = {name: value for name, value in origin.items() if name not in ("seed", "weights")}
        return sha256(canonical([kept, run.dataset["fingerprint"]]))[:12]
    if run.config is None:
        return None
    tree = json.loads(run.config.to_json())
    for name in ("mode", "match", "seed", "store"):
        del tree[name]
    for name in ("k", "width", "aux_width"):
        del tree["network"][name]
    del tree["training"]["prefix"]  # computed or kept, it is the same
    if not tree["training"]["views"]:
        del tree["training"]["views"]  # which files of earlier versions do not have
    for name in ("last_aux_width", "prune_to", "factory", "factory_sha256"):  # nor these
        if not tree["network"][name]:
            del tree["network"][name]
    if tree["network"]["architecture"] == "plain":
        del tree["network"]["architecture"]
    if "prune_to" not in tree["network"]:
        del tree["training"]["finetune_epochs"], tree["training"]["finetune_rate"]
    return sha256(canonical([tree, run.dataset["fingerprint"]]))[:12]


def _probe_columns(run: RunFile, name: ProbeName) -> dict[str, Any]:
    channels, height, width = run.depth_shape(name.depth)
    return {
        **vars(name),
        "protocol_version": PROTOCOL_VERSION,
        "module": run.depth_module(name.depth),
        "channels": channels,
        "map_height": height,
        "map_width": width,
        "software": f"layerwise {__version__}",
    }


def _fit_columns(fit: Fit) -> dict[str, Any]:
    return {
        "refit": fit.refit,
        "n_features": fit.n_features,
        "n_train": fit.n_train,
        "lambda": fit.penalty,
        "C": None if fit.penalty is None else 1 / (fit.n_train * fit.penalty),
        "learning_rate": fit.learning_rate,
        "selection": fit.selection,
        "converged": None if fit.converged is None else int(fit.converged),
        "certificate": fit.certificate,
        "iterations": fit.iterations,
        "neighbors": fit.neighbors,
        "distance": fit.distance,
        "seconds": round(fit.seconds, 4),
    }


def parse_table(path: Path, what: str, types: Mapping[str, str], columns: Sequence[str]) -> pd.DataFrame:
    """Return a table that stands beside a run; raise UserError if it cannot be read, or lacks one of the columns.

    what: what it is a table of, for the messages.
    """
    try:
        table = pd.read_csv(path, dtype=dict(types))
    except (ValueError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as a table of {what} ({type(error).__name__}). Move it away, and run "
            "probe-depth again."
        ) from None
    if missing := [column for column in columns if column not in table]:
        raise UserError(
            f"{path} is no table of {what}: it lacks the column {missing[0]!r}. "
            "Move it away, and run probe-depth again."
        )
    return table


def read_table(path: Path) -> pd.DataFrame:
    """Return a table of rows; raise UserError if it is none, or lacks a column of the key or `value`."""
    return with_later_columns(parse_table(path, "probe results", _TYPES, (*_FIRST, "value")))


def with_later_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows of any version with the columns that their version did not have.

    Tables of protocol version 1 have no target and no count of test reads: their target was the class, read once.
    """
    if "target" not in table:
        table = table.assign(target=CLASS, test_reads=1)
    for column in ("neighbors", "blocks", "batch_norm"):
        if column not in table:
            table[column] = pd.array([pd.NA] * len(table), dtype="Int64")
    for column in ("distance", "variant"):
        if column not in table:
            table[column] = None
    return table


def read_rows(run: RunFile) -> pd.DataFrame:
    """Return the rows of a run by the present protocol, all columns; none where it has no table yet."""
    path = table_path(run.path)
    if not path.exists():
        return pd.DataFrame(columns=list(COLUMNS))
    table = read_table(path)
    return table[(table["run_id"] == run.run_id) & (table["protocol_version"] == PROTOCOL_VERSION)]


def rows_of(table: pd.DataFrame, name: ProbeName, iterations: int | None = None) -> pd.DataFrame:
    """Return the rows of one probe among those of a run.

    iterations: epochs of its recipe, where it has any: rows of other epochs or another number type are not of it.
    """
    own = table
    for column in PROBE_KEY[1:-1]:
        own = own[own[column] == getattr(name, column)]
    if iterations is None:
        return own
    return own[(own["iterations"] == iterations) & (own["precision"] == name.precision)]


def chosen_penalty(run: RunFile, name: ProbeName, control: str) -> float | None:
    """Return lambda of the probe that differs from `name` in its control alone, or None where the table lacks it."""
    table = read_rows(run)
    own = rows_of(table[table["control"] == control].assign(control=name.control), name)
    return float(own["lambda"].iloc[0]) if len(own) else None


def check_files(run_path: Path) -> None:
    """Raise UserError if what stands in the place of a run's results is something else, before anything is fitted."""
    if table_path(run_path).exists():
        read_table(table_path(run_path))
    check_predictions(run_path)


def save(run: RunFile, task: Task, fitted: Sequence[tuple[ProbeName, Sequence[Fit]]]) -> None:
    """Put the rows and the test predictions of probes at one or more depths into the files beside the run."""
    with locked(run.path):
        check_files(run.path)
        save_predictions(run, run.indices("test")[task.rows("test")], fitted)
        new = [row for name, fits in fitted for row in rows(run, task, name, fits)]
        _replace(table_path(run.path), pd.DataFrame(new, columns=list(COLUMNS)))


def _replace(path: Path, new: pd.DataFrame) -> None:
    """Put new rows in the place of all those of the same probes, counting once more that their test split was read."""
    kept = read_table(path) if path.exists() else new.iloc[:0]
    reads = kept.groupby(list(PROBE_KEY[:-1]))["test_reads"].max() if len(kept) else pd.Series(dtype="Int64")
    before = [reads.get(tuple(key), 0) for key in new[list(PROBE_KEY[:-1])].itertuples(index=False)]
    again = _keys(kept).isin(_keys(new))
    write_table(path, [kept[~again], new.assign(test_reads=np.array(before, np.int64) + 1)])


def _keys(table: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(table[list(PROBE_KEY)])


def write_table(path: Path, parts: Sequence[pd.DataFrame]) -> None:
    """Write rows, in the order of their key, in the place of a table."""
    table = pd.concat([part.astype(object) for part in parts if len(part)])
    table = table.astype(dict.fromkeys(_COUNTS, "Int64")).sort_values(list(KEY), kind="stable")
    with published(path, force=True) as temporary:
        table.to_csv(temporary, index=False, columns=[c for c in COLUMNS if c in table])


@contextmanager
def locked(run_path: Path) -> Iterator[None]:
    """Hold the lock of a run's results; a second process waits."""
    with open(run_path.with_name(f".{run_path.name}.results.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
