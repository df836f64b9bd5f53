"""The tables that probe-depth prints, from the rows of a run, within 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from probes.results.baseline import Beside
from probes.results.comparisons import SIGNIFICANT, not_trained
from probes.results.intervals import wilson_interval
from probes.results.metrics import HALF

_KEY = ["probe", "depth", "pooling", "probe_width"]


def lines(rows: pd.DataFrame, title: str) -> Iterator[str]:
    """Yield the lines of a table: a line for each depth and width, the mean where there are several probe seeds.

    Args:
        rows: of one family of one run, as `probes.sweep.rows_at` returns them.
        title: what stands in the head.
    """
    yield f"{title}; accuracy in %"
    knob = _knob(rows)
    shows = "teacher_gap" if (rows["metric"] == "teacher_gap").any() else "gain"
    head = f"{'depth':>5} {'reads':<6} {'M':>4} {knob:>8} {'train':>6} {'valid':>6}  {'test':>6} {'95% interval':<16}"
    yield f"{head} {'gap' if shows == 'teacher_gap' else 'gain'}"
    several = rows["probe"].nunique() > 1
    for (probe, *_), group in rows.groupby(_KEY, sort=False):
        yield f"{_line(group, shows)}{f' {probe}' if several else ''}"
    yield from _notes(rows)


def _line(rows: pd.DataFrame, shows: str) -> str:
    """Return the line of one probe: test of the refit, train and validation of the fit on which it was chosen."""
    first, last = rows[rows["refit"] == rows["refit"].min()], rows[rows["refit"] == rows["refit"].max()]
    one = rows.iloc[0]
    is_vector = one["pooling"] and one["map_height"] == one["map_width"] == 1
    reads = "vector" if is_vector else _reads_of(int(one["pooling"]))
    chosen = {_chosen(row) for _, row in rows.drop_duplicates("probe_seed").iterrows()}
    value = chosen.pop() if len(chosen) == 1 else "several"
    cells = " ".join(_percent(first, split) for split in ("train", "validation"))
    test = _of(last, "test", "accuracy")
    low, high = wilson_interval(float(test["value"].mean()), int(test["n_samples"].iloc[0]))
    width = int(one["probe_width"]) or "-"
    interval = f"[{100 * low:.2f}, {100 * high:.2f}]"
    line = f"{one['depth']:>5} {reads:<6} {width:>4} {value:>8} {cells}  {_percent(last, 'test')} {interval:<16}"
    found = _gain(last) if shows == "gain" else _teacher_gap(last)
    return f"{line} {found}{_warning(rows)}".rstrip()


def _knob(rows: pd.DataFrame) -> str:
    """Return the name of what was chosen for the probes of a table."""
    if "neighbors" in rows and rows["neighbors"].notna().any():
        return "k"
    return "lambda" if rows["lambda"].notna().any() else "rate"


def _chosen(one: pd.Series) -> str:
    """Return what was chosen for a probe; "5 cos" are five neighbours by cosine."""
    if pd.notna(one.get("neighbors")):
        return f"{one['neighbors']} {one['distance'][:3]}"
    chosen = one["lambda"] if pd.notna(one["lambda"]) else one["learning_rate"]
    return f"{chosen:.1e}" if pd.notna(chosen) else "-"


def _of(rows: pd.DataFrame, split: str, metric: str) -> pd.DataFrame:
    return rows[(rows["split"] == split) & (rows["metric"] == metric)]


def _percent(rows: pd.DataFrame, split: str) -> str:
    found = _of(rows, split, "accuracy")["value"]
    return f"{100 * found.mean():6.2f}" if len(found) else f"{'-':>6}"


def _gain(rows: pd.DataFrame) -> str:
    """Return the gain over the depth before, marked where Holm's test finds a rise or a fall in every probe seed."""
    gains, p = _of(rows, "test", "gain")["value"], _of(rows, "test", "gain_p_holm")["value"]
    if gains.empty:
        return ""
    mark = "*" if ((gains > 0).all() or (gains < 0).all()) and (p < SIGNIFICANT).all() else ""
    return f"{100 * gains.mean():+.2f}{mark}"


def _teacher_gap(rows: pd.DataFrame) -> str:
    found = _of(rows, "test", "teacher_gap")["value"]
    return f"{100 * found.mean():+.2f}" if len(found) else ""


def _warning(rows: pd.DataFrame) -> str:
    """Return the mark of a fit that is not to be trusted; a convex one and a CNN probe have different ones."""
    return " !" if (rows["converged"] == 0).any() else "x" if len(not_trained(rows)) else ""


def _notes(rows: pd.DataFrame) -> Iterator[str]:
    if (rows["metric"] == "teacher_gap").any():
        yield "gap: test accuracy on the classes minus that on the teacher's labels"
    elif (rows["metric"] == "gain").any():
        yield "* a change: exact McNemar test on the same images, Holm-adjusted p < 0.05"
    if (rows["converged"] == 0).any():
        yield "! NOT CONVERGED: the certificate in the rows is above its tolerance"
    if len(not_trained(rows)):
        yield "x NOT TRAINED: significantly below the linear probe of its depth, by that test"
    half = _of(rows, "test", HALF)
    if len(half):
        key = [*_KEY, "probe_seed", "refit"]
        change = _of(rows, "test", "accuracy").set_index(key)["value"] - half.set_index(key)["value"]
        yield f"from half of the {rows['iterations'].max()} epochs to all, test moves by {_largest(change)} at most"
    refitted = "refitted on train + validation" if (rows["refit"] == 1).any() else "fitted on the train fold"
    yield f"test: {refitted}; read {_reads(rows)} for these probes"
    seeds = rows["probe_seed"].nunique()
    if seeds > 1:
        test = _of(rows[rows["refit"] == rows["refit"].max()], "test", "accuracy")
        spread = 100 * test.groupby(_KEY)["value"].std().max()
        if set(rows[rows["refit"] == 0]["probe_seed"]) == {0}:
            yield "train, valid: seed 0, fitted on the train fold"
        what = "projections" if (rows["features"] != "native").any() else "probe seeds"
        yield f"means over {seeds} {what}, whose accuracies deviate by {spread:.2f} at most"


def _largest(change: pd.Series) -> str:
    return f"{100 * change[change.abs().idxmax()]:+.2f}"


def _reads(rows: pd.DataFrame) -> str:
    most = int(rows["test_reads"].max())
    return {1: "once", 2: "twice"}.get(most, f"{most} times")


def codelength_lines(rows: pd.DataFrame, title: str) -> Iterator[str]:
    """Yield the lines of a table of codelengths: a line for each depth, means where there are several orders."""
    yield f"{title}; bits of the labels"
    at = rows[rows["metric"].str.startswith("log_loss_bits@")]
    at = at.assign(size=at["metric"].str.partition("@")[2].astype(int))
    sizes = sorted(at["size"].unique())
    yield f"{'':21} test loss in bits after fitting so many images"
    yield f"{'depth':>5} {'reads':<6} {'bits':>8} " + " ".join(f"{size:>6}" for size in sizes)
    for (depth, pooling), own in rows.groupby(["depth", "pooling"], sort=False):
        bits = own.loc[own["metric"] == "codelength_bits", "value"].mean()
        losses = at[(at["depth"] == depth) & (at["pooling"] == pooling)].groupby("size")["value"].mean()
        cells = " ".join(f"{losses[size]:6.3f}" for size in sizes)
        unproved = " !" if (own["converged"] == 0).any() else ""
        yield f"{depth:>5} {_reads_of(int(pooling)):<6} {bits:8.0f} {cells}{unproved}"
    uniform = rows[rows["metric"] == "codelength_uniform_bits"].iloc[0]
    yield f"a uniform code takes {uniform['value']:.0f} bits for the {uniform['n_samples']} labels of the train fold"
    if (rows["converged"] == 0).any():
        yield "! NOT CONVERGED: the certificate in the rows is above its tolerance"
    if (orders := rows["probe_seed"].nunique()) > 1:
        yield f"means over {orders} orders of the images"


def beside_lines(found: Sequence[Beside], baseline: str) -> Iterator[str]:
    """Yield the lines of the table that puts a baseline run beside the run."""
    yield f"beside {baseline}: test accuracy in %, paired over the same images"
    seeds = len({one.name.probe_seed for one in found}) > 1
    head = f"{'depth':>5} {'reads':<6} {'M':>4} {'run':>7} {'baseline':>9} {'difference':>11}  {'95% interval':<16}"
    yield f"{head} probe{', seed' if seeds else ''}"
    for one in found:
        name = one.name
        cells = f"{100 * one.run:7.2f} {100 * one.baseline:9.2f} {100 * (one.run - one.baseline):+11.2f}"
        interval = f"[{100 * one.low:+.2f}, {100 * one.high:+.2f}]"
        place = f"{name.depth:>5} {_reads_of(name.pooling):<6} {name.probe_width or '-':>4}"
        yield f"{place} {cells}  {interval:<16} {name.probe}{f', {name.probe_seed}' if seeds else ''}"


def _reads_of(pooling: int) -> str:
    return f"{pooling}x{pooling}" if pooling else "whole"
