"""Separability curves: accuracy against depth with its interval, averaged over widths and seeds.

The width M (with the auxiliary width) is a fixed factor, the seed the repetition. A point is the mean over
widths of the means over seeds within each width, (1/W) sum_M mean_M, whose variance is s^2 / W^2 sum_M 1/n_M
with s^2 pooled within widths; so the difference between widths never widens an interval, and seeds that agree by luck
do not narrow it below what the images alone give (`analysis.seeds`). Where a line averages
over k, another fixed factor, the cells are those of k and M, by the same rule. A line of one network, or of one
seed, has the interval over the images of its split. The two spreads answer different questions and are never mixed
in one interval.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.convergence import warnings
from analysis.factors import (
    CELL,
    apart_by_variant,
    check_lines,
    line_columns,
    line_name,
    network_columns,
    panel_columns,
    probes_with_lines,
)
from analysis.failures import ASKED, FAILED, LEFT_OUT, only_trained, told
from analysis.seeds import FLOOR, images_variance, pooled
from analysis.selection import SPLITS, of_classes, reads_pixels, select
from analysis.tables import LINE, NETWORK, PANEL
from layerwise.errors import UsageError, UserError
from probes.results.intervals import wilson_interval

log = logging.getLogger("layerwise.analysis")

OVER_SEEDS = f"seeds (t 95%, {FLOOR})"
VECTOR = "vector"  # what a probe reads where maps have one pixel

# Columns of a point that are missing where its networks differ in them, or have none.
_MAYBE = ("k", "width", "seed", "blocks", "batch_norm")
# Whole numbers that may be missing.
_INTEGERS = (*_MAYBE, "epochs")


def curves(
    rows: pd.DataFrame,
    probes: Sequence[str] | None = None,
    split: str | Sequence[str] = "test",
    refit: bool = True,
    *,
    by: str = "k",
    keep_failed: bool = False,
) -> pd.DataFrame:
    """Return accuracy against depth for each probe and each line of networks, with a 95% interval.

    Args:
        rows: probe results as `analysis.tables.read` returns them.
        probes, split, refit: which rows to take, see `analysis.selection.select`.
        by: the factor that lines stand for. "k": a line for each k of each mode; "mode"; "width": M; "pool": the
            pooling of the probe; "seed"; "split": the images scored, those of `split`, which may then be several, or
            (of "test") the test split and all sets of other images that the probes were evaluated on. Other variants of
            network (VGG-11, pruned) beside plain ones are other modes.
            What a line averages over are the other fixed factors, k and M, and seeds.
        keep_failed: average networks that did not train with the others (`analysis.failures`).

    Returns:
        A row for each point, ordered as drawn. by: as given. Panel: probe, probe_width, pooling. Line: mode, and k,
        width or seed where the line has one, else missing. Then depth, accuracy, ci_low, ci_high (in [0, 1]);
        interval: over what, empty where none can be given; n_runs, n_seeds, ks, widths (k, M of the runs averaged),
        variants (what they are, empty for plain networks), blocks (J) and batch_norm (1, 0), missing where not one;
        chance (one level for all runs), dataset, split, n_samples (images of the split), refit, selection,
        protocol_version (of the rows used); reads: what the probe reads of x_j, "2x2", "vector" where maps have one
        pixel, empty for whole maps; module: the layer's name, empty where not one; certificate: the largest of the fits
        averaged, in nats a sample, missing for other probes; n_asked: n_runs, and the networks of this line that did
        not train and are left out; left_out: these networks of all lines, each with how it failed; did_not_train: those
        averaged here, which are alone in their line or kept; of CNN probes: epochs, accuracy_half (after half of them;
        missing where it was not measured), not_trained (files whose probe is significantly below the linear one);
        pixels, pixels_low, pixels_high: accuracy of the same linear probe on the raw pixels, where the runs have it.

    Raises:
        UserError: if the runs lack what was asked for or cannot be compared. UsageError: for an unknown factor.
    """
    panel, line_of = panel_columns(by), line_columns(by)
    every = rows = only_trained(apart_by_variant(rows), network_columns(by), keep_failed)
    wanted = probes_with_lines(rows, probes, by)
    splits = _splits(rows, split, by)
    if wanted is None and len(splits) > 1:
        has_all = rows.groupby("probe")["split"].agg(lambda own: set(splits) <= set(own))
        rows = rows[rows["probe"].isin(has_all.index[has_all])] if has_all.any() else rows
    rows = pd.concat([select(rows, wanted, one, refit, line_of) for one in splits])
    check_lines(rows, by)
    networks = average_probe_seeds(rows)
    # One level for the figure: where classes tie in a training fold, runs may differ in it by an image.
    networks["chance"] = float(np.mean(networks["chance"].unique()))
    points = []
    for _, line in networks.groupby([*panel, *line_of], dropna=False):
        points += [_point(group, by) for _, group in _common_depths(line, by).groupby("depth")]
    # Of several splits there would be as many references, which no sign tells apart.
    references = _fitted_alike(every, rows) if by != "split" else every[:0]
    table = with_pixels(pd.DataFrame(points).astype(dict.fromkeys(_INTEGERS, "Int64")), references)
    for warning in warnings(table):
        log.warning("%s", warning)
    return table.sort_values([*panel, *line_of, "depth"], key=_drawing_order, kind="stable").reset_index(drop=True)


def _splits(rows: pd.DataFrame, split: str | Sequence[str], by: str) -> list[str]:
    """Return the splits of the images drawn; raise UsageError where several are no lines."""
    given = [split] if isinstance(split, str) else list(split)
    if by != "split":
        if len(given) != 1:
            raise UsageError(f"found {len(given)} splits, but lines are of {by}. Give one --split, or --by split.")
        return given
    if given == ["test"]:
        given += sorted(set(rows["split"]) - set(SPLITS), key=_natural)
    if len(given) < 2:
        raise UserError(
            "the probes were evaluated on no other images, so there is one split to draw. `probe-depth RUN.H5 --probe "
            "linear --evaluate FOLDER` makes rows of others."
        )
    return list(dict.fromkeys(given))


def pooled_t(
    groups: Sequence[Sequence[float]], images: Sequence[Sequence[float]], lowest: float = 0.0
) -> tuple[float, float]:
    """Return the 95% interval of the mean of group means, from the variance pooled within groups.

    Args:
        groups: accuracies (one for each seed) of each width; at least one group has two.
        images: the variance that its images give each of them (`analysis.seeds.images_variance`).
        lowest: the least that there can be, 0 of accuracies and -1 of their differences.

    Returns:
        Lower and upper end, cut to [lowest, 1] (the numbers lie there, so coverage is not lost).
    """
    found = pooled(groups, images)
    half = found.half_width()
    return max(lowest, found.mean - half), min(1.0, found.mean + half)


def average_probe_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each network, probe and depth: the mean over the seeds of the probe."""
    key = ["run", "dataset", "split", *PANEL, *LINE, *NETWORK, "depth"]
    about = {ASKED: rows.get(ASKED, np.nan), FAILED: rows.get(FAILED, ""), LEFT_OUT: rows.get(LEFT_OUT, "")}
    rows = rows.assign(reads=_reads(rows), **about)
    return rows.groupby(key, dropna=False, as_index=False).agg(
        value=("value", "mean"),
        probe_seeds=("value", "size"),
        ci_low=("ci_low", "first"),
        ci_high=("ci_high", "first"),
        n_samples=("n_samples", "first"),
        chance=("chance", "first"),
        blocks=("blocks", "first"),
        batch_norm=("batch_norm", "first"),
        variant=("variant", "first"),
        initialisation=("initialisation", "first"),
        refit=("refit", "first"),
        selection=("selection", "first"),
        protocol_version=("protocol_version", "first"),
        epochs=("iterations", "first"),
        accuracy_half=("accuracy_half", _mean_of_all),
        not_trained=("not_trained", "any"),
        reads=("reads", "first"),
        module=("module", "first"),
        certificate=("certificate", "max"),
        **{column: (column, "first") for column in about},
    )


def _reads(rows: pd.DataFrame) -> pd.Series:
    """Return what a probe of A x_j reads: "2x2", "1x2" of maps one pixel high, "vector" of maps of one pixel.

    A side of one pixel is not averaged to two. Empty for probes of whole maps.
    """
    sides = [rows[column].clip(upper=rows["pooling"]).astype("int64") for column in ("map_height", "map_width")]
    pooled = sides[0].astype(str) + "x" + sides[1].astype(str)
    one_pixel = (rows["map_height"] == 1) & (rows["map_width"] == 1)
    return pooled.mask(one_pixel, VECTOR).where(rows["pooling"] > 0, "")


def _mean_of_all(values: pd.Series) -> float:
    """Return the mean, missing where one of them is."""
    return float(values.mean(skipna=False))


def _common_depths(line: pd.DataFrame, by: str) -> pd.DataFrame:
    """Keep the depths that all networks of a line have: a mean over others at each would bend the curve."""
    counts = line["run"].groupby(line["depth"]).transform("size")
    common = counts == line["run"].nunique()
    if not common.any():
        runs = ", ".join(sorted(set(line["run"])))
        raise UserError(
            f"{runs} have no depth of probe {line['probe'].iloc[0]} in common. Probe them at the same depths."
        )
    if not common.all():
        left_out = ", ".join(map(str, sorted(set(line.loc[~common, "depth"]))))
        log.warning(
            "probe %s, %s: depths %s are left out, for not every run has them; `probe-depth` adds them.",
            line["probe"].iloc[0],
            line_name(line[line_columns(by)].iloc[0], by),
            left_out,
        )
    return line[common]


def _point(networks: pd.DataFrame, by: str) -> dict[str, object]:
    """Return the point of one line at one depth from the networks averaged in it."""
    cells = _cells(networks)
    values, halves = (networks[column].to_numpy(float) for column in ("value", "accuracy_half"))
    groups = [values[cell].tolist() for cell in cells]
    low, high, interval = _interval(networks, groups)
    if by == "seed":
        low, high, interval = _interval_over_images(networks)
    if by == "split":  # so that lines of which the same is true share a sentence
        interval = interval.replace(f"{networks['split'].iloc[0]} images", "images of each set", 1)
    first = networks.iloc[0]
    return {
        "by": by,
        **{column: first[column] for column in (*PANEL, "mode")},
        **{column: _the_one(networks[column]) for column in _MAYBE},
        "depth": first["depth"],
        "accuracy": float(np.mean([np.mean(group) for group in groups])),
        "ci_low": low,
        "ci_high": high,
        "interval": interval,
        "n_runs": len(networks),
        "n_seeds": networks["seed"].nunique(dropna=False),
        "ks": _listed(networks["k"].dropna()),
        "widths": _listed(networks["width"].dropna()),
        "variants": _listed(networks["variant"]),
        **{column: first[column] for column in ("chance", "dataset", "split", "n_samples")},
        "epochs": first["epochs"] if first["probe"].startswith("cnn-") else pd.NA,
        "accuracy_half": float(np.mean([halves[cell].mean() for cell in cells])),
        "reads": _listed(networks["reads"]),
        "module": networks["module"].iloc[0] if networks["module"].nunique() == 1 else "",
        "certificate": float(networks["certificate"].max()),
        "n_asked": len(networks) if by == "seed" else asked_in(networks),
        **told(networks),
        "not_trained": _listed(networks.loc[networks["not_trained"], "run"].map(lambda run: Path(run).name)),
        **{column: _listed(networks[column]) for column in ("refit", "selection", "protocol_version")},
    }


def asked_in(networks: pd.DataFrame) -> int:
    """Return how many networks there are with those that did not train and are left out (`failures.with_asked`)."""
    asked = networks[ASKED].to_numpy(float, na_value=math.nan)
    return int(sum(cell.sum() if math.isnan(asked[cell][0]) else asked[cell][0] for cell in _cells(networks)))


def _cells(networks: pd.DataFrame) -> list[np.ndarray]:
    """Return which networks are of each cell, as a mask; of few networks in a tenth of the time of a groupby."""
    cells, code = np.unique(networks[CELL].to_numpy(float, na_value=math.inf), axis=0, return_inverse=True)
    return [code.reshape(-1) == number for number in range(len(cells))]


def _the_one(values: pd.Series) -> object:
    """Return the value that all have, or a missing one."""
    return values.iloc[0] if values.nunique(dropna=False) == 1 else pd.NA


def _interval(networks: pd.DataFrame, groups: list[list[float]]) -> tuple[float, float, str]:
    """Return the interval of a point and over what it is; empty for several cells of one seed each."""
    if max(map(len, groups)) > 1:
        if networks["depth"].iloc[0] == 0 and networks["value"].nunique() == 1:
            return _interval_over_images(networks[:1])  # one input, read alike in all networks: no number for each seed
        images = [list(images_variance(group, networks["n_samples"].iloc[0])) for group in groups]
        return *pooled_t(groups, images), OVER_SEEDS
    if len(networks) > 1:
        return math.nan, math.nan, ""
    return _interval_over_images(networks)


def _interval_over_images(networks: pd.DataFrame) -> tuple[float, float, str]:
    """Return the interval of the mean of these very networks, with the images alone drawn at random."""
    only, n = networks.iloc[0], len(networks)
    if networks["ci_low"].isna().any():
        return math.nan, math.nan, ""
    images = f"{only['split']} images (Wilson 95%"
    if n == 1 and only["probe_seeds"] == 1:
        return only["ci_low"], only["ci_high"], images + ")"
    # An image counts with the share of the networks, and of the seeds of the probe, that are right about it. A share in
    # [0, 1] of mean p has variance p (1 - p) at most, so the interval of a proportion p is, if anything, too wide.
    low, high = wilson_interval(float(networks["value"].mean()), only["n_samples"])
    means = [f"{n} networks"] if n > 1 else []
    means += [f"{only['probe_seeds']} probe seeds"] if only["probe_seeds"] > 1 else []
    return low, high, f"{images} at the mean of {' and '.join(means)})"


def _listed(values: pd.Series) -> str:
    return ", ".join(map(str, sorted(set(values))))


def _drawing_order(column: pd.Series) -> pd.Series:
    """Order the linear probes before the others, and greedy training, the subject, before the other modes."""
    if column.name == "probe":
        return column.map(lambda probe: (not probe.startswith("linear"), probe))
    if column.name == "mode":
        order = ("greedy", "parallel", "end-to-end", "extracted", "untrained")
        return column.map(lambda mode: (order.index(mode if mode in order else "extracted"), _natural(mode)))
    if column.name == "split":
        return column.map(lambda split: (split not in SPLITS, _natural(split)))
    return column


def _natural(name: str) -> str:
    """Return a name with its numbers padded, by which "net 9" comes before "net 10"."""
    return re.sub(r"\d+", lambda number: number[0].zfill(9), name)


PIXELS = ["pixels", "pixels_low", "pixels_high"]


def with_pixels(points: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the points of a figure with the accuracy of the raw pixels, and its interval over images, beside each.

    The columns are `PIXELS`, in [0, 1]; missing where no run has such a probe. Runs on the same data agree in it, but
    for the images that each fold holds; of several runs it is the mean. Refitted probes and those of runs without a
    fold stand apart: their penalties are not chosen alike.

    Args:
        points: as `analysis.separability.curves` makes them, with probe, split, refit and n_samples.
        rows: all rows of the runs drawn, fitted as those drawn are.
    """
    own = of_classes(rows[reads_pixels(rows) & (rows["depth"] == 0)])
    asked = list(points[["probe", "split", "refit", "n_samples"]].itertuples(index=False, name=None))
    found = {point: _reference(own, *point) for point in set(asked)}
    return points.assign(**dict(zip(PIXELS, np.array([found[point] for point in asked]).reshape(-1, 3).T, strict=True)))


def _fitted_alike(rows: pd.DataFrame, drawn: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each run and probe that were refitted, or not, as those of it that are drawn."""
    names = ["run", "probe", "refit"]
    return rows.merge(drawn[names].drop_duplicates(), on=names)


def _reference(rows: pd.DataFrame, probe: str, split: str, refit: str, n: int) -> tuple[float, float, float]:
    same = rows[(rows["probe"] == probe) & (rows["split"] == split) & rows["refit"].astype(str).isin(refit.split(", "))]
    if same.empty:
        return np.nan, np.nan, np.nan
    accuracy = float(same["value"].mean())
    return accuracy, *wilson_interval(accuracy, n)
