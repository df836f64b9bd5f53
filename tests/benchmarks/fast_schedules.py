"""The paper's networks by its own schedule and by the -fast recipes, at equal operations, narrow enough for a CPU.

    PYTHONPATH=. python3 -m tests.benchmarks.fast_schedules --data-dir DIR --out fast [--seeds 3] [--only 1,2,3]

DIR holds CIFAR-10 as train/CLASS and test/CLASS. M = M~ = 32, else as the recipes say. "fast" is cifar10-kK-fast;
"paper" is cifar10-kK with as many epochs a block as cost no more operations, its rate falling after the same shares
of them. Each side's rate is chosen alike: half, once and twice the recipe's, on a subset of 10,000 training images
and a validation fold of 5,000 by seed 0. Then both are trained on 45,000 images by every seed, and 5,000 are the
fold. OUT.csv gets the rows of each network as soon as it is trained, OUT.md the differences, paired by seed; given
again, the command goes on.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats

import layerwise
from layerwise.config import RunConfig
from layerwise.datasets import Sizes
from layerwise.recipes import recipe
from layerwise.settings import set_fields
from layerwise.training.operations import count_operations

WIDTH = {"network.width": 32, "network.aux_width": 32}
CIFAR10 = Sizes((3, 32, 32), 10, {"train": 45_000, "validation": 5_000, "test": 10_000})
SIDES = {"fast": "cifar10-k{}-fast", "paper": "cifar10-k{}"}
RATES = (0.5, 1.0, 2.0)
# Training images and fold for which rates are tried: a quarter of the time of all of them.
TRIED, TRIED_HOLDOUT = 15_000, 1 / 3


def side(k: int, name: str) -> RunConfig:
    """Return the configuration of one side: of "paper" with the epochs that the operations of "fast" pay for."""
    found = set_fields(recipe(SIDES[name].format(k)), WIDTH)
    if name == "fast":
        return found
    budget, cost = (sum(count_operations(one, CIFAR10).training) for one in (side(k, "fast"), found))
    epochs = int(found.training.epochs * budget / cost)
    every = max(1, round(epochs * found.training.lr_every / found.training.epochs))
    return set_fields(found, {"training.epochs": epochs, "training.lr_every": every})


def trained(config: RunConfig, data_dir: Path) -> list[dict[str, object]]:
    """Train one network and return a row for each depth."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run.h5"
        with layerwise.train(config=config, out=out, data_dir=data_dir, quiet=True) as run:
            seconds = round(time.perf_counter() - start)
            scores = {j: run.scores(j) for j in run.trained_depths}
    splits = ("train", "validation", "test")
    return [
        {"depth": j, "last": int(j == max(scores)), **{s: own[f"{s}_accuracy"] for s in splits}, "seconds": seconds}
        for j, own in scores.items()
    ]


def wanted(rows: pd.DataFrame, k: int, name: str, seeds: int) -> list[tuple[float, int, int]]:
    """Return (rate, seed, images) of all networks of a side: those tried first, then, their best known, the seeds."""
    tried = [(rate, 0, TRIED) for rate in RATES]
    if rows.empty:
        return tried
    own = rows[(rows["k"] == k) & (rows["side"] == name) & (rows["images"] == TRIED) & (rows["last"] == 1)]
    if len(own) < len(RATES):
        return tried
    best = float(own.loc[own["validation"].idxmax(), "rate"])
    return [*tried, *((best, seed, 50_000) for seed in range(seeds))]


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, of each k, both sides' means and "fast" above "paper" at the last depth, over the seeds that both have.

    Columns: k, split, seeds, fast and paper (means, %), points, low and high (95% t interval; nan of one seed).
    """
    found = []
    final = rows[(rows["images"] != TRIED) & (rows["last"] == 1)]
    for (k, split), sides in ((key, final[final["k"] == key[0]]) for key in _kinds(final)):
        wide = 100 * sides.pivot(index="seed", columns="side", values=split)
        if set(wide) != set(SIDES) or not len(wide := wide.dropna()):
            continue
        change = wide["fast"] - wide["paper"]
        low, high = stats.t.interval(0.95, len(wide) - 1, change.mean(), change.sem())
        means = {name: wide[name].mean() for name in SIDES}
        found.append({"k": k, "split": split, "seeds": len(wide), **means, "points": change.mean()})
        found[-1] |= {"low": low, "high": high}
    return pd.DataFrame(found)


def _kinds(final: pd.DataFrame) -> list[tuple[int, str]]:
    return [(k, split) for k in sorted(final["k"].unique()) for split in ("validation", "test")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("fast"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="3,2,1")
    given = parser.parse_args()
    table = given.out.with_suffix(".csv")
    rows: list[dict[str, Any]] = pd.read_csv(table).to_dict("records") if table.exists() else []  # type: ignore[assignment]
    pairs = [(int(k), name) for k in given.only.split(",") for name in SIDES]
    while todo := _next(pd.DataFrame(rows), pairs, given.seeds):
        k, name, rate, seed, images = todo
        own = side(k, name)
        data = {"data.dataset": "imagefolder", "data.label": "cifar10", "seed": seed}
        data |= {"data.subset": TRIED, "data.holdout": TRIED_HOLDOUT} if images == TRIED else {}
        config = set_fields(own, data | {"training.learning_rate": rate * own.training.learning_rate})
        about = {"k": k, "side": name, "rate": rate, "seed": seed, "images": images, "epochs": own.training.epochs}
        rows += [about | row for row in trained(config, given.data_dir)]
        frame = pd.DataFrame(rows)
        frame.to_csv(table, index=False, lineterminator="\n")
        text = differences(frame).to_csv(index=False, float_format="%.2f")
        given.out.with_suffix(".md").write_text(text, encoding="utf-8")
        print(about, f"{rows[-1]['validation']:.2%}", f"{rows[-1]['seconds']} s", flush=True)


def _next(rows: pd.DataFrame, pairs: list[tuple[int, str]], seeds: int) -> tuple[int, str, float, int, int] | None:
    """Return the next network: the tried rates of all first, then one seed of all after the other; None at the end."""
    have = set() if rows.empty else set(zip(*(rows[c] for c in ("k", "side", "rate", "seed", "images")), strict=True))
    left = [(k, name, *one) for k, name in pairs for one in wanted(rows, k, name, seeds)]
    left = [one for one in left if one not in have]
    return min(left, key=lambda one: (one[4] != TRIED, one[3]), default=None)


if __name__ == "__main__":
    main()
