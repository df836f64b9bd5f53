"""Attribution: the gain in accuracy of each depth over the input, split into five parts.

With a_j the accuracy of a linear probe at depth j and a_0 that on the pooled input,

    pooling    a_j(linear, projected to the number of features of the pooled input) - a_0
    width      a_j(linear) - a_j(linear, projected)
    relu       a_j(untrained) - a_j(linear)
    training   a_j(greedy) - a_j(untrained)
    left       a_j(end to end) - a_j(greedy)

so that the first four sum to the gain of the greedy network over the input, and all five to that of the network trained
end to end. The untrained network is the greedy one before its training: the same seed, M, initialisation and, where its
k is another, the same blocks, which do not depend on k but for BatchNorm. The linear network is the untrained one
without relu: as many random features, each a linear function of the pixels, so that width is not credited with what
relu does, nor relu with what more numbers do. All parts are differences within a seed, whose interval is over seeds;
with one seed it is over images, and says so.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.failures import only_trained, told
from analysis.outcomes import mean_difference, outcomes
from analysis.seeds import FLOOR, images_variance
from analysis.selection import of_classes, reads_pixels, select
from analysis.separability import asked_in, average_probe_seeds, pooled_t
from analysis.tables import LINE, NETWORK, UNTRAINED, is_linear
from layerwise.errors import UserError, unknown
from probes.names import LINEAR
from probes.results.intervals import mean_interval

log = logging.getLogger("layerwise.analysis")

# Each part and the two accuracies of which it is the difference, second - first.
PARTS: dict[str, tuple[str, str]] = {
    "pooling": ("input", "projected"),
    "width": ("projected", "linear"),
    "relu": ("linear", "untrained"),
    "training": ("untrained", "greedy"),
    "left": ("greedy", "end-to-end"),
}
OVER_SEEDS = f"seeds (paired t 95%, {FLOOR})"
OVER_IMAGES = "{split} images (paired bootstrap 95%)"
_GREEDY = ["k", *NETWORK]
_START = ["batch_norm", "initialisation", "width", "seed"]


@dataclass(frozen=True)
class _Kind:
    """The networks of one kind: their rows, one for each network and depth, and what names them beside a greedy one."""

    rows: pd.DataFrame
    networks: pd.DataFrame
    key: list[str]


def attribution(
    rows: pd.DataFrame, probe: str = "linear", split: str = "test", pool: int = 2, keep_failed: bool = False
) -> pd.DataFrame:
    """Return the parts of the gain of each depth over the pooled input, for each k of the greedy networks.

    Args:
        rows: probe results as `analysis.tables.read` returns them, of greedy and untrained networks, and of networks
            trained end to end where there are.
        probe: linear or linear-ovr. split: train, validation or test. pool: the side of the average A.
        keep_failed: average networks that did not train with the others.

    Returns:
        A row for each k, depth j >= 1 and part: k, depth, part (a key of `PARTS`), value (in [-1, 1]), ci_low, ci_high,
        interval (over what; empty where none can be given), n_networks, n_asked (with those that did not train),
        n_seeds, widths, probe, pooling, dataset, split, n_samples, certificate (the largest of all fits), pixels
        (accuracy on the raw pixels minus a_0; missing where no run has it), left_out, did_not_train (files). A part
        that no network has is left out, with a warning of what would give it; all parts of a k are of the same
        networks, so that they add up.

    Raises:
        UserError: if there are no greedy networks, or no untrained ones with the seeds and widths of theirs.
    """
    if probe not in LINEAR:
        raise unknown("linear probe", probe, LINEAR)
    rows = only_trained(rows, LINE, keep_failed)
    pixels = _pixels(rows, probe, split)
    kinds = _kinds(rows[(rows["pooling"] == pool) | (rows["probe"] != probe)], probe, split)
    merged = _beside(kinds)
    points = []
    certificate = max(float(kind.networks["certificate"].max()) for kind in kinds.values())
    for _, networks in merged.groupby(["k", "depth"]):
        reference = {"pixels": pixels - float(networks["input"].mean()), "certificate": certificate} | told(rows)
        parts = [part for part in PARTS if set(PARTS[part]) <= set(kinds)]
        points += [_point(networks, part, kinds, split) | reference for part in parts]
    return pd.DataFrame(points).sort_values(["k", "depth"], kind="stable").reset_index(drop=True)


def _kinds(rows: pd.DataFrame, probe: str, split: str) -> dict[str, _Kind]:
    """Return the networks of each kind that the runs have, by the names in `PARTS`."""
    native = select(rows, [probe], split)
    of = {mode: native[native["mode"] == mode] for mode in ("greedy", "end-to-end")}
    untrained = native["mode"].str.startswith(UNTRAINED)
    of |= {"untrained": native[untrained & ~is_linear(native)], "linear": native[untrained & is_linear(native)]}
    for mode in ("greedy", "untrained"):
        if of[mode].empty:
            raise UserError(
                f"no run is {mode}, and the gain of greedy networks over untrained ones cannot be split without. "
                f"`layerwise-train --mode {mode} --out {mode}.h5` makes one, `probe-depth` its results."
            )
    kinds = {
        "input": _kind(of["greedy"][of["greedy"]["depth"] == 0], _GREEDY),
        "greedy": _kind(of["greedy"], [*_GREEDY, "depth"]),
        "untrained": _kind(of["untrained"], [*_START, "depth"]),
    }
    if not of["end-to-end"].empty:
        kinds["end-to-end"] = _kind(of["end-to-end"], [*_GREEDY, "depth"])
    else:
        log.warning(
            "no run is end-to-end, so what greedy training leaves is not shown: `layerwise-train --mode end-to-end` "
            "makes one, `separability-study --with end-to-end` those of a study."
        )
    linear = rows[is_linear(rows)]
    projected = linear[(linear["features"] == "input") & (linear["probe"] == probe)]
    lacking = sorted(set(linear["run"]) - set(projected["run"]))
    if of["linear"].empty:
        log.warning(
            "what architecture gives is not split: no run is untrained and without relu "
            "(`layerwise-train --mode untrained --set network.activation=none`)."
        )
    elif lacking:
        log.warning(
            "pooling and width are not told apart: %s has no probe of as many features as the input "
            "(`probe-depth %s --probe %s --features input`).",
            lacking[0],
            lacking[0],
            probe,
        )
    else:
        kinds["projected"] = _kind(select(projected, [probe], split, features="input"), [*_START, "depth"])
    if not of["linear"].empty:
        kinds["linear"] = _kind(of["linear"], [*_START, "depth"])
    return kinds


def _pixels(rows: pd.DataFrame, probe: str, split: str) -> float:
    """Return the accuracy of the probe on the raw pixels, the mean over runs; NaN where none has it."""
    own = of_classes(rows[reads_pixels(rows) & (rows["depth"] == 0)])
    own = own[(own["probe"] == probe) & (own["split"] == split)]
    return float(own.loc[own["refit"] == own["refit"].max(), "value"].mean())


def _kind(rows: pd.DataFrame, key: list[str]) -> _Kind:
    networks = average_probe_seeds(rows)
    if networks["batch_norm"].isna().any():
        raise UserError(
            f"the results of {networks.loc[networks['batch_norm'].isna(), 'run'].iloc[0]}, of an older version, do not "
            "say whether the network has BatchNorm. Probe it again with `probe-depth --force`."
        )
    # Several untrained networks of the same blocks differ in what no block has, k and the auxiliary width.
    return _Kind(rows, networks.sort_values("k").drop_duplicates(key), key)


def _beside(kinds: dict[str, _Kind]) -> pd.DataFrame:
    """Return a row for each greedy network and depth: accuracy and run of each kind, under its name."""
    merged = kinds["greedy"].networks[lambda networks: networks["depth"] > 0]
    merged = merged.rename(columns={"value": "greedy"}).assign(**{"run of greedy": merged["run"]})
    for name, kind in kinds.items():
        if name != "greedy":
            own = kind.networks[[*kind.key, "value", "run"]].rename(columns={"value": name, "run": f"run of {name}"})
            merged = merged.merge(own, on=kind.key, how="left")
    complete = merged[list(kinds)].notna().all(axis="columns")
    for run in merged.loc[~complete, "run"].drop_duplicates():
        row = merged[(merged["run"] == run) & ~complete].iloc[0]
        lacking = " or ".join(name for name in kinds if pd.isna(row[name]))
        log.warning(
            "%s is left out of the attribution: no %s network of its k, widths, seed and initialisation has depth %s.",
            run,
            lacking,
            row["depth"],
        )
    merged = merged[merged.groupby("run")["k"].transform("size") == complete.groupby(merged["run"]).transform("sum")]
    if merged.empty:
        raise UserError(
            "no greedy network has an untrained one of its width, seed and initialisation beside it. Train one."
        )
    return merged


def _point(networks: pd.DataFrame, part: str, kinds: dict[str, _Kind], split: str) -> dict[str, object]:
    """Return one part at one depth of one k."""
    before, after = PARTS[part]
    differences = (networks[after] - networks[before]).rename("value")
    groups = _cells(differences, networks)
    low, high, interval = _interval(groups, networks, (before, after), kinds, split)
    first = networks.iloc[0]
    return {
        **first[["k", "depth"]].to_dict(),
        "part": part,
        "value": sum(sum(group) / len(group) for group in groups) / len(groups),
        **{"ci_low": low, "ci_high": high, "interval": interval},
        **{"n_networks": len(networks), "n_seeds": networks["seed"].nunique(), "n_asked": asked_in(networks)},
        "widths": ", ".join(map(str, sorted(set(networks["width"])))),
        **first[["probe", "pooling", "dataset", "split", "n_samples"]].to_dict(),
    }


def _cells(values: pd.Series, networks: pd.DataFrame) -> list[list[float]]:
    """Return the numbers of networks by cell, a setting of the widths."""
    return [list(cell) for _, cell in values.groupby([networks[name] for name in NETWORK[:2]], dropna=False)]


def _interval(
    groups: Sequence[Sequence[float]],
    networks: pd.DataFrame,
    ends: tuple[str, str],
    kinds: dict[str, _Kind],
    split: str,
) -> tuple[float, float, str]:
    """Return the interval over seeds where a width has two of them, else over images, where their outcomes are kept."""
    if max(map(len, groups)) > 1:
        # The pooled input is the same for all seeds, so that the images give it no variance between them.
        shares = [images_variance(networks[end], networks["n_samples"].iloc[0]) for end in ends if end != "input"]
        images = _cells(pd.Series(sum(shares), networks.index), networks)
        return *pooled_t(groups, images, lowest=-1.0), OVER_SEEDS
    if split != "test":
        return float("nan"), float("nan"), ""
    pairs = [tuple(_outcomes(network, end, kinds) for end in ends) for _, network in networks.iterrows()]
    differences = mean_difference([(first, second) for first, second in pairs])
    if differences is None:
        return float("nan"), float("nan"), ""
    return *mean_interval(differences.to_numpy()), OVER_IMAGES.format(split=split)


def _outcomes(network: pd.Series, kind: str, kinds: dict[str, _Kind]) -> pd.Series | None:
    rows = kinds[kind].rows
    depth = 0 if kind == "input" else network["depth"]
    return outcomes(rows[(rows["run"] == network[f"run of {kind}"]) & (rows["depth"] == depth)])
