"""Probes of a run evaluated on images that are no part of it: frozen network, frozen probes, rows of their own split.

What is evaluated is the last fit of each probe, the one to quote. Fits that this process made are used as they are.
Fitted weights are kept in no file: a probe that stands in the table is fitted again by the same protocol, on the same
images, with what was chosen, and must then say of the images it was fitted to what its rows say. No test split is read.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from layerwise import ranks
from layerwise.commandline import if_stopped, progress
from layerwise.datasets.shown import ShownFolder, ShownImages, find_shown, read_shown, require_form
from layerwise.errors import UsageError, UserError
from probes.names import CODELENGTH
from probes.probe import Family, ProbeName
from probes.protocol import Fit, choose_and_refit, show
from probes.results.table import read_rows, rows_of, save_shown, table_path
from probes.shown.run import ShownRun
from probes.shown.shift import index_of, with_shifts
from probes.tasks.task import NO_CONTROL, Task

log = logging.getLogger("layerwise.probes")

# A certified fit from another start, or products summed in another order, move single images; another fit moves more.
SAME_ACCURACY, SAME_LOSS = 0.002, 0.01


def require_plain(probes: Sequence[object], control: str, target: object) -> None:
    """Raise UsageError for a probe that is of the train fold alone, and for labels that other images do not have."""
    if CODELENGTH in probes:
        raise UsageError(
            f"--probe {CODELENGTH} is of the labels of the train fold, so it is not evaluated on other images. Leave "
            "out --evaluate, or name another probe."
        )
    if control != NO_CONTROL or target is not None:
        raise UsageError(
            "--evaluate is of the classes, which folders name: other images have no labels of a control or a target. "
            "Leave out --control and --target, or --evaluate."
        )


def sets_of(run: ShownRun, folders: Sequence[Path]) -> list[ShownFolder]:
    """Return the sets of images in all folders; raise UserError where two have one name."""
    found = [one for folder in folders for one in find_shown(folder, run.dataset["classes"], str(run.path))]
    for one in found:
        if other := [two.folder for two in found if two.name == one.name and two is not one]:
            raise UserError(
                f"{one.folder} and {other[0]} are both called {one.name!r} in the rows. Rename one of them."
            )
        require_form(one, run.form)
    return found


def evaluate(
    run: ShownRun,
    task: Task,
    families: Sequence[tuple[Family, Sequence[int]]],
    sets: Sequence[ShownFolder],
    *,
    force: bool = False,
) -> None:
    """Evaluate the probes of families, each at some depths, on every set, and keep their rows; all ranks together.

    What the table holds of the same images is left alone unless `force`. `Family.fitted` has fits of this process.
    """
    done = 0

    def kept() -> str:
        return f"{done} of {len(sets)} sets are in {table_path(run.path)}; the same command goes on."

    with if_stopped(kept), progress() as bar:
        shown = bar.add_task("evaluating", total=len(sets))
        for one in sets:
            bar.update(shown, description=one.name)
            images = read_shown(one, run.form)
            run.show(images)
            for family, depths in families:
                table, left = ranks.by_first(partial(_left, run, family, depths, images, force=force))
                if left:
                    family.prepare(left)
                shown_at = partial(_shown, run, family, left, images, table)
                found = [pair for _, pairs in family.each(list(left), shown_at) for pair in pairs]
                if ranks.rank() == 0:
                    index = index_of(one, run)
                    save_shown(
                        run, task, images, found if index is None else list(with_shifts(run, one.name, index, found))
                    )
            done += 1
            bar.advance(shown)


def _left(
    run: ShownRun, family: Family, depths: Sequence[int], images: ShownImages, *, force: bool
) -> tuple[pd.DataFrame, dict[int, list[ProbeName]]]:
    """Return the rows of a run, and the probes, by depth, of which they hold nothing of these images."""
    table = read_rows(run)
    known = table[(table["split"] == images.name) & (table["images_digest"] == images.digest)]
    left = {j: [name for name in family.names(j) if force or rows_of(known, name).empty] for j in depths}
    return table, {j: names for j, names in left.items() if names}


def _shown(
    run: ShownRun, family: Family, left: Mapping[int, Sequence[ProbeName]], images: ShownImages, table: pd.DataFrame,
    depth: int,
) -> list[tuple[ProbeName, Fit]]:  # fmt: skip
    found: list[tuple[ProbeName, Fit]] = []
    fitted = _fitted(run, family, depth, left[depth], table)
    for kind, open_splits, own in family.again(depth, left[depth]):
        last = int(rows_of(table, own[0])["refit"].max())
        scored = show(kind, open_splits, {name: fitted[name] for name in own}, last, images.name)
        found += list(scored.items())
    return found


def _fitted(
    run: ShownRun, family: Family, depth: int, names: Sequence[ProbeName], table: pd.DataFrame
) -> dict[ProbeName, Any]:
    """Return the last fit of each probe; those of an earlier command are fitted again, and kept for the next set."""
    if family.fitted is None:
        family.fitted = {}
    missing = [name for name in names if name not in family.fitted]
    for kind, open_splits, own in family.again(depth, missing) if missing else ():
        data, chosen, refitted = choose_and_refit(kind, open_splits, run.splits)
        again = {name: (refitted or chosen)[name] for name in own}
        for name, said in zip(own, kind.predict(list(again.values()), data), strict=True):
            # At refit 0 the validation images come behind those fitted.
            rows = _of_fitted(rows_of(table, name))
            if rows:
                _require_same(run, name, rows, said.rows(range(int(rows["n"]))))
        family.fitted |= again
    return family.fitted


def _of_fitted(own: pd.DataFrame) -> dict[str, float]:
    """Return what the rows of a probe say of the images that its last fit was fitted to: n, and metrics by name."""
    own = own[(own["split"] == "train") & (own["refit"] == own["refit"].max())]
    if own.empty:  # of what the training itself left, nothing was fitted
        return {}
    return {"n": own["n_samples"].iloc[0], **own.set_index("metric")["value"].to_dict()}


def _require_same(run: ShownRun, name: ProbeName, rows: Mapping[str, float], said: Any) -> None:
    loss = rows.get("log_loss_bits", math.nan)
    is_near = abs(said.accuracy - rows["accuracy"]) <= SAME_ACCURACY + 1 / rows["n"]
    if is_near and (math.isnan(loss) or math.isclose(said.log_loss_bits, loss, rel_tol=SAME_LOSS, abs_tol=1e-3)):
        return
    raise UserError(
        f"{run.path}, depth {name.depth}: probe {name.probe} fitted again is not the one in the table (accuracy "
        f"{100 * said.accuracy:.2f}% and {100 * rows['accuracy']:.2f}% on the images it is fitted to), as on another "
        "machine or by another version. --force fits it anew, and evaluates that fit."
    )
