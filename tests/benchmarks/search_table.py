"""The search for `cifar10-best` as a table: what each run tried, what it gave on the validation fold, what it cost.

    PYTHONPATH=. python3 -m tests.benchmarks.search_table A.h5 B.h5 --out docs/results/search.csv

Each run was trained by `layerwise-train cifar10-best --data-dir DIR` with some fields changed, under the usual fold of
5,000 images. A row for each run and depth; `changed` says in which fields its configuration differs from the recipe.
Test accuracies are not read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from layerwise.config import RunConfig
from layerwise.datasets import Sizes
from layerwise.recipes import recipe
from layerwise.runfile import RunFile
from layerwise.settings import SETTINGS
from layerwise.training.operations import count_operations

# Fields that say nothing of the network or its training, or are of another schedule. Epochs have a column.
_ASIDE = (
    "recipe", "seed", "store", "dtype", "precision", "match", "tuned", "mirrored", "training.prefix",
    "training.epochs", "training.block_epochs", "training.lr_every",
)  # fmt: skip


def value(config: RunConfig, path: str) -> object:
    """Return a field of the configuration by its dotted path."""
    found: object = config
    for name in path.split("."):
        found = getattr(found, name)
    return found


def changed(config: RunConfig, recipe_name: str) -> str:
    """Return the fields in which a configuration differs from a recipe: "network.width=64; training.cutout=4"."""
    usual = recipe(recipe_name)
    paths = [path for path in SETTINGS if not path.startswith("data.") and path not in _ASIDE]
    return "; ".join(f"{p}={value(config, p)}" for p in paths if value(config, p) != value(usual, p))


def rows(path: Path, recipe_name: str) -> list[dict[str, object]]:
    """Return a row for each trained depth of a run."""
    with RunFile(path) as run:
        config, history, seconds = run.config, run.history(), run.epoch_seconds()
        if config is None or history is None or seconds is None or "validation" not in run.splits:
            raise SystemExit(f"{path} is no run that was trained beside a validation fold")
        counts = {split: len(run.labels(split)) for split in run.splits}
        sizes = Sizes(run.depth_shape(0), len(run.dataset["classes"]), counts)
        operations = count_operations(config, sizes).training
        return [
            {
                "run": path.stem,
                "changed": changed(config, recipe_name),
                "seed": config.seed,
                "depth": j,
                "epochs": config.epochs_of(j),
                "train": run.scores(j)["train_accuracy"],
                "validation": run.scores(j)["validation_accuracy"],
                "seconds": round(float(seconds[history["block"] == j].sum())),
                "operations": f"{operations[j - 1]:.2e}",
            }
            for j in run.trained_depths
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="cifar10-best")
    given = parser.parse_args()
    table = pd.DataFrame([row for path in given.runs for row in rows(path, given.recipe)])
    table.to_csv(given.out, index=False, float_format="%.4f", lineterminator="\n")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
