"""run.probes.csv: a row for each number that a probe of a run gives.

The table is replaced whole and atomically, under a lock, so that two probes of one run may be fitted at the same
time. Running a probe again replaces its rows and leaves all others. columns.py lists the columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from layerwise import __version__
from layerwise.datasets.shown import ShownImages
from layerwise.errors import UserError
from layerwise.locks import held
from layerwise.publication import is_there, published, remove_leftovers, short_name
from layerwise.runfile import RunFile
from layerwise.runfile.manifest import canonical, sha256
from probes.csvfile import read_csv, write_csv
from probes.probe import ProbeName
from probes.protocol import PROTOCOL_VERSION, Fit
from probes.results.columns import COLUMNS, FIRST, KEY, PROBE_KEY, PROBE_NAME, SCHEMA, Column, dtypes
from probes.results.integrity import require_intact, sealed
from probes.results.intervals import wilson_interval
from probes.results.metrics import TOP5, metrics
from probes.results.predictions import check_predictions, save_predictions
from probes.tasks.task import Task

# The table that was read or written last, with what tells its file from one that another process has put there since:
# a sweep of D depths reads a table 2 D + 5 times and writes it D + 1 times, but parses it once.
_last: dict[Path, tuple[tuple[int, int, int], pd.DataFrame]] = {}


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
                if metric in ("accuracy", TOP5) and split != "train":
                    row["ci_low"], row["ci_high"] = wilson_interval(value, len(scored.label))
                result.append(row)
        for (split, metric), one in fit.values.items():
            about = fixed | _fit_columns(fit) | {"split": split, "n_samples": len(one.label), "metric": metric}
            about["chance"] = float((one.label == frequent).mean())
            result.append(about | {"value": one.value, "ci_low": one.low, "ci_high": one.high})
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
            "initialisation": net.initialisation,
            "activation": net.activation,
            "variant": net.variant or None,
        }
    return columns


# Fields that earlier versions did not have, with what they did: files that agree in it are one experiment.
_LATER_FIELDS: tuple[tuple[str, str, object], ...] = (
    ("network", "seeding", 1),
    ("network", "activation", "relu"),
    ("network", "norm_weight", "ones"),
    ("network", "aux_halving", False),
    ("network", "norm_momentum", 0.1),
    ("network", "conv_bias", "auto"),
    ("training", "lr_first", 0),
    ("training", "block_epochs", []),
    ("training", "nesterov", False),
    ("training", "norm_bias_rate", 1.0),
    ("training", "lookahead", 0.0),
    ("training", "crop_fill", "zeros"),
    ("training", "alternating_flip", False),
    ("training", "cutout", 0),
    ("data", "test_share", 0.0),
    ("data", "fold_seed", 0),
)


def experiment(run: RunFile) -> str | None:
    """Return a name for all that a run has in common with the runs it may be averaged or compared with.

    A digest of its data and its configuration, but for how the network was trained (mode, match, and what a study
    chose for each mode), its k, M and M~, its seed and that of a fold other than the usual one, where its prefix came
    from, and what is stored. For a network built elsewhere, of its data and origin, but for its seed and which weights
    those were; None where a file says neither.
    """
    if (origin := run.extraction) is not None:
        kept = {name: value for name, value in origin.items() if name not in ("seed", "weights")}
        return sha256(canonical([kept, run.dataset["fingerprint"]]))[:12]
    if run.config is None:
        return None
    tree = json.loads(run.config.to_json())
    training = tree["training"]
    if training["matched_epochs"]:  # to the greedy run's, of which it is the rounded multiple
        training["lr_first"] = round(training["lr_first"] * training["matched_epochs"] / training["epochs"])
    for name in ("epochs", "lr_every"):  # of the greedy run, where these follow from its operations
        training[name] = training.pop(f"matched_{name}") or training[name]
    tuned = tree.pop("tuned")
    for name in ("mode", "match", "seed", "store", "dtype", "mirrored"):
        tree.pop(name, None)  # files of earlier versions have no dtype, and were not scored on mirrored images
    for name in ("k", "width", "aux_width"):
        del tree["network"][name]
    del tree["training"]["prefix"]  # computed or kept, it is the same
    if not tree["training"]["views"]:
        del tree["training"]["views"]  # which files of earlier versions do not have
    for name in ("last_aux_width", "prune_to", "factory", "factory_sha256"):  # nor these
        if not tree["network"][name]:
            del tree["network"][name]
    for part, name, before in _LATER_FIELDS:
        if tree[part][name] == before:
            del tree[part][name]
    if tree["network"]["architecture"] == "plain":
        del tree["network"]["architecture"]
    if "prune_to" not in tree["network"]:
        del tree["training"]["finetune_epochs"], tree["training"]["finetune_rate"]
    prints = run.dataset["fingerprint"]
    if tree["data"].pop("fold_seed", 0):
        prints = {"test": prints["test"]}  # runs of several folds are averaged, so that their spread includes the fold
    _leave_out(tree, tuned)
    return sha256(canonical([tree, prints]))[:12]


def _leave_out(tree: dict[str, Any], tuned: str) -> None:
    """Remove the fields that each mode and k has of its own."""
    for path in filter(None, tuned.split(",")):
        part, _, name = path.rpartition(".")
        (tree[part] if part else tree).pop(name, None)


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
        "batch_size": fit.batch_size,
        "neighbors": fit.neighbors,
        "distance": fit.distance,
        "estimator": fit.estimator,
        "seconds": round(fit.seconds, 4),
    }


def parse_table(path: Path, what: str, schema: Sequence[Column]) -> pd.DataFrame:
    """Return a table that stands beside a run, of any version, with all columns of the schema in their types.

    what: what it is a table of, for the messages.

    Raises:
        UserError: a file that cannot be read, lacks a column that all versions have, or is not what was written.
    """
    if not path.is_file():  # a pipe would be waited for
        raise UserError(
            f"{path} is no regular file; expected a table of {what}. Move it away, and run probe-depth again."
        )
    try:
        table = read_csv(path, dtypes(schema))
    except (ValueError, TypeError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as a table of {what} ({type(error).__name__}). Move it away, and run "
            "probe-depth again."
        ) from None
    missing = [column for column in schema if column.name not in table]
    if lost := [column.name for column in missing if column.since == FIRST]:
        raise UserError(
            f"{path} is no table of {what}: it lacks the column {lost[0]!r}. Move it away, and run probe-depth again."
        )
    require_intact(table, schema, path)
    for column in missing:
        table[column.name] = pd.array([column.before] * len(table), dtype=column.dtype)
    return table


def read_table(path: Path) -> pd.DataFrame:
    """Return the rows that stand in a table, of all its runs; nobody may change them in place."""
    found = _identity(path)
    if _last.get(path, (None,))[0] != found:
        _keep(path, parse_table(path, "probe results", SCHEMA), found)
    return _last[path][1]


def _identity(path: Path) -> tuple[int, int, int]:
    """Return what changes whenever a table is replaced."""
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _keep(path: Path, table: pd.DataFrame, identity: tuple[int, int, int]) -> None:
    _last.clear()
    _last[path] = identity, table


def read_rows(run: RunFile) -> pd.DataFrame:
    """Return the rows of a run by the present protocol, all columns; none where it has no table yet."""
    path = table_path(run.path)
    if not is_there(path):
        return pd.DataFrame(columns=list(COLUMNS))
    table = read_table(path)
    return table[(table["run_id"] == run.run_id) & (table["protocol_version"] == PROTOCOL_VERSION)]


def rows_of(
    table: pd.DataFrame, name: ProbeName, iterations: int | None = None, batch_size: int | None = None
) -> pd.DataFrame:
    """Return the rows of one probe among those of a run.

    iterations: if given, only rows with this number of epochs, this batch size and the name's precision match.
    """
    own = table
    for column in PROBE_NAME:
        own = own[own[column] == getattr(name, column)]
    if iterations is None:
        return own
    own = own[(own["iterations"] == iterations) & (own["precision"] == name.precision)]
    return own if batch_size is None else own[own["batch_size"] == batch_size]


def chosen_penalty(run: RunFile, name: ProbeName, control: str) -> float | None:
    """Return lambda of the probe that differs from `name` in its control alone, or None where the table lacks it."""
    table = read_rows(run)
    own = rows_of(table[table["control"] == control].assign(control=name.control), name)
    return float(own["lambda"].iloc[0]) if len(own) else None


def last_fits(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the last fit of each probe, of each run where there are several: the refit, if it has one."""
    return rows[rows["refit"] == rows.groupby(["run_id", *PROBE_NAME])["refit"].transform("max")]


def check_files(run_path: Path) -> None:
    """Raise UserError if what stands in the place of a run's results is something else, before anything is fitted."""
    if is_there(table_path(run_path)):
        read_table(table_path(run_path))
    check_predictions(run_path)


def save(run: RunFile, task: Task, fitted: Sequence[tuple[ProbeName, Sequence[Fit]]]) -> None:
    """Put the rows and the test predictions of probes at one or more depths into the files beside the run."""
    with locked(run.path):
        check_files(run.path)
        save_predictions(run, run.indices("test")[task.rows("test")], fitted)
        new = [row for name, fits in fitted for row in rows(run, task, name, fits)]
        _replace(table_path(run.path), pd.DataFrame(new, columns=list(COLUMNS)))


def save_shown(run: RunFile, task: Task, images: ShownImages, shown: Sequence[tuple[ProbeName, Fit]]) -> None:
    """Put the rows of probes on a set of other images in the place of earlier ones of its name, beside their own.

    They belong to the fit whose rows stand there: where that is fitted again, they go with it.
    """
    about = {"images_folder": str(images.folder.absolute()), "images_digest": images.digest}
    new = pd.DataFrame(
        [row | about for name, fit in shown for row in rows(run, task, name, [fit])], columns=list(COLUMNS)
    )
    if new.empty:
        return
    with locked(run.path):
        path = table_path(run.path)
        table = read_table(path)
        own = _keys(table).isin(_keys(new))
        reads = table[own].groupby(list(PROBE_KEY[:-1]))["test_reads"].max()
        new["test_reads"] = [reads[tuple(key)] for key in new[list(PROBE_KEY[:-1])].itertuples(index=False)]
        write_table(path, [table[~(own & (table["split"] == images.name))], new])


def _replace(path: Path, new: pd.DataFrame) -> None:
    """Put new rows in the place of all those of the same probes, counting once more that their test split was read."""
    kept = read_table(path) if is_there(path) else new.iloc[:0]
    reads = kept.groupby(list(PROBE_KEY[:-1]))["test_reads"].max() if len(kept) else pd.Series(dtype="Int64")
    before = [reads.get(tuple(key), 0) for key in new[list(PROBE_KEY[:-1])].itertuples(index=False)]
    again = _keys(kept).isin(_keys(new))
    write_table(path, [kept[~again], new.assign(test_reads=np.array(before, np.int64) + 1)])


def _keys(table: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(table[list(PROBE_KEY)])


def write_table(path: Path, parts: Sequence[pd.DataFrame]) -> None:
    """Write rows, in the order of their key, in the place of a table."""
    table = pd.concat([part.astype(object) for part in parts if len(part)])
    types = {name: dtype for name, dtype in dtypes(SCHEMA).items() if dtype != "str"}  # text with gaps stays as it is
    table = table.astype(types)[list(COLUMNS)].sort_values(list(KEY), kind="stable", ignore_index=True)
    table = sealed(table, SCHEMA)
    with published(path, force=True) as temporary:
        write_csv(table, temporary)
    _keep(path, table, _identity(path))


@contextmanager
def locked(run_path: Path) -> Iterator[None]:
    """Hold the lock of a run's results; a second process waits."""
    lock = run_path.with_name(f".{short_name(run_path)}.results.lock")
    with held(lock, f"probe-depth is writing the results of {run_path.name}", wait=True):
        for ending in (".probes.csv", ".candidates.csv", ".predictions.h5"):
            remove_leftovers(run_path.with_name(run_path.stem + ending))
        yield
