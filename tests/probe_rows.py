"""Made-up probe results for the tests of analysis and figures, in the columns of a real x.probes.csv."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

KEY = [
    "run_id",
    "depth",
    "probe",
    "probe_width",
    "probe_seed",
    "control",
    "pooling",
    "features",
    "split",
    "metric",
]


def row(value: float, **fields: Any) -> dict[str, Any]:
    """Return one row: the accuracy `value`, with an interval of 0.01 to both sides unless told otherwise."""
    made = {
        **{
            "run_id": "r",
            "depth": 1,
            "probe": "linear",
            "probe_width": 0,
            "probe_seed": 0,
            "control": "none",
        },
        **{"pooling": 2, "features": "native", "split": "test", "metric": "accuracy", "refit": 1},
        **{"protocol_version": 1, "mode": "greedy", "k": 1, "width": 64, "aux_width": 0, "seed": 0},
        **{
            "dataset": "digits",
            "module": "blocks.0",
            "n_classes": 10,
            "n_train": 1000,
            "n_samples": 360,
            "chance": 0.1,
        },
        **{"value": value, "ci_low": value - 0.01, "ci_high": value + 0.01, "selection": "validation"},
        **{"iterations": 12, "experiment": "0a1b2c", "target": "class"},
        **{"channels": 64, "map_height": 8, "map_width": 8, "n_features": 256, "lambda": 1e-3, "C": 1.0},
        **{"learning_rate": None, "converged": 1, "certificate": 1e-6, "precision": "fp32", "seconds": 1.0},
        **{"software": "layerwise", "blocks": 4, "variant": "", "estimator": None},
        **{"initialisation": "default", "activation": "relu"},
    }
    # The paper's rule; a network built elsewhere does not say.
    batch_norm = None if fields.get("k", 1) is None else int(fields.get("k", 1) > 1)
    return made | {"batch_norm": batch_norm} | fields


def run_rows(
    values: list[float], probes: tuple[tuple[str, int], ...] = (("linear", 0),), **fields: Any
) -> list[dict[str, Any]]:
    """Return the rows of one run: a value for each depth from 0, alike for each probe (name, width)."""
    named = {"run_id": "-".join(str(fields.get(name, "")) for name in ("mode", "k", "width", "seed"))} | fields
    return [
        row(
            value,
            **{"depth": depth, "probe": probe, "probe_width": width, "pooling": 0 if width else 2} | named,
        )
        for probe, width in probes
        for depth, value in enumerate(values)
    ]


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return rows as `analysis.tables.read` would: the run's path is its run_id and `.h5`."""
    made = pd.DataFrame(rows)
    made = made.astype(
        dict.fromkeys(("k", "width", "aux_width", "seed", "iterations", "blocks", "batch_norm"), "Int64")
    )
    return made.assign(run=made["run_id"] + ".h5")


def write_run(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    """Write `name`.probes.csv into `folder` and return the path of the run file beside it, not made here."""
    pd.DataFrame(rows).to_csv(folder / f"{name}.probes.csv", index=False)
    return folder / f"{name}.h5"
