"""Owns the words under the separability figure: what was measured, on what, and what the intervals mean."""

from __future__ import annotations

import re

import pandas as pd

from analysis.tables import LINE
from figures.style import line_label
from probes.catalogue import TRAINED

_SELECTION = {
    "validation": "hyper-parameters chosen on the validation fold",
    "seen": "hyper-parameters fixed, for the network was trained on all training images",
    "fixed": "hyper-parameters fixed",
}
_REFIT = {
    "0": "fitted on the train fold only",
    "1": "refitted on train + validation",
    "0, 1": "refitted on train + validation, or fitted on all images where a run has no validation fold",
}
_TRAINED = {
    "auxiliary": "the classifier trained with the block, k - 1 hidden convolutions",
    "ensemble": "all auxiliary classifiers up to the depth, weighted 2^j on logits",
    "ensemble-softmax": "all auxiliary classifiers up to the depth, weighted 2^j on probabilities",
    "ensemble-uniform": "all auxiliary classifiers up to the depth, weighted equally on probabilities",
}


def caption(curves: pd.DataFrame) -> str:
    """Return the caption, one paragraph, of points as `analysis.separability.curves` returns them."""
    first = curves.iloc[0]
    return " ".join(
        [
            f"Accuracy of probes against depth j on {first['dataset']}, {first['split']} split "
            f"({first['n_samples']} images).",
            *_lines(curves),
            *(["A bar shorter than its marker is hidden by it."] if any(curves["interval"]) else []),
            *_probes(curves),
            f"Dotted line: chance ({100 * first['chance']:.3g}%), the accuracy of always predicting the most "
            f"frequent class of the training data.",
            *_protocol(curves),
        ]
    )


def _lines(curves: pd.DataFrame) -> list[str]:
    """Say what each line averages and what its bars are; lines of which the same is true share a sentence."""
    named: dict[str, list[str]] = {}
    for (mode, k), line in curves.groupby(LINE, sort=False, dropna=False):
        alone = curves["mode"].nunique() == 1
        name = line_label(mode, None if pd.isna(k) else int(k), alone).replace("$k$", "k").replace(r"\$", "$")
        named.setdefault(_averaged(line), []).append(name)
    sentences = []
    for averaged, names in named.items():
        what = averaged.replace("one network", "one network each", 1) if len(names) > 1 else averaged
        sentences.append(f"{'; '.join(names)}: {what}.")
    return sentences


def _averaged(line: pd.DataFrame) -> str:
    point = line.iloc[0]
    width = f"M = {point['widths']}" if point["widths"] else ""
    bars = " and ".join(dict.fromkeys(line["interval"][line["interval"] != ""]))
    shown = f"bars: {bars}" if bars else "no interval, for no width has two seeds or the split has none"
    if point["n_runs"] == 1:
        return f"one network{width and f' ({width})'}; {shown}"
    seeds = f"{point['n_seeds']} seed{'s' if point['n_seeds'] > 1 else ''}"
    what = ", ".join(filter(None, (width, seeds)))
    return f"mean of {point['n_runs']} networks ({what}), each M weighing the same; {shown}"


def _probes(curves: pd.DataFrame) -> list[str]:
    """Say what the probes read and which of them is shown."""
    sentences = []
    for name, words in (("linear", "multinomial"), ("linear-ovr", "one-versus-rest")):
        sides = sorted(set(curves.loc[curves["probe"] == name, "pooling"]))
        if sides:
            pooled = " or ".join(f"{side}x{side}-pooled" for side in sides)
            pixels = curves.loc[curves["probe"] == name, "pixels"].dropna()
            beside = f"; grey diamond: the raw pixels ({100 * pixels.iloc[0]:.1f}%)" if len(pixels) else ""
            sentences.append(
                f"{name}: {words} logistic regression on {pooled} activations; hollow: the {pooled} input, "
                f"which has few features{beside}."
            )
    if curves["probe"].map(lambda probe: bool(re.fullmatch(r"cnn-\d+", probe))).any():
        sentences.append(
            "CNN-p: a CNN with p hidden layers, trained on the whole maps; M in a panel's title is its width."
        )
    drawn = set(curves["probe"])
    return sentences + [f"{name}: {words}." for name, words in _TRAINED.items() if name in drawn]


def _protocol(curves: pd.DataFrame) -> list[str]:
    """Say how the probes were fitted; they are named where that is not the same for all."""
    named: dict[str, list[str]] = {}
    for probe, points in curves.groupby("probe", sort=False):
        named.setdefault(_fitted(probe, points), []).append(probe.replace("cnn-", "CNN-"))
    if len(named) == 1:
        return [f"Probes {fitted}." for fitted in named]
    return [f"{', '.join(probes)}: {fitted}." for fitted, probes in named.items()]


def _fitted(probe: str, points: pd.DataFrame) -> str:
    """Return on what images a probe was fitted, what was chosen and how, and by which protocol."""
    version = f"protocol version {', '.join(_held(points, 'protocol_version'))}"
    if probe in TRAINED:
        return f"fitted on the train fold in the training of the network itself, with nothing chosen; {version}"
    chosen = "; ".join(_SELECTION.get(selection, selection) for selection in _held(points, "selection"))
    return f"{_REFIT[', '.join(_held(points, 'refit'))]}; {chosen}; {version}"


def _held(points: pd.DataFrame, column: str) -> list[str]:
    """Return the different values of a column of which each point lists those of its runs."""
    return sorted(set(", ".join(points[column]).split(", ")))
