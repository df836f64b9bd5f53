"""What captions say of probes: what they read, how they were fitted, and how far that is from their best."""

from __future__ import annotations

import re

import pandas as pd

from analysis.convergence import changes, warnings
from analysis.separability import VECTOR
from analysis.tables import PANEL
from figures.kit.axis import is_pooled_input
from figures.kit.words import certified, trained_for
from figures.plots.panel import has_shared_input
from probes.names import TRAINED

_SELECTION = {
    "validation": "hyper-parameters chosen on the validation fold",
    "seen": "hyper-parameters fixed where a run has no validation fold",
    "fixed": "hyper-parameters fixed",
}
_REFIT = {
    "0": "fitted on the train fold only",
    "1": "refitted on train + validation",
    "0, 1": "refitted on train + validation, or fitted on all images where a run has no validation fold",
}
_POOLED = {
    "linear": "multinomial logistic regression",
    "linear-ovr": "one-versus-rest logistic regression",
    "knn": "k nearest neighbours",
    "ncm": "the nearest class mean",
}
_OTHER = "a classifier of scikit-learn, without a certificate,"
_TRAINED = {
    "auxiliary": "the classifier trained with the block, k - 1 hidden convolutions",
    "ensemble": "all auxiliary classifiers up to the depth, weighted 2^j on logits",
    "ensemble-softmax": "all auxiliary classifiers up to the depth, weighted 2^j on probabilities",
    "ensemble-uniform": "all auxiliary classifiers up to the depth, weighted equally on probabilities",
}


def probes(curves: pd.DataFrame) -> list[str]:
    """Say what the probes read and which of them is shown."""
    sentences = []
    others = [name for name in dict.fromkeys(curves["probe"]) if name not in TRAINED and not name.startswith("cnn-")]
    for name, words in (_POOLED | {name: _OTHER for name in others if name not in _POOLED}).items():
        own = curves[curves["probe"] == name]
        if own.empty:
            continue
        sentence = f"{name}: {words} on {_activations(own)}"
        if is_pooled_input(own).any():
            sentence += f"; hollow: the {_pooled(own[is_pooled_input(own)])} input, which has few features"
        pixels = own["pixels"].dropna()
        if len(pixels):
            found = sorted({f"{100 * value:.1f}%" for value in pixels}, key=lambda text: float(text[:-1]))
            diamond = "diamond" if len(found) == 1 else "diamonds"
            sentence += f"; grey {diamond}: the raw pixels ({', '.join(found)})"
        sentences.append(f"{sentence}.")
    sentences += certified(curves)
    if curves["probe"].map(lambda probe: bool(re.fullmatch(r"cnn-\d+", probe))).any():
        sentences.append(
            "CNN-p: a CNN with p hidden layers, trained on the whole maps; the width in a panel's title is the probe's."
        )
        sentences += convergence(curves, " (a cross, where it is more than half of those averaged)")
        own = curves[curves["probe"].str.startswith("cnn-")]
        if (own["depth"] == 0).any():
            sentences.append(
                "Their input is hollow too, and apart from the lines: no rate was chosen at it, so a gain over it is "
                "no result."
            )
        if all(has_shared_input(panel) for _, panel in own.groupby(PANEL)):
            bars = " and ".join(dict.fromkeys(own.loc[own["depth"] == 0, "interval"]))
            bar = f"; its bar: {bars}" if bars else ""
            sentences.append(f"Grey at depth 0: the input, the same for all lines to a tenth of a point{bar}.")
    drawn = set(curves["probe"])
    return sentences + [f"{name}: {words}." for name, words in _TRAINED.items() if name in drawn]


def _pooled(points: pd.DataFrame) -> str:
    """Return "2x2-pooled", or the grids of several poolings; empty where all that is read are vectors."""
    grids = [grid for grid in _values(points, "reads") if grid != VECTOR]
    return " or ".join(f"{grid}-pooled" for grid in grids)


def _activations(points: pd.DataFrame) -> str:
    """Return what the probe of A x_j reads: averages of maps, or vectors, which are not averaged."""
    below = points[~is_pooled_input(points)]
    read = below if len(below) else points
    pooled, is_mixed = _pooled(read), VECTOR in _values(read, "reads")
    if not pooled:
        return "the activations, which are vectors"
    return f"{pooled} activations{' (a vector as it is)' if is_mixed else ''}"


def convergence(curves: pd.DataFrame, sign: str = "") -> list[str]:
    """Say for how long CNN probes were trained, what half of it gives, and which of them were not trained.

    sign: how the last are drawn, where that is another way.
    """
    sentences = trained_for(curves, "They")
    found = [f"{_title(change.probe)} by at most {100 * change.largest:.1f} points" for change in changes(curves)]
    if found:
        sentences.append(f"From half of the epochs to all of them the accuracy of a curve changes: {', '.join(found)}.")
    failed = curves[curves["not_trained"] != ""]
    places = [f"{_title(p.probe)}, depth {p.depth} of {_which(p.not_trained, p.n_runs)}" for p in failed.itertuples()]
    if places:
        sentences.append(
            f"Not trained{sign}: {'; '.join(places)}; significantly below the linear probe of that depth (McNemar's "
            "exact test, Holm-adjusted over depths, p < 0.05)."
        )
    return [*sentences, *warnings(curves)]


def _which(files: str, n_runs: int) -> str:
    """Return "a.h5", or "a.h5 (1 of 5 networks)"."""
    return f"{files} ({len(files.split(', '))} of {n_runs} networks)" if n_runs > 1 else files


def _title(probe: str) -> str:
    return probe.replace("cnn-", "CNN-")


def protocol(curves: pd.DataFrame) -> list[str]:
    """Say how the probes were fitted; they are named where that is not the same for all."""
    named: dict[str, list[str]] = {}
    for probe, points in curves.groupby("probe", sort=False):
        named.setdefault(_fitted(probe, points), []).append(_title(probe))
    if len(named) == 1:
        return [f"Probes {fitted}." for fitted in named]
    return [f"{', '.join(probes)}: {fitted}." for fitted, probes in named.items()]


def _fitted(probe: str, points: pd.DataFrame) -> str:
    """Return on what images a probe was fitted, what was chosen and how, and by which protocol."""
    version = f"protocol version {', '.join(_values(points, 'protocol_version'))}"
    if probe in TRAINED:
        return f"fitted on the train fold in the training of the network itself, with nothing chosen; {version}"
    if (_values(points, "refit"), _values(points, "selection")) == (["0"], ["seen"]):
        return f"fitted on all of the train split; hyper-parameters fixed, for want of a validation fold; {version}"
    chosen = "; ".join(_SELECTION.get(selection, selection) for selection in _values(points, "selection"))
    return f"{_REFIT[', '.join(_values(points, 'refit'))]}; {chosen}; {version}"


def _values(points: pd.DataFrame, column: str) -> list[str]:
    """Return the different values of a column of which each point lists those of its runs."""
    return sorted(set(", ".join(points[column]).split(", ")))
