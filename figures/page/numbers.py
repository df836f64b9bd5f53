"""The tables that a page has beyond those of a paper: of single networks, of what each probe chose, of its points."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pandas as pd

from analysis.tables import PANEL, file_names
from figures.accuracy_table import or_dash, panel_name
from figures.kit.style import plain
from figures.kit.table import Table
from figures.kit.words import bound, certified
from figures.plots.attribution import LABELS
from probes.results.table import last_fits
from probes.tasks.task import CLASS, NO_CONTROL

_KIND = ["mode", "k", "width", "variant"]
_ON = {
    "validation": "validation fold",
    "seen": "nothing: no unseen fold",
    "fixed": "nothing to choose",
    "control": "as for the classes",
}


def networks(rows: pd.DataFrame) -> Table:
    """Return the test accuracy of every network at every depth by every probe, the mean over a probe's seeds."""
    own = _accuracies(rows)
    depths, files = sorted(set(own["depth"])), file_names(own["run"].unique())
    cells = []
    for key, one in own.groupby(["run", *PANEL], sort=False):
        first, at = one.iloc[0], one.groupby("depth")["value"].mean()
        name = [files[key[0]], panel_name(*key[1:]), first["mode"]]
        numbers = [or_dash(first[column]) for column in ("k", "width", "seed")]
        cells.append(name + numbers + [f"{100 * at[depth]:.1f}" if depth in at else "-" for depth in depths])
    first = own.iloc[0]
    return Table(
        head=["run", "probe", "network", "k", "M", "seed", *(f"j = {depth}" for depth in depths)],
        rows=cells,
        caption=f"Accuracy (%) of each network on the {first['n_samples']:,} test images of {first['dataset']}, "
        "of each depth.",
        text=3,
    )


def fits(rows: pd.DataFrame) -> Table:
    """Return what was chosen for the probes of each kind of network at each depth, on what, and their certificates."""
    own = last_fits(rows[(rows["metric"] == "accuracy") & (rows["split"] == "test")])
    cells = []
    place = [*_KIND, *PANEL, "features", "control", "target", "depth"]
    for key, one in own.groupby(place, dropna=False, sort=False):
        at = dict(zip(place, key, strict=True))
        kind = ", ".join(str(word) for word in (at["mode"], at["variant"]) if word)
        known, met = one["certificate"].dropna(), one["converged"].dropna()
        cells.append(
            [
                kind, _asked(at), or_dash(at["k"]), or_dash(at["width"]), str(at["depth"]), str(len(one)),
                _span(one["n_train"], ",d"), _chosen(one),
                " and ".join(_ON.get(on, on) for on in sorted(set(one["selection"]))),
                bound(float(known.max())) if len(known) else "-",
                f"{int(met.sum())} of {len(met)}" if len(met) else "-", str(int(one["test_reads"].max())),
            ]
        )  # fmt: skip
    head = ["network", "probe", "k", "M", "depth", "fits", "images", "chosen", "on", "certificate", "met", "test reads"]
    return Table(
        head=head,
        rows=cells,
        caption="What each probe was fitted on, what was chosen for it and on what, and its certificate.",
        notes=[
            "Images: that the probe was fitted on, the fold included where it is a refit. Certificate: the largest of "
            "these fits, in nats a sample, a proved bound on what the fit is above its optimum; met: how many fits are "
            "within the tolerance, 1e-4 of their objective. Test reads: how many times the test split was read for the "
            "probe, at most.",
            *certified(own),
        ],
        text=2,
    )


def parts(points: pd.DataFrame) -> Table:
    """Return the points of the attribution figure."""
    cells = [
        [
            plain(LABELS[one["part"]]),
            str(one["k"]),
            str(one["depth"]),
            _signed(one["value"]),
            _ends(one),
            one["interval"],
        ]
        for one in points.to_dict("records")
    ]
    head = ["part", "k", "depth", "points", "95% interval", "over"]
    return Table(head=head, rows=cells, caption="The parts of the gain over the pooled input, in points.", text=1)


def last_epochs(points: pd.DataFrame) -> Table:
    """Return the last points of training curves."""
    last = points[points["epoch"] == points.groupby(["k", "block"])["epoch"].transform("max")]
    columns = [("train", "loss"), ("validation", "loss"), ("train", "accuracy"), ("validation", "accuracy")]
    cells = []
    for (k, block), one in last.groupby(["k", "block"]):
        at = one.set_index(["split", "measure"])["value"]
        cells.append(
            [str(k), str(block), str(one["epoch"].iloc[0])]
            + [
                "-" if key not in at else f"{at[key]:.3f}" if key[1] == "loss" else f"{100 * at[key]:.1f}"
                for key in columns
            ]
        )
    head = ["k", "block", "epoch", "train loss", "validation loss", "train (%)", "validation (%)"]
    return Table(head=head, rows=cells, caption="The last epoch of each auxiliary problem; losses in nats.", text=0)


def _accuracies(rows: pd.DataFrame) -> pd.DataFrame:
    own = rows[(rows["metric"] == "accuracy") & (rows["split"] == "test") & (rows["target"] == CLASS)]
    return last_fits(own[(own["control"] == NO_CONTROL) & (own["features"] == "native")])


def _asked(at: dict[str, object]) -> str:
    """Return the words for a probe: its panel, and what it reads or is asked beyond the usual."""
    words = [panel_name(str(at["probe"]), int(str(at["probe_width"])), int(str(at["pooling"])))]
    words += [f"{at['features']} features"] if at["features"] != "native" else []
    words += [f"control {at['control']}"] if at["control"] != NO_CONTROL else []
    words += [f"target {at['target']}"] if at["target"] != CLASS else []
    return ", ".join(words)


def _chosen(fits: pd.DataFrame) -> str:
    if fits["lambda"].notna().any():
        return f"lambda {_span(fits['lambda'], '.1e')}"
    if fits["learning_rate"].notna().any():
        return f"rate {_span(fits['learning_rate'], 'g')}"
    if fits["neighbors"].notna().any():
        return f"k {_span(fits['neighbors'], 'd')}, {' or '.join(sorted(set(fits['distance'].dropna())))}"
    return str(fits["estimator"].iloc[0]) if fits["estimator"].notna().any() else "-"


def _span(values: pd.Series, form: str) -> str:
    low, high = (f"{value:{form}}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def _signed(value: float) -> str:
    return f"{100 * value:+.2f}"


def _ends(one: dict[Hashable, Any]) -> str:
    low, high = one["ci_low"], one["ci_high"]
    return "-" if pd.isna(low) else f"[{_signed(low)}, {_signed(high)}]"
