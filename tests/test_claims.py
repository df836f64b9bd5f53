"""Sentences of README and docs that state a result: each is made again from the rows of its study, and compared.

docs/results/NAME.csv is tables/rows.csv of a study; docs/results.md says by which command. A claim is a sentence with
places for numbers, and the function that computes them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pandas as pd
import pytest
from scipy import stats

from analysis.attribution import attribution
from analysis.contrasts import contrasts
from analysis.seeds import images_variance, pooled
from analysis.separability import curves
from probes.csvfile import read_csv
from probes.results.columns import DIGEST, SCHEMA, dtypes
from probes.results.intervals import wilson_interval

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"


@cache
def rows(study: str) -> pd.DataFrame:
    """Return the rows of a study, as `analysis.tables.read` returns them."""
    own = read_csv(RESULTS / f"{study}.csv", dtypes(SCHEMA) | {"run": "str"})
    lacking = {column.name for column in SCHEMA} - {DIGEST, *own.columns}
    assert not lacking, f"docs/results/{study}.csv is of an earlier version, without {lacking}: make it again"
    return own


@cache
def of_networks(study: str) -> pd.DataFrame:
    own = rows(study)
    return own[own["activation"] != "none"]


@cache
def compared(study: str) -> pd.DataFrame:
    return contrasts(of_networks(study)).set_index(["probe", "quantity", "first", "second"])


@cache
def points(study: str, probe: str) -> pd.DataFrame:
    return curves(of_networks(study), [probe]).set_index(["mode", "k", "depth"])


def accuracy(study: str, mode: str, k: int, depth: int, probe: str = "linear") -> str:
    """Return "86.8% (86.0 to 87.6)": the mean over seeds of a point of the curve with its interval."""
    one = points(study, probe).loc[(mode, k, depth)]
    return f"{one['accuracy']:.1%} ({100 * one['ci_low']:.1f} to {100 * one['ci_high']:.1f})"


class Lead(NamedTuple):
    """By how much one line is above another: points, their 95% interval, p of no difference by Holm."""

    points: float
    low: float
    high: float
    p_holm: float

    @property
    def cell(self) -> str:
        """Return "2.3 (1.0 to 3.7; 0.073)": points, interval, p by Holm; in bold where that is below SHOWN."""
        text = f"{self.points:.1f} ({self.low:.1f} to {self.high:.1f}; {p_value(self.p_holm)})"
        return f"**{text}**" if self.p_holm < SHOWN else text


def lead(study: str, quantity: str, above: str, below: str, probe: str = "linear") -> Lead:
    """Return by how much one line is above another."""
    found, sign = compared(study), -1
    if (probe, quantity, above, below) not in found.index:
        above, below, sign = below, above, 1
    one = found.loc[(probe, quantity, above, below)]
    low, high = sorted((sign * 100 * one["ci_low"], sign * 100 * one["ci_high"]))
    return Lead(sign * 100 * one["difference"], low, high, one["p_holm"])


def p_value(p: float) -> str:
    return f"{p:.2g}" if p >= 0.001 else f"{p:.1g}"


def levels() -> str:
    of = {mode: [accuracy("smoke", mode, k, 3) for k in (1, 2, 3)] for mode in ("greedy", "end-to-end")}
    listed = {mode: f"{', '.join(found[:2])} and {found[2]}" for mode, found in of.items()}
    pixels = points("smoke", "linear").iloc[0]
    over_images = f"{100 * pixels['pixels_low']:.1f} to {100 * pixels['pixels_high']:.1f}, over images"
    return (
        f"At depth 3 a linear probe reads, for k = 1, 2 and 3, {listed['greedy']} after greedy training, "
        f"{listed['end-to-end']} after end-to-end training, {untrained('relu')} of the four kinds of untrained "
        f"networks with relu, {untrained('none')} of those without, and {pixels['pixels']:.1%} ({over_images}) of the "
        f"raw pixels"
    )


def untrained(activation: str) -> str:
    """Return "86.3 to 90.0%": the means of the kinds of untrained networks at depth 3, with relu or without."""
    own = rows("smoke")
    own = own[own["mode"].str.startswith("untrained") & own["activation"].eq(activation) & own["features"].eq("native")]
    own = own[own["probe"].eq("linear") & own["depth"].eq(3) & own["metric"].eq("accuracy")]
    means = 100 * own.groupby(["initialisation", "batch_norm"])["value"].mean()
    return f"{means.min():.1f} to {means.max():.1f}%"


# Contrasts that are stated, the same for each side: (first line, second line) above which it is, at k = 2 and at 3.
PAIRS = {
    "greedy over untrained": ("greedy, k = {k}", "untrained, k = 2"),
    "end-to-end over untrained": ("end-to-end, k = {k}", "untrained, k = 2"),
    "end-to-end over greedy": ("end-to-end, k = {k}", "greedy, k = {k}"),
    "greedy, k = 3 over k = 2": ("greedy, k = 3", "greedy, k = 2"),
    "end-to-end, k = 3 over k = 2": ("end-to-end, k = 3", "end-to-end, k = 2"),
}
SHOWN = 0.05  # of p by Holm, below which a contrast is set in bold


def table(quantity: str) -> str:
    """Return the rows of a table of contrasts in Markdown: by the linear and the CNN-1 probe, at k = 2 and 3."""
    found = []
    for name, (above, below) in PAIRS.items():
        both = "{k}" in above
        of = [(probe, k) for probe in ("linear", "cnn-1") for k in ((2, 3) if both else (3,))]
        cells = [lead("smoke", quantity, above.format(k=k), below.format(k=k), probe).cell for probe, k in of]
        found.append(f"| {name} | " + " | ".join(cells if both else ["", cells[0], "", cells[1]]) + " |")
    return " ".join(found)


def levels_table() -> str:
    return table("final level")


def slopes_table() -> str:
    return table("slope")


def beside_untrained() -> str:
    """Say which untrained networks the contrasts take, and what the best kind of them reads."""
    own = accuracy("smoke", "untrained", 2, 3).partition(" ")[0]
    best = max(float(text.rstrip("%").rpartition(" ")[2]) for text in map(untrained, ("relu", "none")))
    return f"(PyTorch's, with BatchNorm and relu: {own} at depth 3; the best of the eight kinds reads {best}%)"


def own_classifiers() -> str:
    def of(probe: str) -> pd.Series:
        own = rows("smoke")
        own = own[own["probe"].eq(probe) & own["depth"].eq(3) & own["metric"].eq("accuracy") & own["split"].eq("test")]
        return 100 * own.set_index(["mode", "k", "seed"])["value"].sort_index()

    own, joined = of("auxiliary"), of("ensemble")
    greedy, whole = (f"{own[mode, 2].mean():.1f} and {own[mode, 3].mean():.1f}%" for mode in ("greedy", "end-to-end"))
    ensembles = f"{joined['greedy', 2].mean():.1f} and {joined['greedy', 3].mean():.1f}%"

    def leads(other: pd.Series) -> str:
        found = []
        for k in (2, 3):
            change = own["end-to-end", k] - other["greedy", k]
            low, high = stats.t.interval(0.95, len(change) - 1, change.mean(), change.sem())
            p = stats.ttest_1samp(change, 0.0).pvalue
            found.append(f"{change.mean():.1f} ({low:.1f} to {high:.1f}; {p_value(p)})")
        return " and ".join(found)

    return (
        f"last classifiers of the networks' own, which are no probes, reach {greedy} after greedy (their ensembles "
        f"{ensembles}) and {whole} after end-to-end training at k = 2 and 3: {leads(own)} points more than greedy "
        f"ones, {leads(joined)} more than their ensembles, by Student's t, not adjusted, in no family of the tables"
    )


def falls() -> str:
    """Return the share of each final lead over untrained networks that is the fall of these, in words."""
    linear = points("smoke", "linear")["accuracy"]
    fall = linear.loc[("untrained", 2, 1)] - linear.loc[("untrained", 2, 3)]

    def shares(mode: str) -> str:
        of = [fall / (linear.loc[(mode, k, 3)] - linear.loc[("untrained", 2, 3)]) for k in (2, 3)]
        return f"{of[0]:.0%} and {of[1]:.0%}"

    return (
        f"by the linear probe the fall of untrained networks is {shares('greedy')} of the final lead of "
        f"greedy networks at k = 2 and 3, "
        f"and {shares('end-to-end')} of that of end-to-end ones"
    )


def changes() -> str:
    def rises(probe: str) -> list[str]:
        of = points("smoke", probe)["accuracy"]
        lines = [("untrained", 2), ("greedy", 2), ("greedy", 3), ("end-to-end", 2), ("end-to-end", 3)]
        return [f"{100 * (of.loc[(mode, k, 3)] - of.loc[(mode, k, 1)]):+.1f}" for mode, k in lines]

    start, greedy_2, greedy_3, whole_2, whole_3 = rises("linear")
    cnn = rises("cnn-1")
    return (
        f"By the linear probe the accuracy of these untrained networks changes from depth 1 to 3 by {start} points, "
        f"that of greedy ones by {greedy_2} and {greedy_3} at k = 2 and 3, that of end-to-end ones by {whole_2} and "
        f"{whole_3}; by CNN-1 by {cnn[0]}; {cnn[1]} and {cnn[2]}; {cnn[3]} and {cnn[4]}"
    )


def by_seeds_alone() -> str:
    """Name the cells of the tables that would be in bold without the images' share, with what they would be."""

    def cells() -> dict[str, Lead]:
        found = {}
        for quantity in ("final level", "slope"):
            for name, (above, below) in PAIRS.items():
                for probe in ("linear", "cnn-1"):
                    for k in (2, 3):
                        one = lead("smoke", quantity, above.format(k=k), below.format(k=k), probe)
                        found[f"{name} by {probe} at k = {k}, {quantity}"] = one
        return found

    usual = cells()
    compared.cache_clear()
    with mock.patch("analysis.seeds.IMAGES_SHARE", 0.0):
        alone = cells()
    compared.cache_clear()
    (name,) = [name for name, one in usual.items() if one.p_holm >= SHOWN > alone[name].p_holm]
    assert name == "end-to-end over greedy by cnn-1 at k = 3, final level"
    return (
        f"That decides one cell: by Student's t alone end-to-end over greedy by CNN-1 at k = 3 would be "
        f"{alone[name].cell.strip('*')}, and bold"
    )


def not_trained() -> str:
    """Count the networks of depth 3 that the CNN-1 probe marks as not trained."""
    own = points("smoke", "cnn-1")["not_trained"].xs(3, level="depth")
    counts = {line: len(files.split(", ")) if files else 0 for line, files in own.items()}

    def told(mode: str) -> str:
        return ", ".join(f"{counts[mode, k]} of k = {k}" for k in (1, 2, 3) if counts[mode, k])

    others = sum(n for (mode, _), n in counts.items() if mode.startswith("untrained"))
    return (
        f"at depth 3 greedy networks ({told('greedy')}), end-to-end ones ({told('end-to-end')}) and {others} untrained "
        f"are marked as not trained by this probe"
    )


def at_k_1() -> str:
    of = {what: lead("smoke", "final level", *pair) for what, pair in _K_1.items()}
    worst = rows("smoke")
    worst = worst[worst["probe"].eq("linear") & worst["depth"].eq(3) & worst["metric"].eq("accuracy")]
    worst = worst[worst["mode"].eq("greedy") & worst["k"].eq(1) & worst["features"].eq("native")]
    one = of["modes"]
    assert all(found.p_holm >= SHOWN for found in of.values())
    return (
        f"At k = 1, which has no BatchNorm, nothing is shown: end-to-end over greedy is {one.cell}, since single "
        f"greedy networks train badly ({worst['value'].min():.1%} the worst)"
    )


_K_1 = {
    "modes": ("end-to-end, k = 1", "greedy, k = 1"),
    "greedy": ("greedy, k = 1", "untrained, kaiming, k = 1"),
    "end-to-end": ("end-to-end, k = 1", "untrained, kaiming, k = 1"),
}


def by_epochs() -> str:
    """Say how a lead by CNN-1 moves from half of the epochs, which is one here, to all."""
    own = rows("smoke")
    own = own[own["probe"].eq("cnn-1") & own["depth"].eq(3) & own["k"].eq(2) & own["split"].eq("test")]
    means = 100 * own.groupby(["metric", "mode"])["value"].mean()
    half, whole = (means[name, "end-to-end"] - means[name, "greedy"] for name in ("accuracy_half", "accuracy"))
    return f"end-to-end over greedy at k = 2 is {half:.1f} points after one of them and {whole:.1f} after both"


def early_gains() -> str:
    own = compared("smoke").reset_index().query("quantity == 'early gain'").sort_values("p_holm")
    least = own.iloc[0]
    assert (least["probe"], least["first"], least["second"]) == ("cnn-1", "end-to-end, k = 1", "end-to-end, k = 2")
    compared.cache_clear()
    with mock.patch("analysis.seeds.IMAGES_SHARE", 0.0):
        found = compared("smoke").reset_index().query("quantity == 'early gain' and p_holm < @SHOWN")
        assert len(found) == 1
        alone = lead("smoke", "early gain", "end-to-end, k = 2", "end-to-end, k = 3", "cnn-1").cell.strip("*")
    compared.cache_clear()
    return (
        f"No early gain is shown (smallest p {p_value(least['p_holm'])}, end-to-end, k = 2 over k = 1, CNN-1; by "
        f"Student's t alone end-to-end, k = 2 over k = 3, CNN-1 would be {alone})"
    )


def without_batch_norm() -> str:
    start = next(mode for mode, k, _ in points("smoke", "linear").index if mode == "untrained, kaiming" and k == 1)
    of = {mode: accuracy("smoke", mode, 1, 3) for mode in ("greedy", "end-to-end", start)}
    return (
        f"greedy networks read {of['greedy']}, end-to-end ones {of['end-to-end']}, untrained ones of the same "
        f"initialisation {of[start]}"
    )


def parts() -> str:
    found = attribution(rows("smoke")).assign(points=lambda table: 100 * table["value"])

    def span(part: str, where: pd.Series | None = None) -> str:
        own = found[(found["part"] == part) & (True if where is None else where)]["points"]
        low, high = (f"{end:.0f}" for end in (own.min(), own.max()))
        return low if low == high else f"{low} to {high}"

    def at_one(part: str) -> str:
        one = found[(found["part"] == part) & (found["k"] == 1)]["points"]
        return f"{one.iloc[0]:.0f}, {one.iloc[1]:.0f} and {one.iloc[2]:.0f}"

    trained = found["k"] > 1
    late = found[(found["k"] == 1) & (found["depth"] > 1) & found["part"].isin(["training", "left"])]
    wide = 100 * (late["ci_high"] - late["ci_low"])
    widths = f"{wide.min():.0f} to {wide.max():.0f}"
    return (
        f"width of random linear features adds {span('width')} points, pooling {span('pooling')}, "
        f"relu {span('relu', found['depth'] == 1)} at depth 1 and {span('relu', found['depth'] == 3)} at depth 3; "
        f"greedy training adds {span('training', trained)} points at k = 2 and 3, and end-to-end training "
        f"{span('left', trained)} to that; at k = 1 greedy training changes it by {at_one('training')} points, and "
        f"end-to-end training that by {at_one('left')} points, at depths 2 and 3 with intervals {widths} points wide"
    )


RESNETS = {"r20.h5": 3, "r32.h5": 5, "r44.h5": 7, "r56.h5": 9}  # blocks of a stage


def published_networks() -> str:
    """Return the table of the published networks, but for their own classifiers, which the rows do not have."""
    table = rows("resnets")
    own = table.set_index(["run", "module", "pooling"])["value"]

    def at(module: str, pooling: int = 2) -> list[str]:
        return [f"{100 * own[run, module.format(last=blocks - 1), pooling]:.2f}" for run, blocks in RESNETS.items()]

    def first_above(percent: int) -> list[str]:
        blocks = table[(table["pooling"] == 2) & (100 * table["value"] > percent)].sort_values("depth")
        return [blocks[blocks["run"] == run].iloc[0]["module"].removeprefix("layer") for run in RESNETS]

    lines = {
        "pooled input, raw pixels": [", ".join(both) for both in zip(at("input"), at("input", 0), strict=True)],
        "first convolution, after BatchNorm": at("bn1"),
        **{f"last block of stage {i}": at(f"layer{i}.{{last}}") for i in (1, 2, 3)},
        "first block above 50, 70, 90%": [
            ", ".join(cells) for cells in zip(*map(first_above, (50, 70, 90)), strict=True)
        ],
    }
    return " ".join(f"| {name} | {' | '.join(cells)} |" for name, cells in lines.items())


def published_steps() -> str:
    """Name the largest step from a block to the next of each published network."""
    table = rows("resnets")
    pooled = table[table["pooling"] == 2].sort_values(["run", "depth"])
    steps = pooled.assign(step=100 * pooled.groupby("run")["value"].diff()).query("depth > 1")
    top = steps.loc[steps.groupby("run")["step"].idxmax()].set_index("run")
    return ", ".join(f"{top['step'][run]:.1f} points at {top['module'][run].removeprefix('layer')}" for run in RESNETS)


def best_probes() -> str:
    own = rows("resnets").query("run == 'best.h5' and pooling == 2 and depth > 0").sort_values("depth")["value"]
    cells = [f"{100 * value:.2f}" for value in own]
    return f"{', '.join(cells[:-1])} and {cells[-1]}%"


def best_seeds() -> str:
    """Return the table of seeds of cifar10-best."""
    lines = []
    for seed, own in pd.read_csv(RESULTS / "best.csv").groupby("seed"):
        early, last = (one for _, one in own.sort_values("depth").iterrows())
        low, high = wilson_interval(last["test"], 10_000)
        lines.append(
            f"| {seed} | {100 * early['test']:.2f} | {100 * last['test']:.2f} | {100 * low:.2f} to {100 * high:.2f} | "
            f"{100 * last['mirrored']:.2f} | {early['seconds']} + {last['seconds']} |"
        )
    return " ".join(lines)


def best_mean(split: str = "test", depth: int = 3) -> str:
    """Return the mean over seeds of cifar10-best, with its interval."""
    own = pd.read_csv(RESULTS / "best.csv").query("depth == @depth")[split].tolist()
    found = pooled([own], [images_variance(own, 10_000)])
    mean, half = 100 * found.mean, 100 * found.half_width()
    return f"{mean:.2f}% ({mean - half:.2f} to {mean + half:.2f})"


def best_means() -> str:
    first, last, mirrored = best_mean(depth=2), best_mean(), best_mean("mirrored")
    return f"{first} at depth 2, {last} at depth 3, and {mirrored} there"


@cache
def disagreement() -> pd.DataFrame:
    return pd.read_csv(RESULTS / "disagreement.csv")


def disagreement_tables() -> str:
    """Return for each source of votes the lines of networks: accuracies with intervals at some of the depths."""
    found = []
    for source in ("CIFAR-10H", "CIFAR-10N"):
        for network, depths in DISAGREEMENT_DEPTHS.items():
            own = disagreement().query("source == @source and network == @network").set_index("depth")
            cells = [
                f"{100 * own['accuracy'][j]:.1f} ({100 * own['low'][j]:.1f} to {100 * own['high'][j]:.1f})"
                for j in depths
            ]
            found.append(f"| {source} | {network} | {' | '.join(cells)} |")
    return " ".join(found)


# The input, the depths where two thirds are still to come and one third is, and the last.
DISAGREEMENT_DEPTHS = {"ResNet-20": (0, 4, 7, 10), "ResNet-56": (0, 10, 19, 28), "greedy, k = 4": (0, 1, 2, 3)}


def disagreement_from() -> str:
    """Say from which depth on a probe is above what the class of an image alone says, by its interval."""

    def first(source: str, network: str) -> str:
        own = disagreement().query("source == @source and network == @network").sort_values("depth")
        above = own["low"] > own["class_alone"]
        start = len(own) - int(above[::-1].cumprod().sum())
        return own.iloc[start]["module"] if start < len(own) else "none"

    of = {s: [first(s, network) for network in DISAGREEMENT_DEPTHS] for s in ("CIFAR-10H", "CIFAR-10N")}
    return (
        f"{', '.join(of['CIFAR-10H'][:2])} and {of['CIFAR-10H'][2]} for the votes of CIFAR-10H, and "
        f"{', '.join(of['CIFAR-10N'][:2])} and {of['CIFAR-10N'][2]} for those of CIFAR-10N"
    )


def class_alone() -> str:
    alone = disagreement().groupby("source")["class_alone"].first()
    return f"{alone['CIFAR-10H']:.1%} and {alone['CIFAR-10N']:.1%}"


def search() -> str:
    own = pd.read_csv(RESULTS / "search.csv")
    lines = [
        f"| {row.run} | {row.depth} | {100 * row.train:.1f} | {100 * row.validation:.1f} | {row.seconds} |"
        for row in own.itertuples()
    ]
    return " ".join(lines)


def accuracy_row(study: str, run: str, probe: str, depth: int, pooling: int, refit: int = 1) -> pd.Series:
    """Return the row of a test accuracy."""
    own = rows(study).query("run == @run and probe == @probe and depth == @depth and pooling == @pooling")
    return own[(own["metric"] == "accuracy") & (own["split"] == "test") & (own["refit"] == refit)].iloc[0]


def digits() -> str:
    """Return the table of the demo: a cell for each probe, of k = 1, 2, 3."""

    def cell(probe: str, depth: int, pooling: int, refit: int = 1) -> str:
        found = [
            f"{100 * accuracy_row('digits', f'k{k}.h5', probe, depth, pooling, refit)['value']:.2f}" for k in (1, 2, 3)
        ]
        return f"{found[0]} for all" if depth == 0 and len(set(found)) == 1 else ", ".join(found)

    lines = [f"| 0, input | {cell('linear', 0, 2)} | {cell('cnn-1', 0, 0)} | |"]
    lines += [f"| 0, raw pixels | {cell('linear', 0, 0)} | | |"]
    for j in range(1, 5):
        lines.append(f"| {j} | {cell('linear', j, 2)} | {cell('cnn-1', j, 0)} | {cell('auxiliary', j, 0, 0)} |")
    return " ".join(lines)


def quickstart_training() -> str:
    return f"test accuracy {accuracy_row('digits', 'k2.h5', 'auxiliary', 4, 0, 0)['value']:.1%} at depth 4"


def quickstart_probes() -> str:
    last, pooled, pixels = (
        accuracy_row("digits", "k2.h5", "linear", depth, side) for depth, side in ((4, 2), (0, 2), (0, 0))
    )
    interval = f"{100 * last['ci_low']:.1f} to {100 * last['ci_high']:.1f}"
    return (
        f"{last['value']:.1%} at depth 4 ({interval}), {pooled['value']:.1%} on the pooled input, "
        f"{pixels['value']:.1%} on the raw pixels"
    )


def fashion() -> str:
    def line(name: str, depth: int, pooling: int) -> str:
        one = accuracy_row("fashion-mnist", "k2.h5", "linear", depth, pooling)
        own = [
            f"{100 * accuracy_row('fashion-mnist', 'k2.h5', probe, depth, 0, 0)['value']:.2f}" if depth else ""
            for probe in ("auxiliary", "ensemble")
        ]
        interval = f"{100 * one['ci_low']:.2f} to {100 * one['ci_high']:.2f}"
        return f"| {name} | {100 * one['value']:.2f} | {interval} | {own[0]} | {own[1]} |"

    lines = [line("0, pooled input", 0, 2), line("0, raw pixels", 0, 0)]
    return " ".join([*lines, *(line(str(j), j, 2) for j in range(1, 5))])


def norm_weight() -> str:
    own = pd.read_csv(RESULTS / "norm-weight.csv").set_index(["norm_weight", "depth"])["test"] * 100
    return " ".join(
        f"| {j} | " + " | ".join(f"{own[w, j].mean():.1f} ({own[w, j].std():.1f})" for w in ("ones", "uniform")) + " |"
        for j in range(1, 5)
    )


def norm_weight_differences() -> str:
    own = pd.read_csv(RESULTS / "norm-weight.csv").set_index(["norm_weight", "seed", "depth"])["test"] * 100
    change = (own["uniform"] - own["ones"]).unstack("depth")
    means, last = [f"{value:.1f}" for value in change.mean()], [f"{value:.1f}" for value in change[4]]
    return (
        f"within seeds, uniform weights give {', '.join(means[:3])} and {means[3]} points more, and at depth 4 those "
        f"are {last[0]}, {last[1]} and {last[2]}"
    )


@cache
def cnn_recipes() -> pd.DataFrame:
    """Return accuracies in % of each way to train a CNN probe: columns way, rate, epochs, probe, run, depth."""
    own = pd.read_csv(RESULTS / "cnn-recipes.csv")
    return own[["way", "rate", "epochs", "probe", "run", "depth", "train", "validation"]]


WAYS = {
    "one cycle": "AdamW, one cycle (protocol 2); for 6 epochs another training",
    "constant, averaged eta 8": "AdamW, constant rate, weights averaged by (s / t)^8",
    "schedule-free": "schedule-free AdamW",
}


@cache
def cnn_1_means() -> pd.DataFrame:
    """Return means over the two runs and two depths: index way, rate, epochs."""
    own = cnn_recipes().query("probe == 'cnn-1'")
    assert set(own.groupby(["way", "rate", "epochs"]).size()) == {4}
    return own.groupby(["way", "rate", "epochs"])[["train", "validation"]].mean()


def cnn_ways() -> str:
    """Return the table of ways to train a CNN-1 probe."""
    means, lines = cnn_1_means(), []
    for way, name in WAYS.items():
        for i, rate in enumerate(means.loc[way].index.unique("rate")):
            half, whole = (means["validation"][way, rate, epochs] for epochs in (6, 12))
            cells = [name if i == 0 else "", f"{rate:g}", f"{half:.1f}", f"{whole:.1f}"]
            lines.append(f"| {' | '.join(cells)} | {means['train'][way, rate, 12]:.1f} |".replace("|  |", "| |"))
    return " ".join(lines)


def averages_powers() -> str:
    best = cnn_1_means()["validation"].unstack("way").filter(like="eta").rename(columns=lambda way: way[-1])
    behind = (best.max(axis=1) - best["8"]).unstack("epochs")
    assert (behind[6].dropna() == 0).all()
    return f"8 is the best after 6 epochs at each rate, and within {behind[12].max():.2f} points of the best after 12"


def cnn_ways_at_best() -> str:
    best = cnn_1_means()["validation"].groupby(["way", "epochs"]).max()
    half, whole = ([f"{best[way, epochs]:.1f}" for way in WAYS] for epochs in (6, 12))
    return (
        f"At their best rates one cycle, the average and schedule-free reach {half[0]}, {half[1]} and {half[2]}% after "
        f"6 epochs, and {whole[0]}, {whole[1]} and {whole[2]}% after 12"
    )


def cnn_2_ways() -> str:
    own = cnn_recipes().query("probe == 'cnn-2' and epochs == 12").set_index(["way", "rate", "run"])["validation"]
    of = {rate: f"{own['schedule-free', rate, 'fashion']:.1f} and {own['schedule-free', rate, 'cifar']:.1f}"
          for rate in (0.003, 0.01, 0.03)}  # fmt: skip
    most = {way: [own[way].xs(run, level="run").max() for run in ("fashion", "cifar")] for way in WAYS}
    cycle, average = (f"{most[way][0]:.1f} and {most[way][1]:.1f}" for way in list(WAYS)[:2])
    return (
        f"schedule-free reaches {of[0.003]}% (rate 0.003), {of[0.01]} (0.01), {of[0.03]} (0.03), one cycle {cycle} and "
        f"the average {average} at the best rate of each"
    )


def cnn_second_half() -> str:
    own = cnn_1_means()["validation"]["schedule-free"]
    added = [f"{own[rate, 12] - own[rate, 6]:.1f}" for rate in (0.003, 0.01)]
    return f"in the table above the second half still adds {added[0]} and {added[1]} points at the two rates"


CLAIMS: dict[str, list[Callable[[], str]]] = {
    "README.md": [
        levels,
        beside_untrained,
        own_classifiers,
        levels_table,
        changes,
        by_seeds_alone,
        at_k_1,
        by_epochs,
        quickstart_training,
        quickstart_probes,
        best_mean,
    ],
    "docs/networks.md": [norm_weight, norm_weight_differences],
    "docs/protocol.md": [cnn_ways, cnn_ways_at_best, averages_powers, cnn_2_ways, cnn_second_half],
    "docs/disagreement.md": [disagreement_tables, disagreement_from, class_alone],
    "docs/results.md": [
        published_networks,
        published_steps,
        best_probes,
        best_seeds,
        best_means,
        search,
        digits,
        fashion,
    ],
    "docs/study.md": [
        levels,
        beside_untrained,
        own_classifiers,
        levels_table,
        slopes_table,
        changes,
        falls,
        by_seeds_alone,
        at_k_1,
        not_trained,
        early_gains,
        by_epochs,
        without_batch_norm,
        parts,
    ],
}


@pytest.mark.parametrize(("document", "claim"), [(name, claim) for name, own in CLAIMS.items() for claim in own])
def test_a_result_that_is_stated_is_that_of_its_table(document: str, claim: Callable[[], str]) -> None:
    text = " ".join((ROOT / document).read_text(encoding="utf-8").split())
    assert " ".join(claim().split()) in text


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.csv")), ids=lambda path: path.stem)
def test_every_table_of_results_is_named_by_what_it_is_and_used(path: Path) -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert f"results/{path.name}" in text
