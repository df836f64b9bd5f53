"""The accuracy of each depth by every probe, with the published number of the same k beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.failures import only_trained
from analysis.published import TRAINED_ON, Published, greedy
from analysis.selection import of_classes, of_split
from analysis.separability import curves
from layerwise.errors import UserError
from probes.names import TRAINED
from probes.results.metrics import TOP5

_KIND = ["mode", "k", "width", "aux_width", "variant"]


def accuracies(
    rows: pd.DataFrame,
    probes: Sequence[str] | None = None,
    split: str = "test",
    keep_failed: bool = False,
    *,
    top5: bool = False,
) -> pd.DataFrame:
    """Return the accuracy of each kind of network at each depth, by each probe that all of its runs have.

    Args:
        rows: probe results as `analysis.tables.read` returns them. Runs alike in mode, k, widths and variant
            are averaged.
        probes: names of probes, of all kinds; None takes those that all runs of a kind have.
        split: train, validation or test. keep_failed: average networks that did not train with the others.
        top5: whether an image counts whose class is among the five likeliest; published numbers are then those of
            ImageNet.

    Returns:
        A row for each kind, probe (the auxiliary classifiers and ensembles that a run trained itself included) and
        depth: mode, k, width, aux_width, variant, blocks, depth, probe, probe_width, pooling, accuracy, ci_low,
        ci_high, interval (over seeds, for one seed over images, never both), n_runs, n_seeds, n_samples, dataset,
        split; and published (in [0, 1]; at the last depth of a greedy network whose data set is the paper's or a copy
        of it, of the auxiliary and the ensemble), source, and differs: in what the published network is another.
        Of top5 also `measure`, which says so.

    Raises:
        UserError: if the runs of one kind have no probe in common, or cannot be averaged; if no row has a top-5
            accuracy.
    """
    found = []
    rows = only_trained(rows, _KIND, keep_failed)
    rows = _top5_alone(rows) if top5 else rows
    for key, own in rows.groupby(_KIND, dropna=False, sort=True):
        kind = dict(zip(_KIND, key, strict=True))
        common = (
            _common(of_split(own, split)) if probes is None else [probes] if isinstance(probes, str) else list(probes)
        )
        if not common:
            names = ", ".join(own["run"].unique())
            raise UserError(f"{names} have no probe in common. Probe them alike with `probe-depth`.")
        points = curves(own, common, split)
        found.append(_beside(points.assign(**{name: kind[name] for name in _KIND[2:]}), own, kind, top5))
    table = pd.concat(found, ignore_index=True)
    return table.assign(measure=TOP5) if top5 else table


def _top5_alone(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of top-5 accuracy in the place of those of accuracy."""
    found = rows[rows["metric"] == TOP5].assign(metric="accuracy")
    if found.empty:
        raise UserError(
            "found no top-5 accuracy: rows have it where there are at least ten classes, but those of earlier versions "
            "do not. Fit these again by `probe-depth --force`."
        )
    return found


def _common(rows: pd.DataFrame) -> list[str]:
    """Return the probes that every run has rows of: fitted ones first, those trained with the network last."""
    had = [set(run["probe"]) for _, run in of_classes(rows).groupby("run")]
    common = set.intersection(*had) if had else set()
    return sorted(common - set(TRAINED)) + [probe for probe in TRAINED if probe in common]


def _beside(points: pd.DataFrame, rows: pd.DataFrame, kind: dict[str, Any], top5: bool) -> pd.DataFrame:
    points = points.drop(
        columns=["by", "ks", "widths", "variants", "seed", "pixels", "pixels_low", "pixels_high", "chance"]
    )
    number = greedy(points["dataset"].iloc[0], kind["k"]) if kind["mode"] == "greedy" else None
    if number is None:
        return points.assign(published=float("nan"), source="", differs="")
    last = points["depth"] == points.loc[points["probe"] == "auxiliary", "depth"].max()
    values: dict[str, float | None] = {"auxiliary": number.top1, "ensemble": number.ensemble}
    if top5:
        values = {"auxiliary": number.top5, "ensemble": number.top5_ensemble}
    published = points["probe"].map(values).where(last).astype(float) / 100
    shown = published.notna()
    words = _differs(rows, number)
    return points.assign(
        published=published,
        source=shown.map({True: number.source, False: ""}),
        differs=shown.map({True: words, False: ""}),
    )


def _differs(rows: pd.DataFrame, number: Published) -> str:
    """Return in what the paper's network is another: "data cifar10-jpeg; M = 32, not 128"."""
    own = rows[rows["probe"] == "auxiliary"].iloc[0] if (rows["probe"] == "auxiliary").any() else rows.iloc[0]
    words = [] if own["dataset"] == number.dataset else [f"data {own['dataset']}"]
    if own["n_train"] != TRAINED_ON[number.dataset]:
        words.append(f"trained on {own['n_train']:,} of {TRAINED_ON[number.dataset]:,} images")
    pairs = (
        ("J", own["blocks"], number.blocks),
        ("M", own["width"], number.width),
        ("M~", own["aux_width"], number.aux_width),
    )
    words += [f"{name} = {mine}, not {theirs}" for name, mine, theirs in pairs if theirs and mine != theirs]
    return "; ".join([*words, *([own["variant"]] if own["variant"] else [])])
