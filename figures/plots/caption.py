"""The caption of the separability figure: what was measured, on what, and what the intervals mean."""

from __future__ import annotations

import math
import re

import pandas as pd

from analysis.convergence import changes, warnings
from analysis.seeds import FLOOR
from analysis.separability import VECTOR
from analysis.tables import PANEL
from figures.kit.axis import is_cut, is_failed, is_pooled_input, span
from figures.kit.style import line_label, plain
from figures.plots.lines import Key, Line, keyed, lines
from figures.plots.panel import has_shared_input
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
_TRAINED = {
    "auxiliary": "the classifier trained with the block, k - 1 hidden convolutions",
    "ensemble": "all auxiliary classifiers up to the depth, weighted 2^j on logits",
    "ensemble-softmax": "all auxiliary classifiers up to the depth, weighted 2^j on probabilities",
    "ensemble-uniform": "all auxiliary classifiers up to the depth, weighted equally on probabilities",
}


IMAGES_SHARE = "The images' share: the normal interval of half the variance that these images give an accuracy."


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
    if any(FLOOR in averaged for averaged in named):
        sentences.append(IMAGES_SHARE)
    sentences += _failed(curves, drawn)
    if is_cut(curves).any():
        sentences.append("An arrowhead ends a bar, and the axis a band, that goes on beyond the axis.")
    return sentences


def _failed(curves: pd.DataFrame, drawn: dict[Key, Line]) -> list[str]:
    """Say which points stand under the break because they are no better than chance."""
    failed = curves[is_failed(curves)]
    if failed.empty:
        return []
    names = list(dict.fromkeys(drawn[key].name for key, _ in keyed(failed)))
    return [
        f"Above the chance line, under the break and at no height: depths no better than chance ({span(failed)}) of "
        f"{', '.join(names)}."
    ]


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
        network = "one network" if point["n_asked"] == 1 else f"one of {point['n_asked']} networks"
        network += f" ({', '.join(about)})" if about else ""
        return f"{network}; {shown}"
    if point["by"] != "seed":
        about.append(_many(point["n_seeds"], "seed"))
    several = [name for name, values in factors.items() if "," in values]
    weighing = ""
    if several:
        weighing = f", each {'pair of k and M' if len(several) == 2 else several[0]} weighing the same"
    return f"mean of {of_asked(point)} networks ({'; '.join(about)}){weighing}; {shown}"


def _factors(point: pd.Series) -> dict[str, str]:
    """Return k and M of the networks of a line, but for the one that the line stands for, which is its name."""
    found = {"k": point["ks"], "M": point["widths"]}
    found.pop({"k": "k", "width": "M"}.get(point["by"], ""), None)
    return {name: values for name, values in found.items() if values}


def of_asked(point: pd.Series, count: str = "n_runs") -> str:
    """Return how many networks there are, "4 of 5" where one did not train and is left out."""
    number = int(point[count])
    asked = int(point.get("n_asked", number))
    return str(number) if number == asked else f"{number} of {asked}"


def _many(number: int, word: str) -> str:
    return f"{number} {word}{'s' if number > 1 else ''}"


def _probes(curves: pd.DataFrame) -> list[str]:
    """Say what the probes read and which of them is shown."""
    sentences = []
    for name, words in _POOLED.items():
        own = curves[curves["probe"] == name]
        if own.empty:
            continue
        sentence = f"{name}: {words} on {_activations(own)}"
        if is_pooled_input(own).any():
            sentence += f"; hollow: the {_pooled(own[is_pooled_input(own)])} input, which has few features"
        pixels = own["pixels"].dropna()
        if len(pixels):
            sentence += f"; grey diamond: the raw pixels ({100 * pixels.iloc[0]:.1f}%)"
        sentences.append(f"{sentence}.")
    sentences += certified(curves)
    if curves["probe"].map(lambda probe: bool(re.fullmatch(r"cnn-\d+", probe))).any():
        sentences.append(
            "CNN-p: a CNN with p hidden layers, trained on the whole maps; the width in a panel's title is the probe's."
        )
        own = curves[curves["probe"].str.startswith("cnn-")]
        if all(has_shared_input(panel) for _, panel in own.groupby(PANEL)):
            sentences.append("Grey at depth 0: the input, the same for all lines.")
        sentences += convergence(curves, " (hollow)")
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


def certified(points: pd.DataFrame) -> list[str]:
    """Say how far the fits are from their optimum at most, by the largest certificate, rounded up."""
    known = points["certificate"].dropna() if "certificate" in points else points.iloc[:0]
    if not len(known):
        return []
    return [f"Each linear fit is within {bound(float(known.max()))} nats of its optimum, proved."]


def bound(certificate: float) -> str:
    """Return a bound with one digit, "3e-5" for 2.4e-5: a bound that is rounded down is none."""
    if certificate <= 0:
        return "0"
    exponent = math.floor(math.log10(certificate))
    digit = math.ceil(certificate / 10.0**exponent - 1e-9)
    return f"{digit}e{exponent}" if digit < 10 else f"1e{exponent + 1}"


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
        networks = f"{of_asked(first, count)} network{'s' if max(first[count], first.get('n_asked', 0)) > 1 else ''}"
        said.append(f"k = {k}: {of}{networks} ({about})")
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
