"""What each field of fast training gives: greedy networks that differ in it alone, scored on the validation fold.

    PYTHONPATH=. python3 -m tests.benchmarks.training_fields --data-dir DIR --out fields [--seeds 3] [--only NAMES]

DIR holds CIFAR-10 as train/CLASS and test/CLASS. 20,000 of its training images, 10,000 of them the validation fold,
M = M~ = 32, k = 2, J = 4, P before block 3, 8 epochs a block, batches of 128. Each field is set, alone, in "base":
linear schedule and Nesterov; "paper" has the paper's schedule and momentum. Those of another network are compared with
one of the same (`against`). OUT.csv gets a row for each network and depth as soon as it is trained, OUT.md what each
differs by, paired by seed; given again, the command goes on. Accuracies are of auxiliaries, on the fold; the test
split's are not read.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from scipy import stats

import layerwise


class Variant(NamedTuple):
    """Fields set in the base, and the variant that it is compared with."""

    fields: dict[str, Any]
    against: str = "base"


COMMON = {
    "data.dataset": "imagefolder", "data.label": "cifar10", "data.subset": 20_000, "data.holdout": 0.5,
    "training.schedule": "linear", "training.nesterov": True,
}  # fmt: skip
_PAIRED = {
    "network.architecture": "paired", "network.activation": "gelu", "network.downsample": (), "network.depth": 3,
    "network.k": 4, "network.width": 16, "network.aux_width": 64,
}  # fmt: skip
VARIANTS = {
    "base": Variant({}, ""),
    "paper": Variant({"training.schedule": "steps", "training.lr_every": 3, "training.nesterov": False}),
    "nesterov off": Variant({"training.nesterov": False}),
    "label_smoothing 0.1": Variant({"training.label_smoothing": 0.1}),
    "aux_halving": Variant({"network.aux_halving": True}),
    "alternating_flip": Variant({"training.alternating_flip": True}),
    "crop_fill reflect": Variant({"training.crop_fill": "reflect"}),
    "cutout 8": Variant({"training.cutout": 8}),
    "lookahead 0.95": Variant({"training.lookahead": 0.95}),
    "ema_decay 0.99": Variant({"training.ema_decay": 0.99}),
    "norm_bias_rate 64": Variant({"training.norm_bias_rate": 64.0}),
    "initialisation dirac": Variant({"network.initialisation": "dirac"}),
    "norm_weight fixed": Variant({"network.norm_weight": "fixed"}),
    "norm_momentum 0.4": Variant({"network.norm_momentum": 0.4}),
    "views 4": Variant({"training.views": 4}),
    "views 1": Variant({"training.views": 1}),
    "precision fp32": Variant({"precision": "fp32"}),
    "block_epochs 12,8,6,6": Variant({"training.block_epochs": (12, 8, 6, 6)}),
    "paired blocks": Variant(_PAIRED),
    "paired, dirac": Variant(_PAIRED | {"network.initialisation": "dirac"}, "paired blocks"),
    "paired, lookahead 0.95": Variant(_PAIRED | {"training.lookahead": 0.95}, "paired blocks"),
}


def trained(fields: dict[str, Any], seed: int, data_dir: Path, folder: Path) -> list[dict[str, object]]:
    """Train one network and return a row for each depth that was trained."""
    start = time.perf_counter()
    settings = {**COMMON, **fields, "seed": seed, "mirrored": True}
    with layerwise.train(
        "cifar10-small", out=folder / f"{seed}.h5", settings=settings, data_dir=data_dir, quiet=True
    ) as run:
        seconds = round(time.perf_counter() - start)
        scores = {j: run.scores(j) for j in run.trained_depths}
    return [
        {
            "depth": j,
            "last": int(j == max(scores)),
            "validation": found["validation_accuracy"],
            "train": found["train_accuracy"],
            "mirrored": found["mirrored_validation_accuracy"],
            "seconds": seconds,
        }
        for j, found in scores.items()
    ]


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, of each variant, points above what it is compared with at the last depth, over the seeds that both have.

    Columns: variant, against, seeds, validation (mean, %), points, low and high (95% t interval), seconds (ratio).
    """
    last = rows[rows["last"] == 1].set_index(["variant", "seed"])
    found = []
    for name, variant in VARIANTS.items():
        if name not in last.index.get_level_values(0):
            continue
        own = last.loc[name]
        row: dict[str, object] = {"variant": name, "against": variant.against, "seeds": len(own)}
        row["validation"] = 100 * own["validation"].mean()
        if variant.against in last.index.get_level_values(0):
            both = own.join(last.loc[variant.against].add_suffix("_other"), how="inner")
            change = 100 * (both["validation"] - both["validation_other"])
            low, high = stats.t.interval(0.95, len(both) - 1, change.mean(), change.sem())  # nan of one seed
            row |= {"points": change.mean(), "low": low, "high": high}
            row["seconds"] = both["seconds"].sum() / both["seconds_other"].sum()
        found.append(row)
    return pd.DataFrame(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("fields"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default=",".join(VARIANTS))
    given = parser.parse_args()
    table = given.out.with_suffix(".csv")
    rows = pd.read_csv(table).to_dict("records") if table.exists() else []
    for seed in range(given.seeds):
        for name in given.only.split(","):
            if any((row["variant"], row["seed"]) == (name, seed) for row in rows):
                continue
            with tempfile.TemporaryDirectory() as folder:
                own = trained(VARIANTS[name].fields, seed, given.data_dir, Path(folder))
            rows += [{"variant": name, "seed": seed, **row} for row in own]
            frame = pd.DataFrame(rows)
            frame.to_csv(table, index=False, lineterminator="\n")
            found = differences(frame)
            given.out.with_suffix(".md").write_text(found.to_csv(index=False, float_format="%.2f"), encoding="utf-8")
            print(found[found["variant"] == name].to_string(index=False, header=False), flush=True)


if __name__ == "__main__":
    main()
