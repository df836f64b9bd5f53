"""The selection of rows for one figure: the same probes, fitted alike, for every run."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pandas as pd

from analysis.comparability import (
    by_run,
    each_seed_once,
    same_choice,
    same_data,
    same_depths,
    same_experiment,
    same_fit_in_lines,
    same_images,
    same_training_images,
)
from analysis.convergence import with_convergence
from analysis.tables import LINE, PANEL
from layerwise.errors import UsageError, UserError, unknown
from probes.names import LINEAR, TRAINED, hidden_convolutions
from probes.tasks.task import CLASS, NO_CONTROL

log = logging.getLogger("layerwise.analysis")

SPLITS = ("train", "validation", "test")


def select(
    rows: pd.DataFrame,
    probes: Sequence[str] | None = None,
    split: str = "test",
    refit: bool = True,
    line: Sequence[str] = LINE,
    features: str = "native",
) -> pd.DataFrame:
    """Return the accuracy rows of comparable probes, the same probes for every run, and how CNN probes converged.

    Args:
        rows: probe results as `analysis.tables.read` returns them.
        probes: names of the probes wanted; None takes those that every run has, but for what was trained with the
            network itself (its auxiliary classifiers and their ensembles), and for classifiers of a user's own.
        split: train, validation or test, or the name of a set of other images that the probes were evaluated on.
        refit: take probes refitted on train + validation. A run without them (trained on everything, so that
            it has no validation fold) gives those it has. Auxiliary classifiers and ensembles are never refitted.
        features: of linear probes, as probe-depth's --features.
        line: the columns that tell lines apart; runs alike in them are averaged, and so must be of one experiment.

    Returns rows with the columns of `analysis.convergence.with_convergence`.

    Raises:
        UserError: if a run lacks what was asked for, or the runs cannot be compared. UsageError: if the
            question itself is wrong.
    """
    probes = [probes] if isinstance(probes, str) else probes
    own = set(rows.loc[rows["estimator"].notna(), "probe"])
    require_split(rows, split)
    _check_question([name for name in probes or () if name not in own], split, refit)
    chosen = of_classes(rows, features)
    chosen = chosen[~reads_pixels(chosen)]
    runs = list(rows["run"].unique())
    same_data(rows)
    same_experiment(rows, line)
    chosen = _probes(chosen if probes else of_split(chosen[~chosen["probe"].isin(own)], split), runs, probes)
    _same_estimators(chosen)
    chosen = _split(chosen, split)
    chosen = _refit(chosen, refit)
    chosen = _newest_protocol(chosen)
    chosen = _common_widths(chosen, runs)
    same_images(chosen, split)
    same_fit_in_lines(chosen, line)
    same_training_images(chosen)
    same_choice(chosen)
    same_depths(chosen)
    each_seed_once(chosen)
    return with_convergence(chosen, rows)


def of_classes(rows: pd.DataFrame, features: str = "native") -> pd.DataFrame:
    """Return the accuracies on the classes themselves: no other metric, target or control, and features of one kind."""
    own = rows[(rows["metric"] == "accuracy") & (rows["target"] == CLASS)]
    return own[(own["control"] == NO_CONTROL) & (own["features"] == features)]


def require_split(rows: pd.DataFrame, split: str) -> None:
    """Raise UsageError for a split that is none of a run's, nor a set of images that any of the rows is of."""
    known = [*SPLITS, *sorted(set(rows["split"]) - set(SPLITS))]
    if split not in known:
        raise unknown("split", split, known)


def of_split(rows: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of a set of other images, on which some probes may not be evaluated; of a run's own split all."""
    return rows if split in SPLITS else rows[rows["split"] == split]


def reads_pixels(rows: pd.DataFrame) -> pd.Series:
    """Return which rows are of the raw pixels: a linear probe that reads whole maps."""
    return rows["probe"].isin(LINEAR) & (rows["pooling"] == 0)


def _check_question(probes: Sequence[str], split: str, refit: bool) -> None:
    if split == "validation" and refit:
        raise UsageError(
            "a probe refitted on train + validation has seen the validation images, so there is no accuracy "
            "to draw. Give --no-refit with --split validation."
        )
    for probe in probes:
        hidden_convolutions(probe)  # raises for a name that no probe has


def _probes(rows: pd.DataFrame, runs: list[str], probes: Sequence[str] | None) -> pd.DataFrame:
    """Keep the probes asked for, which every run must have, or else the fitted ones that every run has."""
    had = {run: set(rows.loc[rows["run"] == run, "probe"]) for run in runs}
    fitted = set().union(*had.values()) - set(TRAINED)
    wanted = set(probes) if probes is not None else fitted or {"linear"}
    lacking = {probe: [run for run in runs if probe not in had[run]] for probe in sorted(wanted)}
    common = {probe for probe in wanted if not lacking[probe]}
    for probe, without in lacking.items():
        if without and (probes is not None or not common):
            found = ", ".join(sorted(had[without[0]])) or "none"
            whether = ", if its network was trained with auxiliary classifiers" if probe in TRAINED else ""
            raise UserError(
                f"{without[0]} has no rows of probe {probe} (found: {found}). "
                f"`probe-depth {without[0]} --probe {probe}` makes them{whether}."
            )
        if without:
            has = "has" if len(without) == 1 else "have"
            log.warning("probe %s is left out: %s %s no rows of it (`probe-depth`).", probe, ", ".join(without), has)
    return rows[rows["probe"].isin(common)]


def _same_estimators(rows: pd.DataFrame) -> None:
    """Raise UserError where a name stands for one classifier in one run, and for another in the next."""
    asked = rows["estimator"].fillna("").str.replace(r"^.*; of (?=\d+ \([0-9a-f]{6}\)$)", "one of ", regex=True)
    for probe, group in rows.assign(asked=asked).groupby("probe"):
        if group["asked"].nunique() > 1:
            raise UserError(
                f"probe {probe} is another classifier from run to run: {by_run(group, 'asked')}. Give each a name of "
                "its own, and fit them to every run, or name the probes to take (--probe)."
            )


def _split(rows: pd.DataFrame, split: str) -> pd.DataFrame:
    for (run, probe), group in rows.groupby(["run", "probe"]):
        if split not in set(group["split"]):
            found = ", ".join(sorted(set(group["split"])))
            way = "" if split in SPLITS else f", or evaluate it: `probe-depth {run} --probe {probe} --evaluate FOLDER`"
            raise UserError(f"{run} has no {split} rows of probe {probe} (found: {found}). Give another --split{way}.")
    return rows[rows["split"] == split]


def _refit(rows: pd.DataFrame, refit: bool) -> pd.DataFrame:
    kept = []
    for (run, probe), group in rows.groupby(["run", "probe"]):
        matching = group[group["refit"] == int(refit and probe not in TRAINED)]
        if matching.empty and not refit:
            raise UserError(f"{run} has only refitted rows of probe {probe} for this split. Leave out --no-refit.")
        if matching.empty and (rows.loc[rows["probe"] == probe, "refit"] == 1).any():
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
                f"probe {probe} was measured by different protocols: {by_run(group, 'protocol_version')}. "
                f"Probe the older runs again with `probe-depth`."
            )
    return rows


def _common_widths(rows: pd.DataFrame, runs: list[str]) -> pd.DataFrame:
    """Keep the probe widths and poolings that every run has, so that each panel compares the same runs."""
    kept = []
    for probe, group in rows.groupby("probe"):
        panels = [panel for _, panel in group.groupby(PANEL)]
        common = [panel for panel in panels if panel["run"].nunique() == len(runs)]
        column = "probe_width" if group["probe_width"].any() else "pooling"
        what, flag = ("width", "--probe-width") if column == "probe_width" else ("pooling", "--pool")
        if not common:
            raise UserError(
                f"the runs have no {what} of probe {probe} in common: {by_run(group, column)}. "
                f"Probe them alike with `probe-depth --probe {probe} {flag}`."
            )
        if len(common) < len(panels):
            log.warning(
                "%ss of probe %s that some run lacks are left out: %s.",
                what,
                probe,
                by_run(group, column),
            )
        kept += common
    return pd.concat(kept)
