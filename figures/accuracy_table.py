"""The table of accuracies: a column for each probe, or for each depth, and what stands under it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.seeds import FLOOR
from figures.kit.table import Table
from figures.kit.words import IMAGES_SHARE, certified, trained_for, who_trained
from layerwise.errors import unknown
from probes.names import LINEAR, TRAINED

COLUMNS = ("probe", "depth")
_KIND = ["mode", "k", "width", "aux_width", "variant"]
_PROBES = {"linear": "linear", "linear-ovr": "one-vs-rest", "auxiliary": "auxiliary", "ensemble": "ensemble"}


def accuracy_table(points: pd.DataFrame, columns: str = "probe") -> Table:
    """Return accuracies (%), as `analysis.accuracy.accuracies` makes them.

    columns: "probe", with a row for each network and depth, or "depth", with a row for each network and probe.
    """
    if columns not in COLUMNS:
        raise unknown("columns", columns, COLUMNS)
    first = points.iloc[0]
    head, rows, text = _by_depth(points) if columns == "depth" else _by_probe(points)
    is_top5 = "measure" in points
    return Table(
        head=head,
        rows=rows,
        caption=f"{'Top-5 accuracy' if is_top5 else 'Accuracy'} (%) on {first['dataset']}, {first['split']} split "
        f"({first['n_samples']:,} images), "
        f"of each depth{' (0 = input)' if (points['depth'] == 0).any() else ''}.",
        notes=_notes(points),
        text=text,
        label="top5" if is_top5 else "accuracy",
    )


def _by_probe(points: pd.DataFrame) -> tuple[list[str], list[list[str]], int]:
    """Return head and rows with a column for each probe, and how many columns are text."""
    panels = _panels(points)
    published = bool(points["published"].notna().any())
    rows = []
    for _, own in points.groupby(_KIND, dropna=False, sort=False):
        for depth, at in own.groupby("depth"):
            by = {(row["probe"], row["probe_width"], row["pooling"]): row for row in at.to_dict("records")}
            rows.append(
                [*_kind(at.iloc[0]), str(depth)]
                + [_accuracy(by.get(panel)) for panel in panels]
                + ([_published(at)] if published else [])
            )
    head = ["network", "k", "M", "depth", *(panel_name(*panel) for panel in panels)]
    return [*head, *(["published (ensemble)"] if published else [])], rows, 1


def _by_depth(points: pd.DataFrame) -> tuple[list[str], list[list[str]], int]:
    """Return head and rows with a column for each depth, and how many columns are text."""
    depths, panels = sorted(set(points["depth"])), _panels(points)
    rows = []
    for _, own in points.groupby(_KIND, dropna=False, sort=False):
        for panel in panels:
            at = own[(own[["probe", "probe_width", "pooling"]] == list(panel)).all(axis="columns")]
            by = {row["depth"]: row for row in at.to_dict("records")}
            network, *numbers = _kind(own.iloc[0])
            if by:
                rows.append([network, panel_name(*panel), *numbers, *(_accuracy(by.get(depth)) for depth in depths)])
    return ["network", "probe", "k", "M", *(f"j = {depth}" for depth in depths)], rows, 2


def _panels(points: pd.DataFrame) -> list[tuple[str, int, int]]:
    """Return probe, width and pooling of each column: fitted probes first, as they came."""
    found = dict.fromkeys(zip(*(points[c] for c in ("probe", "probe_width", "pooling")), strict=True))
    return sorted(found, key=lambda panel: panel[0] in TRAINED)


def _kind(first: pd.Series) -> list[str]:
    return [_network(first["mode"], first["variant"]), *(or_dash(first[name]) for name in ("k", "width"))]


def _notes(points: pd.DataFrame) -> list[str]:
    """Say what intervals are, how far fits went, what is left out, how published networks differ."""
    intervals = "; ".join(dict.fromkeys(interval for interval in points["interval"] if interval))
    notes = [f"Brackets: 95% interval over {intervals}."] if intervals else []
    notes += [IMAGES_SHARE] if FLOOR in intervals else []
    notes += certified(points)
    notes += trained_for(points, "CNN probes")
    fewer = points[points["n_runs"] < points["n_asked"]].drop_duplicates(_KIND)
    counts = [f"{', '.join(_words(one))}: {one['n_runs']} of {one['n_asked']}" for one in fewer.to_dict("records")]
    notes += [f"Networks that trained: {'; '.join(counts)}."] if counts else []
    notes += who_trained(points)
    for _, own in points[points["differs"] != ""].groupby(["mode", "k", "width", "variant"]):
        first = own.iloc[0].to_dict()
        notes.append(f"Published beside {', '.join(_words(first))}: {first['source']}. Here: {first['differs']}.")
    return notes


def _words(point: dict[str, Any]) -> list[str]:
    """Return "greedy", "k = 1", "M = 8" for a network."""
    return [_network(point["mode"], point["variant"]), f"k = {point['k']}", f"M = {point['width']}"]


def _network(mode: str, variant: str) -> str:
    return f"{mode}, {variant}" if variant else mode


def panel_name(probe: str, probe_width: int, pooling: int) -> str:
    name = _PROBES.get(probe, probe.replace("cnn-", "CNN-"))
    if probe_width:
        return f"{name} ({probe_width})"
    if probe in LINEAR and not pooling:
        return f"{name}, raw pixels"
    return name if pooling in (0, 2) else f"{name} {pooling}x{pooling}"


def _accuracy(point: dict[str, Any] | None) -> str:
    if point is None:
        return "-"
    value = f"{100 * point['accuracy']:.1f}"
    return value if pd.isna(point["ci_low"]) else f"{value} [{100 * point['ci_low']:.1f}, {100 * point['ci_high']:.1f}]"


def _published(points: pd.DataFrame) -> str:
    by = points.dropna(subset="published").set_index("probe")["published"]
    if by.empty:
        return "-"
    ensemble = f" ({100 * by['ensemble']:.1f})" if "ensemble" in by else ""
    return f"{100 * by['auxiliary']:.1f}{ensemble}" if "auxiliary" in by else f"-{ensemble}"


def or_dash(value: Any) -> str:
    return "-" if pd.isna(value) else str(value)
