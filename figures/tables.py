"""The tables of a paper: accuracies, trends, contrasts, differences, published numbers; which columns, which words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.accuracy import accuracies
from analysis.contrasts import BOUND, contrasts
from analysis.differences import differences
from analysis.geometry.decoding import EPSILON, decoding
from analysis.images.shifts import shifts
from analysis.published import NUMBERS
from analysis.tables import read
from analysis.trend import trends
from figures.accuracy_table import accuracy_table, or_dash, panel_name
from figures.kit.table import Table, latex, markdown
from figures.kit.words import IMAGES_SHARE, certified, who_trained
from probes.csvfile import write_csv


def _of(number: int, asked: int) -> str:
    return str(number) if number == asked else f"{number} of {asked}"


def trends_table(tests: pd.DataFrame) -> Table:
    """Return Page's tests, as `analysis.trend.trends` makes them."""
    tests = tests.assign(seeds=[_of(one.n_seeds, one.n_asked) for one in tests.itertuples()])
    return _plain(
        tests,
        {
            **_LINE_COLUMNS,
            "width": ("M", or_dash),
            "seeds": ("seeds", str),
            "n_depths": ("depths", str),
            "L": ("L", lambda value: "-" if pd.isna(value) else f"{value:g}"),
            "p": ("p", _p),
            "p_holm": ("p (Holm)", _p),
            "p_fall_holm": ("of a fall (Holm)", _p),
        },
        "Page's trend test: does accuracy rise with depth, from depth 1 on? Seeds are the blocks; one-sided p, of no "
        "rise, and of no fall; Holm over all rows, for each.",
        2,
        [*certified(tests), *who_trained(tests)],
        label="trends",
    )


def contrasts_table(found: pd.DataFrame, bound: float = BOUND) -> Table:
    """Return contrasts, as `analysis.contrasts.contrasts` makes them with that bound."""
    points = f"{100 * bound:g} point{'' if bound == BOUND else 's'}"
    found = found.assign(
        networks=[f"{_of(n.n_first, n.asked_first)}, {_of(n.n_second, n.asked_second)}" for n in found.itertuples()]
    )
    fewer = ((found["n_first"] < found["asked_first"]) | (found["n_second"] < found["asked_second"])).any()
    return _plain(
        found,
        {
            **_PANEL_COLUMNS,
            "quantity": ("quantity", str),
            "first": ("first line", str),
            "second": ("second line", str),
            **({"networks": ("networks", str)} if fewer else {}),
            "difference": ("points", _points),
            "ci": ("95% interval", str),
            "p": ("p", _p),
            "p_holm": ("p (Holm)", _p),
            "p_within_holm": (f"p, {points} or more (Holm)", _p),
        },
        "The second line minus the first, in percentage points: early gain (depth 2 minus depth 1), slope (points a "
        "depth, least squares) and final level (last depth); Student's t over seeds, and at least the images' share.",
        5 if fewer else 4,
        [
            *(["Networks: of the first line and of the second, those that are not left out."] if fewer else []),
            "p: of no difference. "
            f"p, {points} or more: of a difference of at least that, of slopes over all their depths; small where the "
            f"lines are shown to differ by less than {points}.",
            "Holm's family: all pairs and quantities of one probe that answer one question: what k changes, what the "
            "mode of training changes, what training changes against untrained networks.",
            "Networks of different k share epochs, not operations, and as in the paper those of k = 1 have no "
            "BatchNorm, so that k = 1 and that are one difference.",
            *(["-: not tested, for that takes two seeds or more of both lines."] if found["p"].isna().any() else []),
            IMAGES_SHARE,
            *certified(found),
            *who_trained(found),
        ],
        label="contrasts",
    )


def differences_table(found: pd.DataFrame, first: str, second: str) -> Table:
    """Return two runs beside each other, as `analysis.differences.differences` makes them."""
    return _plain(
        found,
        {
            **_PANEL_COLUMNS,
            "depth": ("depth", str),
            "first": ("first", _percent),
            "second": ("second", _percent),
            "difference": ("points", _points),
            "ci": ("95% interval", str),
            "p": ("p", _p),
            "p_holm": ("p (Holm)", _p),
        },
        f"Accuracy (%) of {second} minus that of {first} on the same {found['n_samples'].iloc[0]:,} test images: "
        "paired bootstrap, exact McNemar test, Holm over depths.",
        1,
        [*certified(found), *who_trained(found)],
        label="differences",
    )


def shifts_table(found: pd.DataFrame) -> Table:
    """Return what corruption costs, as `analysis.images.shifts.shifts` makes it: rows of sets, columns of depths."""
    depths, cells = sorted(set(found["depth"])), []
    for key, own in found.groupby(["run", "probe", "probe_width", "probe_seed", "pooling", "split"], sort=False):
        at = own.set_index("depth")
        name = [Path(key[0]).stem, panel_name(key[1], key[2], key[4]), str(key[3]), key[5]]
        cells.append(name + [_change(at.loc[depth]) if depth in at.index else "-" for depth in depths])
    is_one_seed = found["probe_seed"].nunique() == 1
    head = ["run", "probe", "probe seed", "images", *(f"j = {depth}" for depth in depths)]
    kept = [place for place in range(len(head)) if place != 2 or not is_one_seed]
    return Table(
        head=[head[place] for place in kept],
        rows=[[row[place] for place in kept] for row in cells],
        caption="Accuracy on corrupted test images minus that on the same images as they were, in percentage points, "
        "with the paired bootstrap's 95% interval over images.",
        notes=[
            "*: p < 0.05 by McNemar's exact test of each number alone; nothing is adjusted over depths and sets, whose "
            "images are the same. The spread over images, of each network as it is: another seed may differ more.",
            *certified(found),
        ],
        text=len(kept) - len(depths),
        label="shifts",
    )


def codelength_table(found: pd.DataFrame) -> Table:
    """Return how easily depths are decoded, as `analysis.geometry.decoding.decoding` makes it."""
    several = found["order"].nunique() > 1
    cells = [
        [
            Path(one["run"]).stem, _pooled(one["pooling"]), *([str(one["order"])] if several else []),
            str(one["depth"]),
            f"{one['bits']:.3f} [{one['ci_low']:.3f}, {one['ci_high']:.3f}]", f"{one['compression']:.2f}",
            f"> {one['n']:,}" if pd.isna(one["samples"]) else f"{one['samples']:,.0f}",
            f"{'' if one['reached'] else '> '}{one['surplus_bits']:,.0f}", f"{one['loss']:.3f}",
        ]
        for one in found.to_dict("records")
    ]  # fmt: skip
    epsilon, n = found["epsilon"].iloc[0], found["n"].max()
    order = ["order"] if several else []
    return Table(
        head=["run", "reads", *order, "depth", "bits a label", "compression", "images", "surplus bits", "loss"],
        rows=cells,
        caption=f"How easily linear probes decode the classes at each depth: codelength of the labels of {n:,} train "
        f"images, with its 95% interval over them, and what a loss of {epsilon:g} bits on the test split takes.",
        notes=[
            "compression: the uniform code over this one. images: the least of the eight sizes within that loss. "
            "surplus bits: what the labels cost beyond it, summed over images. >: not reached by the largest size, so "
            "that both are larger than that. loss: of the largest size, in bits, on the test split."
        ],
        text=3 + several,
        label="codelength",
    )


def _pooled(pooling: int) -> str:
    return f"{pooling}x{pooling}" if pooling else "all"


def _change(one: pd.Series) -> str:
    return f"{_signed(one['difference'])}{'*' * int(one['p'] < 0.05)} {_ends(one['ci_low'], one['ci_high'])}"


def published_table() -> Table:
    """Return all published numbers, with their sources."""
    rows = [
        [
            *(number.dataset, number.network, _number(number.top1), _number(number.ensemble)),
            *(_number(number.top5), _number(number.top5_ensemble), number.source),
        ]
        for number in NUMBERS
    ]
    head = ["data", "network", "top-1", "ensemble", "top-5", "ensemble top-5", "source"]
    notes = ["second hand: not read in the source itself; check before quoting."]
    return Table(head=head, rows=rows, caption="Published test accuracies (%).", notes=notes, text=2, label="published")


def _plain(
    table: pd.DataFrame,
    columns: dict[str, tuple[str, Callable[[Any], str]]],
    caption: str,
    text: int,
    notes: Sequence[str] = (),
    *,
    label: str,
) -> Table:
    if "ci_low" in table:
        table = table.assign(ci=[_ends(low, high) for low, high in zip(table["ci_low"], table["ci_high"], strict=True)])
    table = table.assign(
        panel=[panel_name(*row) for row in zip(table["probe"], table["probe_width"], table["pooling"], strict=True)]
    )
    rows = [[show(row[name]) for name, (_, show) in columns.items()] for row in table.to_dict("records")]
    return Table(
        head=[title for title, _ in columns.values()], rows=rows, caption=caption, notes=notes, text=text, label=label
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _points(value: float) -> str:
    return "-" if pd.isna(value) else _signed(value)


def _ends(low: float, high: float) -> str:
    return "-" if pd.isna(low) else f"[{_signed(low)}, {_signed(high)}]"


def _signed(value: float) -> str:
    """Return points with their sign; what rounds to zero is +0.00, whatever the rounding of sums left below it."""
    return f"{round(100 * value, 2) + 0.0:+.2f}"


def _p(value: float) -> str:
    if pd.isna(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


# A column of a table of numbers: its title, and how its numbers are written.
_PANEL_COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {"panel": ("probe", str)}
_LINE_COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    **_PANEL_COLUMNS,
    "mode": ("network", str),
    "k": ("k", or_dash),
}


def made(
    runs: Sequence[Path],
    what: str,
    split: str = "test",
    bound: float = BOUND,
    columns: str = "probe",
    *,
    probes: Sequence[str] | None = None,
    keep_failed: bool = False,
    epsilon: float = EPSILON,
) -> tuple[pd.DataFrame, Table]:
    """Return the numbers of a table, and the table as it is shown.

    what: accuracy, top5, trends, contrasts, differences (of two runs), shifts, codelength, or published (of none).
    bound: of contrasts. epsilon: of codelength. columns: of accuracy, see `accuracy_table`. probes: names; None takes
    those that the runs have. keep_failed: average networks that did not train with the others.
    """
    if what == "published":
        return pd.DataFrame([vars(number) for number in NUMBERS]), published_table()
    if what == "differences":
        first, second = runs
        found = differences(first, second, probes)
        return found, differences_table(found, *(run.name for run in runs))
    return of_rows(read(runs), what, split, bound, columns, probes=probes, keep_failed=keep_failed, epsilon=epsilon)


def of_rows(
    rows: pd.DataFrame,
    what: str,
    split: str = "test",
    bound: float = BOUND,
    columns: str = "probe",
    *,
    probes: Sequence[str] | None = None,
    keep_failed: bool = False,
    epsilon: float = EPSILON,
) -> tuple[pd.DataFrame, Table]:
    """Return the numbers and the table of any but differences and published, of rows that are read."""
    if what == "shifts":
        found = shifts(rows, probes)
        return found, shifts_table(found)
    if what == "codelength":
        found = decoding(rows, epsilon)
        return found, codelength_table(found)
    if what in ("accuracy", "top5"):
        found = accuracies(rows, probes, split, keep_failed, top5=what == "top5")
        return found, accuracy_table(found, columns)
    if what == "trends":
        found = trends(rows, probes, split, keep_failed)
        return found, trends_table(found)
    found = contrasts(rows, probes, split, bound, keep_failed)
    return found, contrasts_table(found, bound)


def rendered(data: pd.DataFrame, table: Table) -> dict[str, bytes]:
    """Return a table as the bytes of its three files."""
    csv = str(write_csv(data))
    return {".md": markdown(table).encode(), ".tex": latex(table).encode(), ".csv": csv.encode()}
