"""Training curves: loss and accuracy of each auxiliary problem against its epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.failures import failure, only_trained, told
from analysis.seeds import images_variance, pooled
from analysis.separability import asked_in
from analysis.tables import without_predictions
from layerwise.errors import UserError

MEASURES = ("loss", "accuracy")
_NETWORK = ["width", "aux_width"]


def training_curves(runs: Sequence[Path], mode: str = "greedy", keep_failed: bool = False) -> pd.DataFrame:
    """Return loss and accuracy of each block's auxiliary problem at each of its epochs.

    Args:
        runs: run files, probed or not. mode: those of another mode of training are left out. keep_failed: average
            networks that did not train with the others.

    Returns:
        A row for each k, block, epoch (from 1), split (train or validation) and measure (loss, in nats, or accuracy, in
        [0, 1]): value, the mean over widths of the means over seeds; ci_low, ci_high (Student's t over seeds, pooled
        within widths; missing where no width has two seeds), n_runs, n_asked (with those that did not train, and are
        left out), left_out (of all k), did_not_train (of those averaged here: alone in their line, or kept), n_seeds,
        widths, learning_rate (the last of the epoch), schedule (of the rate), mode, dataset, finetuning (the epoch from
        which the auxiliary is trained on above its pruned block; missing without pruning). Accuracy on the train fold
        is that while training, on augmented images.

    Raises:
        UserError: if no run of that mode has a history, or the runs differ in data or in their number of epochs.
    """
    tables = [table for path in without_predictions(runs) if (table := _history(path)) is not None]
    own = [table for table in tables if table["mode"].iloc[0] == mode]
    if not own:
        raise UserError(
            f"none of the {len(runs)} runs was trained by mode {mode} here, so there is no training to draw. "
            f"`layerwise-train --mode {mode}` makes one."
        )
    history = only_trained(pd.concat(own, ignore_index=True), ["k"], keep_failed)
    for column, what in (("dataset", "data sets"), ("epochs", "numbers of epochs"), ("variant", "networks")):
        if history[column].nunique() > 1:
            some = "; ".join(f"{value} ({run})" for value, run in history.groupby(column)["run"].first().items())
            raise UserError(f"the runs are of different {what}: {some}. Draw a figure for each.")
    points = [
        _point(group.dropna(subset="value"), dict(zip(("k", "block", "epoch", "split", "measure"), key, strict=True)))
        for key, group in history.groupby(["k", "block", "epoch", "split", "measure"])
        if group["value"].notna().any()
    ]
    return pd.DataFrame(points)


def _history(path: Path) -> pd.DataFrame | None:
    """Return the history of a run in long form; None for a run without training."""
    from layerwise.runfile import RunFile

    with RunFile(path) as run:
        config, history, dataset = run.config, run.history(), run.dataset["name"]
        counts = {split: len(run.labels(split)) for split in run.splits}
        failed = failure(run)
    if config is None or history is None:
        return None
    table = pd.DataFrame(history)
    table["epoch"] += 1
    parts = [
        table[["block", "epoch", "learning_rate"]].assign(
            split=split,
            measure=measure,
            value=table[f"{split}_{measure}"],
            images=images_variance(table[f"{split}_accuracy"], counts.get(split, 0)) if measure == "accuracy" else 0.0,
        )
        for split in ("train", "validation")
        for measure in MEASURES
    ]
    net = config.network
    return pd.concat(parts).assign(
        run=str(path), failed=failed, mode=config.mode, k=net.k, width=net.width, aux_width=net.aux_width,
        seed=config.seed, epochs=int(table["epoch"].max()), dataset=dataset, variant=net.variant or "plain",
        schedule=config.training.schedule,
        finetuning=config.training.epochs + 1 if net.prune_to else math.nan,
    )  # fmt: skip


def _point(rows: pd.DataFrame, key: dict[str, object]) -> dict[str, object]:
    cells = rows.groupby(_NETWORK)
    found = pooled(*([list(cell) for _, cell in cells[column]] for column in ("value", "images")))
    mean, half = found.mean, found.half_width()
    first = rows.iloc[0]
    most = 1.0 if key["measure"] == "accuracy" else None
    return {
        **key,
        # Neither is below 0, nor accuracy above 1; np.clip leaves a missing end missing.
        **{
            "value": mean,
            "ci_low": float(np.clip(mean - half, 0, None)),
            "ci_high": float(np.clip(mean + half, 0, most)),
        },
        **{"n_runs": len(rows), "n_seeds": rows["seed"].nunique(), "n_asked": asked_in(rows)},
        "widths": ", ".join(map(str, sorted(set(rows["width"])))),
        **first[["learning_rate", "schedule", "mode", "dataset", "finetuning"]].to_dict(),
        **told(rows),
    }
