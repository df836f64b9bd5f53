"""The caption of the separability figure: what was measured, on what, and what the intervals mean."""

from __future__ import annotations

import re

import pandas as pd

from analysis.convergence import changes, warnings
from figures.kit.axis import is_cut
from figures.kit.style import line_label, plain
from figures.plots.lines import keyed, lines
from layerwise.config import MODES
from probes.names import QUICK_EPOCHS, TRAINED

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


def caption(curves: pd.DataFrame, relative: bool = False) -> str:
    """Return the caption, one paragraph, of points as `analysis.separability.curves` returns them.

    relative: whether depth is drawn as j / J.
    """
    first = curves.iloc[0]
    blocks = ", ".join(map(str, sorted(set(curves["blocks"].dropna()))))
    depth = f"relative depth j/J (J = {blocks})" if relative else "depth j"
    return " ".join(
        [
            f"Accuracy of probes against {depth} on {first['dataset']}, {first['split']} split "
            f"({first['n_samples']} images).",
            *_lines(curves),
            *_probes(curves),
            f"Dotted line: chance ({100 * first['chance']:.3g}%), the accuracy of always predicting the most "
            f"frequent class of the training data.",
            *protocol(curves),
        ]
    )


def _lines(curves: pd.DataFrame) -> list[str]:
    """Say what each line averages and what its bars are; lines of which the same is true share a sentence."""
    named: dict[str, list[str]] = {}
    drawn = lines(curves)
    for key, points in keyed(curves):
        line = drawn[key]
        name = line.name
        if line.band:
            name += " (hatched band)" if "hatch" in line.area else " (grey band)"
        named.setdefault(_averaged(points, line.band), []).append(name)
    sentences = []
    for averaged, names in named.items():
        what = averaged.replace("one network", "one network each", 1) if len(names) > 1 else averaged
        sentences.append(f"{'; '.join(names)}: {what}.")
    if any("bars: " in averaged for averaged in named):
        sentences.append("A bar shorter than its marker is hidden by it.")
    if is_cut(curves).any():
        sentences.append("An arrowhead ends a bar, and the axis a band, that goes on beyond the axis.")
    return sentences


def _averaged(line: pd.DataFrame, band: bool) -> str:
    """Say which networks a line averages, and over what its intervals are."""
    point = line.iloc[0]
    factors = _factors(point)
    about = [f"{name} = {values}" for name, values in factors.items()]
    if point["variants"] and point["mode"] in MODES:  # a line of another mode has the variant in its name
        about.append(point["variants"])
    intervals = " and ".join(dict.fromkeys(line["interval"][line["interval"] != ""]))
    shown = "no interval, for no width has two seeds or the split has none"
    if intervals:
        shown = f"{'band' if band else 'bars'}: {intervals}"
    if point["n_runs"] == 1:
        network = f"one network ({', '.join(about)})" if about else "one network"
        return f"{network}; {shown}"
    if point["by"] != "seed":
        about.append(_many(point["n_seeds"], "seed"))
    several = [name for name, values in factors.items() if "," in values]
    weighing = ""
    if several:
        weighing = f", each {'pair of k and M' if len(several) == 2 else several[0]} weighing the same"
    return f"mean of {point['n_runs']} networks ({'; '.join(about)}){weighing}; {shown}"


def _factors(point: pd.Series) -> dict[str, str]:
    """Return k and M of the networks of a line, but for the one that the line stands for, which is its name."""
    found = {"k": point["ks"], "M": point["widths"]}
    found.pop({"k": "k", "width": "M"}.get(point["by"], ""), None)
    return {name: values for name, values in found.items() if values}


def _many(number: int, word: str) -> str:
    return f"{number} {word}{'s' if number > 1 else ''}"


def _probes(curves: pd.DataFrame) -> list[str]:
    """Say what the probes read and which of them is shown."""
    sentences = []
    others = [name for name in dict.fromkeys(curves["probe"]) if name not in TRAINED and not name.startswith("cnn-")]
    for name, words in (_POOLED | {name: _OTHER for name in others if name not in _POOLED}).items():
        sides = sorted(set(curves.loc[curves["probe"] == name, "pooling"]))
        if sides:
            pooled = " or ".join(f"{side}x{side}-pooled" for side in sides)
            pixels = curves.loc[curves["probe"] == name, "pixels"].dropna()
            beside = f"; grey diamond: the raw pixels ({100 * pixels.iloc[0]:.1f}%)" if len(pixels) else ""
            sentences.append(
                f"{name}: {words} on {pooled} activations; hollow: the {pooled} input, which has few features{beside}."
            )
    if curves["probe"].map(lambda probe: bool(re.fullmatch(r"cnn-\d+", probe))).any():
        sentences.append(
            "CNN-p: a CNN with p hidden layers, trained on the whole maps; the width in a panel's title is the probe's."
        )
        sentences += convergence(curves, " (hollow)")
    drawn = set(curves["probe"])
    return sentences + [f"{name}: {words}." for name, words in _TRAINED.items() if name in drawn]


def convergence(curves: pd.DataFrame, sign: str = "") -> list[str]:
    """Say for how long CNN probes were trained, what half of it gives, and which of them were not trained.

    sign: how the last are drawn, where that is another way.
    """
    epochs = sorted(set(curves["epochs"].dropna()))
    quick = any(number <= QUICK_EPOCHS for number in epochs)
    trained = f"They were trained for {' or '.join(map(str, epochs))} epochs"
    sentences = [f"{trained} only (quick), far from convergence." if quick else f"{trained}."] if epochs else []
    found = [f"{_title(change.probe)} by at most {100 * change.largest:.1f} points" for change in changes(curves)]
    if found:
        sentences.append(f"From half of the epochs to all of them the accuracy of a curve changes: {', '.join(found)}.")
    failed = curves[curves["not_trained"] != ""]
    places = [f"{_title(p.probe)}, depth {p.depth} of {p.not_trained}" for p in failed.itertuples()]
    if places:
        sentences.append(
            f"Not trained{sign}: {'; '.join(places)}; significantly below the linear probe of that depth (McNemar's "
            "exact test, Holm-adjusted over depths, p < 0.05)."
        )
    return [*sentences, *warnings(curves)]


def _title(probe: str) -> str:
    return probe.replace("cnn-", "CNN-")


def kind_of_network(points: pd.DataFrame) -> str:
    """Return the words for the networks of points of one kind: how they were trained, k, M, how many."""
    first = points.iloc[0]
    what = plain(line_label(first["mode"], None if pd.isna(first["k"]) else int(first["k"])))
    width = f", M = {first['widths']}" if first["widths"] else ""
    networks = "one network" if first["n_runs"] == 1 else f"the mean of {first['n_runs']} networks"
    return f"{networks} ({what}{width})"


def averaged_by_k(points: pd.DataFrame, count: str, of: str = "") -> str:
    """Say what the points of each k average: "k = 1: 4 networks (M = 8, 16; 2 seeds)".

    count: the column of the number of networks. of: words before that number.
    """
    said = []
    for k, of_k in points.groupby("k"):
        first = of_k.iloc[0]
        about = f"M = {first['widths']}; {_many(first['n_seeds'], 'seed')}"
        said.append(f"k = {k}: {of}{_many(first[count], 'network')} ({about})")
    return "; ".join(said)


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
    chosen = "; ".join(_SELECTION.get(selection, selection) for selection in _values(points, "selection"))
    return f"{_REFIT[', '.join(_values(points, 'refit'))]}; {chosen}; {version}"


def _values(points: pd.DataFrame, column: str) -> list[str]:
    """Return the different values of a column of which each point lists those of its runs."""
    return sorted(set(", ".join(points[column]).split(", ")))
