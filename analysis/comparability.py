"""Comparability: which runs may stand in one figure and be averaged in one line, and why others are refused."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pandas as pd

from analysis.tables import LINE, NETWORK, PANEL
from layerwise.config import MODES
from layerwise.errors import UserError

# How the hyper-parameters of a fit were chosen; tables of some versions have one of these alone.
_CHOICE = {"selection", "criterion"}

log = logging.getLogger("layerwise.analysis")


def same_data(rows: pd.DataFrame) -> None:
    """Raise UserError if the runs are of data sets of different names."""
    if rows["dataset"].nunique() > 1:
        raise UserError(f"the runs are of different data sets: {by_run(rows, 'dataset')}. Draw a figure for each.")


def same_images(rows: pd.DataFrame, split: str) -> None:
    """Raise UserError if the runs were not measured on as many images, though their data sets share a name."""
    for column, what in (("n_classes", "classes"), ("n_samples", f"{split} images")):
        if rows[column].nunique() > 1:
            raise UserError(
                f"the runs differ in their number of {what}, so their data are not the same: "
                f"{by_run(rows, column)}. Draw a figure for each."
            )
    if "images_digest" in rows and rows["images_digest"].nunique() > 1:
        raise UserError(
            f"the runs were evaluated on different images that are called {split}: {by_run(rows, 'images_folder')}. "
            "Evaluate them on the same folder by `probe-depth --evaluate`."
        )


def same_experiment(rows: pd.DataFrame, line: Sequence[str] = LINE) -> None:
    """Raise UserError if runs of one line differ in more than what a line averages over: widths, seeds, maybe k.

    Args:
        rows: all rows of the runs. What a run is an experiment of is true of all its rows, so one that says it is
            enough: rows that an older version wrote do not.
        line: the columns that tell lines apart.
    """
    own = [*LINE, *(column for column in line if column in NETWORK)]
    runs = rows.groupby([*own, "run"], dropna=False, sort=False, as_index=False)["experiment"].max()
    of_networks = [column for column in line if column in own]
    for _, averaged in runs.groupby(of_networks, dropna=False, sort=False):
        different = averaged.drop_duplicates("experiment")
        if len(different) > 1:
            raise UserError(_different_experiments(different.iloc[0], different.iloc[1]))
    across = runs[runs["mode"].isin(MODES)].drop_duplicates("experiment")
    if len(across) > 1:
        log.warning(
            "%s and %s differ in more than mode, k, widths and seed (`layerwise-inspect` shows in what), so a "
            "difference between their lines need not be due to those.",
            across.iloc[0]["run"],
            across.iloc[1]["run"],
        )


def same_training_images(rows: pd.DataFrame) -> None:
    """Warn where probes of a network built elsewhere were fitted on another number of images than those of others."""
    if rows["mode"].isin(MODES).all():
        return
    for _, fits in rows.groupby(["probe", "refit"], sort=False):
        if found := _difference(fits, "n_train", "fitted on", "images"):
            log.warning("%s, so a difference between their lines need not be due to the networks.", found)


def same_choice(rows: pd.DataFrame) -> None:
    """Warn where hyper-parameters of a probe were chosen in another way, or by another criterion, from run to run."""
    for probe, fits in rows.groupby("probe", sort=False):
        for column in _CHOICE & set(fits):
            found = fits.groupby(column, sort=False)["run"].first()
            if len(found) > 1:
                how = ", ".join(f"{way} ({run})" for way, run in found.items())
                log.warning(
                    "hyper-parameters of probe %s were not chosen alike: %s, so a difference between lines need not be "
                    "due to the networks.",
                    probe,
                    how,
                )


def same_depths(rows: pd.DataFrame) -> None:
    """Warn of lines that lack depths of a probe which another line has: they end early, or have a gap.

    A network built elsewhere has depths of its own number, so that for it only gaps count.
    """
    for probe, fits in rows.groupby("probe", sort=False):
        every = set(fits.loc[fits["mode"].isin(MODES), "depth"])
        for (mode, _), line in fits.groupby(LINE, dropna=False, sort=False):
            own = set(line["depth"])
            expected = every if mode in MODES else set(range(min(own), max(own) + 1))
            if lacking := sorted(expected - own):
                where = ", ".join(map(str, lacking))
                which = "which another has" if mode in MODES else "between others"
                log.warning("%s has no probe %s at depth %s, %s.", line["run"].iloc[0], probe, where, which)


def _different_experiments(one: pd.Series, other: pd.Series) -> str:
    alike = "the same mode and k" if one["mode"] in MODES else f"the same label, {one['mode']},"
    k = "" if str(one["k"]) == str(other["k"]) else "k, "
    would = f"{one['run']} and {other['run']} {'' if k else f'have {alike} and '}would be averaged, but"
    for run in (one, other):
        if not run["experiment"]:
            return (
                f"{would} the probe results of {run['run']}, of an older version, do not say of which experiment it "
                f"is. Probe it again with `probe-depth {run['run']} --probe linear`."
            )
    return (
        f"{would} are different experiments ({one['experiment']} and {other['experiment']}): their data or their "
        f"configurations differ in more than {k}widths and seed. `layerwise-inspect` shows in what; draw a figure for "
        f"each."
    )


def same_fit_in_lines(rows: pd.DataFrame, line: Sequence[str] = LINE) -> None:
    """Raise UserError if a probe of one line was fitted on more images in some place, or a CNN probe trained longer."""
    for _, fits in rows.groupby(list(dict.fromkeys([*PANEL, *line, "refit"])), dropna=False, sort=False):
        if found := _difference(fits, "n_train", "fitted on", "images"):
            raise UserError(f"{found}, so they cannot be one line. Draw a figure for each run.")
    for probe, fits in rows[rows["probe"].str.startswith("cnn-")].groupby("probe"):
        if found := _difference(fits, "iterations", "trained for", "epochs"):
            raise UserError(
                f"{found}, so they cannot be compared. Probe them alike with `probe-depth --probe {probe} --epochs`."
            )
        if "batch_size" in fits and (found := _difference(fits, "batch_size", "trained in", "images a batch")):
            raise UserError(
                f"{found}, so they cannot be compared. Probe them alike with `probe-depth --probe {probe} --device`."
            )


def _difference(rows: pd.DataFrame, column: str, verb: str, unit: str) -> str:
    """Return which two rows differ in `column`, in words; empty if all are alike."""
    different = rows.drop_duplicates(column)
    if len(different) < 2:
        return ""
    places = [
        f"{verb} {'an unknown number of' if pd.isna(row[column]) else row[column]} {unit} at depth {row['depth']} "
        f"of {row['run']}"
        for _, row in different.iloc[:2].iterrows()
    ]
    return f"probe {rows['probe'].iloc[0]} was {places[0]} but {places[1]}"


def each_seed_once(rows: pd.DataFrame) -> None:
    """Raise UserError if two runs are the same network, or a table holds one number twice."""
    networks = rows[["run", *LINE, *NETWORK]].drop_duplicates()
    twice = networks[networks.duplicated([*LINE, *NETWORK], keep=False)]
    if not twice.empty:
        first, second = twice.groupby([*LINE, *NETWORK], dropna=False)["run"].agg(list).iloc[0][:2]
        if (label := twice["mode"].iloc[0]) not in MODES:
            raise UserError(
                f"{first} and {second} are both called {label!r}, of one seed. Extract one of them under another "
                "--label, or, if it repeats the other, with its own --seed."
            )
        raise UserError(
            f"{first} and {second} have the same mode, k, widths and seed; an average takes each seed once. "
            f"Leave one of them out."
        )
    key = ["run", *PANEL, "depth", "probe_seed"]
    repeated = rows[rows.duplicated(key)]
    if not repeated.empty:
        run, probe, depth = repeated.iloc[0][["run", "probe", "depth"]]
        raise UserError(
            f"the results of {run} hold probe {probe} at depth {depth} more than once. Move the table away "
            f"and probe again with `probe-depth {run} --probe {probe}`."
        )


def by_run(rows: pd.DataFrame, column: str) -> str:
    """Return "a, b (x.h5); c (y.h5)": what each run holds in `column`."""
    found = rows.groupby("run", sort=False)[column].agg(lambda values: ", ".join(map(str, sorted(set(values)))))
    return "; ".join(f"{value} ({run})" for run, value in found.items())
