"""Runs of one recipe by several seeds as a table: what each depth's auxiliary says of the test images, and its cost.

    PYTHONPATH=. python3 -m tests.benchmarks.seeds_table best-s0.h5 best-s1.h5 --out docs/results/best.csv

A row for each run and trained depth. `mirrored` is the accuracy with the mirror image averaged in, where it was scored.
Seconds are of training, without scoring and dump.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from layerwise.runfile import RunFile


def rows(path: Path) -> list[dict[str, object]]:
    """Return a row for each trained depth of a run."""
    with RunFile(path) as run:
        config, history, seconds = run.config, run.history(), run.epoch_seconds()
        if config is None or history is None or seconds is None:
            raise SystemExit(f"{path} is no run that was trained")
        return [
            {
                "recipe": config.recipe,
                "images": len(run.labels("train")),
                "seed": config.seed,
                "depth": j,
                "train": run.scores(j)["train_accuracy"],
                "test": run.scores(j)["test_accuracy"],
                "mirrored": run.scores(j).get("mirrored_test_accuracy", float("nan")),
                "seconds": round(float(seconds[history["block"] == j].sum())),
            }
            for j in run.trained_depths
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    table = pd.DataFrame([row for path in given.runs for row in rows(path)])
    table.to_csv(given.out, index=False, float_format="%.4f", lineterminator="\n")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
