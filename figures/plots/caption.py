"""The caption of the separability figure: what was measured, on what, and what the intervals mean."""

from __future__ import annotations

import pandas as pd

from analysis.seeds import FLOOR
from figures.kit.axis import is_cut, is_failed, span
from figures.kit.style import line_label, plain
from figures.kit.words import IMAGES_SHARE, who_trained
from figures.plots.fits import probes, protocol
from figures.plots.lines import Key, Line, keyed, lines
from layerwise.config import MODES


def caption(curves: pd.DataFrame, relative: bool = False, named: dict[Key, Line] | None = None) -> str:
    """Return the caption, one paragraph, of points as `analysis.separability.curves` returns them.

    relative: whether depth is drawn as j / J. named: the lines, where they are others than `lines` makes.
    """
    first = curves.iloc[0]
    blocks = ", ".join(map(str, sorted(set(curves["blocks"].dropna()))))
    depth = f"relative depth j/J (J = {blocks})" if relative else "depth j"
    return " ".join(
        [
            f"Accuracy of probes against {depth} on {first['dataset']}, {_images(curves)}.",
            *_lines(curves, lines(curves) if named is None else named),
            *probes(curves),
            f"Dotted line: chance ({100 * first['chance']:.3g}%), the accuracy of always predicting the most "
            f"frequent class of the training data.",
            *protocol(curves),
        ]
    )


def _images(curves: pd.DataFrame) -> str:
    """Return which images are scored: those of the split, or of each where lines are splits."""
    counts = curves.groupby("split", sort=False)["n_samples"].first()
    if len(counts) == 1:
        return f"{counts.index[0]} split ({counts.iloc[0]} images)"
    alike = counts.nunique() == 1
    said = ", ".join(split if alike else f"{split} ({n})" for split, n in counts.items())
    each = f" ({counts.iloc[0]} images each)" if alike else " (number of images)"
    return f"the same probes on the images of {said}{each}"


def _lines(curves: pd.DataFrame, drawn: dict[Key, Line]) -> list[str]:
    """Say what each line averages and what its bars are; lines of which the same is true share a sentence."""
    named: dict[str, list[str]] = {}
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
    sentences += who_trained(curves)
    sentences += _failed(curves, drawn)
    if is_cut(curves).any():
        sentences.append("An arrowhead ends a bar, and the axis a band, that goes on beyond the axis.")
    return sentences


def _failed(curves: pd.DataFrame, drawn: dict[Key, Line]) -> list[str]:
    """Say which points stand under the break because they are near chance."""
    failed = curves[is_failed(curves)]
    if failed.empty:
        return []
    names = list(dict.fromkeys(drawn[key].name for key, _ in keyed(failed)))
    return [
        f"Above the chance line, under the break and at no height: depths near chance ({span(failed)}) of "
        f"{', '.join(names)}."
    ]


def _averaged(line: pd.DataFrame, band: bool) -> str:
    """Say which networks a line averages, and over what its intervals are."""
    point = line.iloc[0]
    factors = _factors(point)
    about = [f"{name} = {values}" for name, values in factors.items()]
    if point["variants"] and point["mode"] in MODES:  # a line of another mode has the variant in its name
        about.append(point["variants"])
    known = line[line["interval"] != ""]
    above = known[known["depth"] > 0] if (known["depth"] > 0).any() else known
    intervals = " and ".join(dict.fromkeys(above["interval"]))
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


def kind_of_network(points: pd.DataFrame) -> str:
    """Return the words for the networks of points of one kind: how they were trained, k, M, how many."""
    first = points.iloc[0]
    what = plain(line_label(first["mode"], None if pd.isna(first["k"]) else int(first["k"])))
    width = f", M = {first['widths']}" if first["widths"] else ""
    networks = "one network" if first["n_runs"] == 1 else f"the mean of {of_asked(first)} networks"
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
