"""Owns the two files of results beside a run: run.probes.csv, a row for each number, and run.predictions.h5.

Both are replaced whole and atomically, under a lock, so that two probes of one run may be fitted at the same
time. Running a probe again replaces its rows and leaves all others. docs/format.md specifies the columns.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from layerwise import __version__
from layerwise.errors import UserError
from layerwise.manifest import canonical, sha256
from layerwise.publication import published
from layerwise.runfile import RunFile
from probes.protocol import PROTOCOL_VERSION, Fit, Predictions
from probes.statistics import wilson_interval

# What one fitted probe is; running it again replaces all rows that agree in these.
PROBE_KEY = (
    "run_id", "depth", "probe", "probe_width", "probe_seed", "control", "pooling", "features", "protocol_version",
)  # fmt: skip
KEY = (
    "run_id", "depth", "probe", "probe_width", "probe_seed", "control", "pooling", "features", "split", "metric",
    "refit", "protocol_version",
)  # fmt: skip
COLUMNS = (
    *KEY,
    "mode", "k", "width", "aux_width", "seed", "dataset", "module", "channels", "map_height", "map_width",
    "n_features", "n_classes", "n_train", "n_samples", "chance", "value", "ci_low", "ci_high", "lambda", "C",
    "learning_rate", "selection", "converged", "certificate", "iterations", "precision", "seconds", "software",
    "experiment",
)  # fmt: skip


PREDICTIONS_FORMAT = "layerwise-predictions"


@dataclass(frozen=True, kw_only=True)
class ProbeName:
    """What names a probe at a depth, beside the run: columns of the key, and the number type it is fitted in.

    pooling: side of the average A; 0 where the probe reads whole maps. probe_width, probe_seed: 0 where it has none.
    """

    depth: int
    probe: str
    probe_width: int = 0
    probe_seed: int = 0
    control: str = "none"
    pooling: int = 2
    features: str = "native"
    precision: str = "fp32"


def table_path(run_path: Path) -> Path:
    """Return where the rows of a run stand: x.probes.csv for x.h5."""
    return run_path.with_name(run_path.stem + ".probes.csv")


def predictions_path(run_path: Path) -> Path:
    """Return where the single predictions of a run stand: x.predictions.h5 for x.h5."""
    return run_path.with_name(run_path.stem + ".predictions.h5")


def rows(run: RunFile, name: ProbeName, fits: Sequence[Fit]) -> list[dict[str, Any]]:
    """Return one row for each number of the fits of one probe at one depth, with every column of the table."""
    fixed = _run_columns(run) | _probe_columns(run, name)
    train = run.labels("train")
    frequent = int(np.bincount(train).argmax())
    result = []
    for fit in fits:
        for split, scored in fit.scores.items():
            about = fixed | _fit_columns(fit) | {"split": split, "n_samples": len(scored.label)}
            about["chance"] = float((scored.label == frequent).mean())
            low, high = wilson_interval(scored.accuracy, len(scored.label)) if split != "train" else (None, None)
            result.append(about | {"metric": "accuracy", "value": scored.accuracy, "ci_low": low, "ci_high": high})
            result.append(about | {"metric": "log_loss_bits", "value": scored.log_loss_bits})
    return [{column: row.get(column) for column in COLUMNS} for row in result]


def _run_columns(run: RunFile) -> dict[str, Any]:
    columns = {"run_id": run.run_id, "dataset": run.dataset["name"], "n_classes": len(run.dataset["classes"])}
    columns["experiment"] = experiment(run)
    cfg = run.config
    if cfg is not None:
        net = cfg.network
        columns |= {
            "mode": cfg.mode,
            "k": net.k,
            "width": net.width,
            "aux_width": net.aux_width,
            "seed": cfg.seed,
        }
    return columns


def experiment(run: RunFile) -> str | None:
    """Return a name for all that a run has in common with the runs it may be averaged or compared with.

    A digest of its data and its configuration, but for how the network was trained (mode, match), its k and widths, its
    seed, where its prefix came from, and what is stored; None for a network without a configuration.
    """
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
        "seconds": round(fit.seconds, 4),
    }


def read_table(path: Path) -> pd.DataFrame:
    """Return a table of rows; raise UserError if it is none, or lacks a column of the key or `value`."""
    try:
        table = pd.read_csv(path, dtype={"run_id": "str"})
    except (ValueError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as a table of probe results ({type(error).__name__}). Move it away, and run "
            "probe-depth again."
        ) from None
    missing = [column for column in (*KEY, "value") if column not in table]
    if missing:
        raise UserError(
            f"{path} is no table of probe results: it lacks the column {missing[0]!r}. "
            "Move it away, and run probe-depth again."
        )
    return table


def check_files(run_path: Path) -> None:
    """Raise UserError if what stands in the place of a run's results is something else, before anything is fitted."""
    if table_path(run_path).exists():
        read_table(table_path(run_path))
    path = predictions_path(run_path)
    if path.exists():
        try:
            with h5py.File(path, "r") as file:
                is_ours = file.attrs.get("format") == PREDICTIONS_FORMAT
        except OSError:
            is_ours = False
        if not is_ours:
            raise UserError(
                f"{path} would hold the predictions of {run_path.name}, but holds something else. "
                "Move it away, or give the run another name."
            )


def save(run: RunFile, fitted: Sequence[tuple[ProbeName, Sequence[Fit]]]) -> None:
    """Put the rows and the test predictions of probes at one or more depths into the files beside the run."""
    with _locked(run.path):
        check_files(run.path)
        _save_predictions(predictions_path(run.path), run, fitted)
        _save_rows(table_path(run.path), [row for name, fits in fitted for row in rows(run, name, fits)])


def _save_rows(path: Path, new_rows: list[dict[str, Any]]) -> None:
    new = pd.DataFrame(new_rows, columns=list(COLUMNS))
    if path.exists():
        old = read_table(path)
        key = list(PROBE_KEY)
        again = pd.MultiIndex.from_frame(old[key]).isin(pd.MultiIndex.from_frame(new[key]))
        kept = old[~again]
        new = pd.concat([kept.astype(object), new.astype(object)]) if len(kept) else new
    # Counts that some rows lack (k of a foreign network) stay integers in the text.
    counts = {c: "Int64" for c in ("k", "width", "aux_width", "seed", "converged", "iterations")}
    new = new.astype(counts).sort_values(list(KEY), kind="stable")
    with published(path, force=True) as temporary:
        new.to_csv(temporary, index=False)


def _group(run_id: str, name: ProbeName, refit: int) -> str:
    return (
        f"{run_id}/{name.probe}/width-{name.probe_width}/seed-{name.probe_seed}/{name.control}/"
        f"pooling-{name.pooling}/{name.features}/depth-{name.depth:02d}/refit-{refit}"
    )


def _save_predictions(path: Path, run: RunFile, fitted: Sequence[tuple[ProbeName, Sequence[Fit]]]) -> None:
    with published(path, force=True) as temporary, h5py.File(temporary, "w", libver=("v110", "v110")) as file:
        file.attrs["format"], file.attrs["format_version"] = PREDICTIONS_FORMAT, 1
        if path.exists():
            with h5py.File(path, "r") as old:
                for group in old:
                    old.copy(group, file)
        for name, fit in ((name, fit) for name, fits in fitted for fit in fits):
            group = _group(run.run_id, name, fit.refit)
            if group in file:
                del file[group]
            _write_predictions(file.create_group(group), run.indices("test"), fit.scores["test"])
            file[group].attrs.update({"run_id": run.run_id, **vars(name), "refit": fit.refit, "split": "test"})
            file[group].attrs["protocol_version"] = PROTOCOL_VERSION


def _write_predictions(group: h5py.Group, index: np.ndarray, scored: Predictions) -> None:
    group["index"] = index
    group["label"] = scored.label.astype(np.int32)
    group["predicted"] = scored.predicted.astype(np.int32)
    group["true_log_probability"] = scored.true_log_probability.astype(np.float32)


@contextmanager
def _locked(run_path: Path) -> Iterator[None]:
    """Hold the lock of a run's results; a second process waits."""
    with open(run_path.with_name(f".{run_path.name}.results.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
