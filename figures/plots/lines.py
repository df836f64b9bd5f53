"""The lines of the separability figure: how each is drawn and what the legend calls it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import seaborn
from matplotlib.colors import is_color_like
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.factors import line_columns
from analysis.failures import is_failed_alone
from analysis.tables import PANEL
from figures.kit import style
from figures.kit.axis import is_pooled_input
from figures.kit.legend import Handle
from layerwise.config import MODES
from layerwise.errors import UsageError, UserError, option, unknown

log = logging.getLogger("layerwise.figures")

Key = tuple[Any, ...]
_THIN = {"linewidth": 0.6, "markersize": 2.6}
# Of many lines each is drawn finer.
_MANY, _FINE = 6, {"linewidth": 0.9, "markersize": 3.0}


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the figure.

    Attributes:
        label: its words in the legend, with mathematics between dollar signs.
        sign: matplotlib's properties of the line, or of the mean of a band.
        area: of the band of untrained networks, behind the lines of trained ones; empty where it is none.
    """

    label: str
    sign: dict[str, Any]
    area: dict[str, Any] = field(default_factory=dict)

    @property
    def band(self) -> bool:
        return bool(self.area)

    @property
    def name(self) -> str:
        """The label as plain text."""
        return style.plain(self.label)

    @property
    def handle(self) -> Handle:
        """What stands for the line in the legend."""
        line = Line2D([], [], label=self.label, **self.sign)
        return (Patch(label=self.label, linewidth=0, **self.area), line) if self.band else line


def keyed(points: pd.DataFrame) -> Iterator[tuple[Key, pd.DataFrame]]:
    """Yield each line's points under what tells it from the others, in the order drawn."""
    for key, line in points.groupby(line_columns(points["by"].iloc[0]), sort=False, dropna=False):
        yield tuple(None if pd.isna(part) else part for part in key), line


def lines(points: pd.DataFrame) -> dict[Key, Line]:
    """Return the lines of points as `analysis.separability.curves` returns them, in the legend's order."""
    return _failed(_lines(points), points)


def _lines(points: pd.DataFrame) -> dict[Key, Line]:
    by = points["by"].iloc[0]
    keys = list(dict.fromkeys(key for key, _ in keyed(points)))
    if len(keys) > style.MOST_LINES:
        raise UserError(
            f"{len(keys)} lines cannot be told apart in one figure, {style.MOST_LINES} can. Give fewer runs, or "
            "extract those that are to be averaged under the same --label, each with its own --seed."
        )
    if by in ("k", "mode"):
        return _by_k(points, keys) if by == "k" else _by_mode(points, keys)
    words = {"width": "$M$ = {0}", "pool": "{0}x{0}", "seed": "seed {0}", "split": "{0}"}[by]
    thin = _THIN if by == "seed" else {}
    signs = style.ordered_styles(len(keys))
    return {
        key: Line(label=words.format(str(key[1]).replace("$", r"\$")), sign=sign | thin)
        for key, sign in zip(keys, signs, strict=True)
    }


def _failed(found: dict[Key, Line], points: pd.DataFrame) -> dict[Key, Line]:
    """Return the lines, of which those of one network that did not train say so."""
    if "did_not_train" not in points:
        return found
    own = [key for key, line in keyed(points) if is_failed_alone(line)]
    return found | {key: replace(found[key], label=f"{found[key].label}, did not train") for key in own}


def restyled(
    found: dict[Key, Line],
    labels: Mapping[str, str] | Sequence[str] | None,
    palette: Mapping[str, Any] | Sequence[Any] | str | None,
) -> dict[Key, Line]:
    """Return the lines with words and colours of the user's own.

    Args:
        labels: of lines by their names, as the caption has them, or of all lines in the legend's order.
        palette: colours likewise, or the name of a palette of seaborn or matplotlib.
    """
    names = [line.name for line in found.values()]
    words = _given(option("labels"), labels, names)
    if words:
        log.info("labels: %s", "; ".join(f"{word} for {name}" for name, word in words.items()))
    colours = _given(option("palette"), _colours(palette, len(names)) if isinstance(palette, str) else palette, names)
    for colour in colours.values():
        if not is_color_like(colour):
            raise UsageError(
                f"{option('palette')} has {colour!r}, which is no colour of matplotlib; '#D55E00' or 'tab:blue' is one."
            )
    return {
        key: replace(
            line,
            label=words.get(line.name, line.label),
            sign=line.sign | ({"color": colours[line.name]} if line.name in colours else {}),
        )
        for key, line in found.items()
    }


def _given(what: str, given: Mapping[str, Any] | Sequence[Any] | None, names: Sequence[str]) -> dict[str, Any]:
    """Return what was given for each line, by its name."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        for name in given:
            if name not in names:
                raise unknown(f"line in {what}", name, names)
        return dict(given)
    if len(given) != len(names):
        raise UsageError(f"{what} has {len(given)} for {len(names)} lines: {'; '.join(names)}. Give one for each.")
    return dict(zip(names, given, strict=True))


def _colours(palette: str, count: int) -> list[Any]:
    try:
        return list(seaborn.color_palette(palette, count))
    except ValueError:
        if is_color_like(palette):
            return [palette]
        raise UsageError(
            f"palette {palette!r} is none of seaborn or matplotlib; 'colorblind', 'deep' and 'viridis' are."
        ) from None


def _by_k(points: pd.DataFrame, keys: list[Key]) -> dict[Key, Line]:
    alone = len({mode for mode, _ in keys}) == 1
    places = _places_of_networks_built_elsewhere(keys)
    found = {
        (mode, k): Line(
            label=style.line_label(mode, k, alone), sign=style.line_style(mode, k, places.get((mode, k), 0))
        )
        for mode, k in keys
    }
    return _marked_by_mode(found) | _other_starts(points) | _bands(points)


def _marked_by_mode(found: dict[Key, Line]) -> dict[Key, Line]:
    """Return the lines with a marker for each mode where all are of one k, which would give all the same."""
    here = [key for key in found if key[0] in MODES]
    if len(here) < 2 or len({k for _, k in here}) > 1:
        return found
    marked = {key: found[key].sign | {"marker": style.MODE_MARKERS[key[0]]} for key in here}
    return found | {key: replace(found[key], sign=sign) for key, sign in marked.items()}


def _by_mode(points: pd.DataFrame, keys: list[Key]) -> dict[Key, Line]:
    places = _places_of_networks_built_elsewhere(keys)
    found = {}
    for key in keys:
        (mode,) = key
        sign = style.line_style(mode, None, places[key]) if key in places else style.mode_style(mode)
        found[key] = Line(label=style.line_label(mode, None, alone=False), sign=sign)
    return found | _other_starts(points) | _bands(points)


def _places_of_networks_built_elsewhere(keys: list[Key]) -> dict[Key, int]:
    return {key: place for place, key in enumerate(key for key in keys if _is_elsewhere(key[0]))}


def _is_elsewhere(mode: str) -> bool:
    return mode not in MODES and not mode.startswith("untrained,")


def _bands(points: pd.DataFrame) -> dict[Key, Line]:
    """Return the lines that are bands: one or two of untrained networks, with an interval over seeds, beside others."""
    untrained = {key: line for key, line in keyed(points) if key[0] == "untrained"}
    beside = points["mode"].nunique() > 1
    if not beside or len(untrained) > len(style.BANDS) or not all(map(_has_area, untrained.values())):
        return {}
    # The filled band is that of the networks with BatchNorm, as most trained ones are.
    order = sorted(untrained, key=lambda key: str(untrained[key]["batch_norm"].iloc[0]) == "0")
    return {
        key: Line(label=_band_label(key, untrained), sign=mean, area=area)
        for key, area, mean in zip(order, style.BANDS, style.BAND_MEANS, strict=False)
    }


def _other_starts(points: pd.DataFrame) -> dict[Key, Line]:
    """Return the lines of untrained networks of other first weights, as lines: more than two bands hide each other."""
    own = {key: line for key, line in keyed(points) if key[0].startswith("untrained,")}
    return {
        key: Line(
            label=_band_label(key, {other: own[other] for other in own if other[0] == key[0]}),
            sign=style.line_style("untrained", key[1] if len(key) > 1 else None)
            | {"linestyle": style.PARALLEL_DASHES, **_THIN},
        )
        for key in own
    }


def _has_area(line: pd.DataFrame) -> bool:
    """Say whether a line has an interval over seeds at two depths of one panel at least."""
    known = line[line["interval"].str.startswith("seeds") & ~is_pooled_input(line)]
    return not known.empty and bool(known.groupby(PANEL)["depth"].nunique().min() > 1)


def _band_label(key: Key, untrained: dict[Key, pd.DataFrame]) -> str:
    """Return "untrained" or "untrained, no BatchNorm"; k instead, where BatchNorm does not tell the lines apart."""
    mode = key[0]
    norms = {other: str(line["batch_norm"].iloc[0]) for other, line in untrained.items()}
    if len(set(norms.values())) < len(norms) or norms[key] not in ("0", "1"):
        return style.line_label(mode, key[1] if len(key) > 1 else None)
    return mode if norms[key] == "1" else f"{mode}, no BatchNorm"
