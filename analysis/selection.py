"""Owns which rows of probe results may stand in one figure, and every reason to refuse some."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import pandas as pd

from layerwise.errors import UsageError, UserError, unknown

log = logging.getLogger("layerwise.analysis")

SPLITS = ("train", "validation", "test")
PANEL = ["probe", "probe_width", "pooling"]
LINE = ["mode", "k"]
# What tells one network of a line from another: the widths are fixed factors, the seed is the repetition.
NETWORK = ["width", "aux_width", "seed"]
_KNOWN_PROBE = re.compile(r"linear|linear-ovr|cnn-[1-9][0-9]*")


def select(
    rows: pd.DataFrame, probes: Sequence[str] | None = None, split: str = "test", refit: bool = True
) -> pd.DataFrame:
    """Return the accuracy rows of comparable probes, the same probes for every run.

    Args:
        rows: probe results as `analysis.tables.read` returns them.
        probes: names of the probes wanted; None takes those that every run has.
        split: train, validation or test.
        refit: take probes refitted on train + validation. A run without them (trained on everything, so that
            it has no validation fold) gives those it has.

    Raises:
        UserError: if a run lacks what was asked for, or the runs cannot be compared. UsageError: if the
            question itself is wrong.
    """
    _check_question(rows, probes, split, refit)
    chosen = rows[(rows["control"] == "none") & (rows["features"] == "native") & (rows["metric"] == "accuracy")]
    runs = list(rows["run"].unique())
    _same_data(rows, "dataset")
    chosen = _probes(chosen, runs, probes)
    chosen = _split(chosen, split)
    chosen = _refit(chosen, refit)
    chosen = _newest_protocol(chosen)
    chosen = _common_widths(chosen, runs)
    _same_images(chosen, split)
    _each_seed_once(chosen)
    return chosen


def _check_question(rows: pd.DataFrame, probes: Sequence[str] | None, split: str, refit: bool) -> None:
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if split == "validation" and refit:
        raise UsageError(
            "a probe refitted on train + validation has seen the validation images, so there is no accuracy "
            "to draw. Give --no-refit with --split validation."
        )
    for probe in probes or ():
        if not _KNOWN_PROBE.fullmatch(probe) and probe not in set(rows["probe"]):
            raise unknown("probe", probe, ("linear", "linear-ovr", "cnn-1", "cnn-2"))


def _probes(rows: pd.DataFrame, runs: list[str], probes: Sequence[str] | None) -> pd.DataFrame:
    """Keep the probes asked for, which every run must have, or else those that every run has."""
    had = {run: set(rows.loc[rows["run"] == run, "probe"]) for run in runs}
    wanted = set(probes) if probes is not None else set().union(*had.values()) or {"linear"}
    lacking = {probe: [run for run in runs if probe not in had[run]] for probe in sorted(wanted)}
    common = {probe for probe in wanted if not lacking[probe]}
    for probe, without in lacking.items():
        if without and (probes is not None or not common):
            found = ", ".join(sorted(had[without[0]])) or "none"
            raise UserError(
                f"{without[0]} has no rows of probe {probe} (found: {found}). "
                f"`probe-depth {without[0]} --probe {probe}` makes them."
            )
        if without:
            log.warning("probe %s is left out: %s has no rows of it (`probe-depth`).", probe, ", ".join(without))
    return rows[rows["probe"].isin(common)]


def _split(rows: pd.DataFrame, split: str) -> pd.DataFrame:
    for (run, probe), group in rows.groupby(["run", "probe"]):
        if split not in set(group["split"]):
            found = ", ".join(sorted(set(group["split"])))
            raise UserError(f"{run} has no {split} rows of probe {probe} (found: {found}). Give another --split.")
    return rows[rows["split"] == split]


def _refit(rows: pd.DataFrame, refit: bool) -> pd.DataFrame:
    kept = []
    for (run, probe), group in rows.groupby(["run", "probe"]):
        matching = group[group["refit"] == int(refit)]
        if matching.empty and not refit:
            raise UserError(f"{run} has only refitted rows of probe {probe} for this split. Leave out --no-refit.")
        if matching.empty:
            log.warning("%s has no refitted probe %s; the one fitted on its train fold is drawn.", run, probe)
        kept.append(group if matching.empty else matching)
    return pd.concat(kept)


def _newest_protocol(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep the newest protocol of each run and probe; a probe must then have one protocol in all runs."""
    newest = rows.groupby(["run", "probe"])["protocol_version"].transform("max")
    rows = rows[rows["protocol_version"] == newest]
    for probe, group in rows.groupby("probe"):
        if group["protocol_version"].nunique() > 1:
            raise UserError(
                f"probe {probe} was measured by different protocols: {_by_run(group, 'protocol_version')}. "
                f"Probe the older runs again with `probe-depth`."
            )
    return rows


def _common_widths(rows: pd.DataFrame, runs: list[str]) -> pd.DataFrame:
    """Keep the probe widths and poolings that every run has, so that each panel compares the same runs."""
    kept = []
    for probe, group in rows.groupby("probe"):
        panels = [panel for _, panel in group.groupby(PANEL)]
        common = [panel for panel in panels if panel["run"].nunique() == len(runs)]
        if not common:
            raise UserError(
                f"the runs have no width and pooling of probe {probe} in common: "
                f"{_by_run(group, 'probe_width')}. "
                f"Probe them alike with `probe-depth --probe {probe} --probe-width`."
            )
        if len(common) < len(panels):
            log.warning(
                "widths of probe %s that some run lacks are left out: %s.",
                probe,
                _by_run(group, "probe_width"),
            )
        kept += common
    return pd.concat(kept)


def _same_data(rows: pd.DataFrame, column: str) -> None:
    if rows[column].nunique() > 1:
        raise UserError(f"the runs are of different data sets: {_by_run(rows, column)}. Draw a figure for each.")


def _same_images(rows: pd.DataFrame, split: str) -> None:
    """Raise if the runs were not measured on as many images, though their data sets share a name."""
    for column, what in (("n_classes", "classes"), ("n_samples", f"{split} images")):
        if rows[column].nunique() > 1:
            raise UserError(
                f"the runs differ in their number of {what}, so their data are not the same: "
                f"{_by_run(rows, column)}. Draw a figure for each."
            )


def _each_seed_once(rows: pd.DataFrame) -> None:
    networks = rows[["run", *LINE, *NETWORK]].drop_duplicates()
    twice = networks[networks.duplicated([*LINE, *NETWORK], keep=False)]
    if not twice.empty:
        first, second = twice.groupby([*LINE, *NETWORK], dropna=False)["run"].agg(list).iloc[0][:2]
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


def _by_run(rows: pd.DataFrame, column: str) -> str:
    """Return "a, b (x.h5), c (y.h5)": what each run holds in `column`."""
    held = rows.groupby("run", sort=False)[column].agg(lambda values: ", ".join(map(str, sorted(set(values)))))
    return "; ".join(f"{value} ({run})" for run, value in held.items())
