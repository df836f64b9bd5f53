"""Networks that did not train: their own last classifier is no better than chance on the images it was trained on.

Chance is to say the most frequent class always. A network counts as trained where an exact binomial test rejects that
its accuracy on the train fold is no more than that, one-sided at 0.001. Averaged with others, a network that did not
train would make a curve of nothing that was measured, and an axis of nothing that is of interest.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from layerwise.errors import UserError

if TYPE_CHECKING:
    from layerwise.runfile import RunFile

log = logging.getLogger("layerwise.analysis")

LEVEL = 0.001
# Columns of rows. How a run shows that it did not train, empty for others; how many networks of its mode, k and widths
# there are, those that did not train included; the networks left out of all of these rows.
FAILED, ASKED, LEFT_OUT = "failed", "asked", "left_out"
# Of what is made of rows, beside LEFT_OUT: the networks in it that did not train.
DID_NOT_TRAIN = "did_not_train"
_CELL = ["mode", "k", "width"]
_KIND = [*_CELL, "aux_width", "variant"]


def failures(runs: Sequence[Path]) -> dict[Path, str]:
    """Return the runs that did not train, each with its accuracy on the train fold and that of chance, in words."""
    from layerwise.runfile import RunFile

    found = {}
    for path in runs:
        with RunFile(path) as run:
            if words := failure(run):
                found[path] = words
    return found


def failure(run: RunFile) -> str:
    """Return how a run shows that it did not train, in words; empty for any other.

    A run without a classifier of its own, untrained or built elsewhere, is none of them.
    """
    if not run.trained_depths:
        return ""
    accuracy, labels = run.scores(max(run.trained_depths))["train_accuracy"], run.labels("train")
    chance = float(np.bincount(labels).max() / len(labels))
    if is_above(accuracy, chance, len(labels)):
        return ""
    return f"{100 * accuracy:.1f}% on its train fold, chance {100 * chance:.1f}%"


def identified(path: Path) -> tuple[str, str]:
    """Return run_id and `failure` of a run file, opened once for both, since opening is what takes long."""
    from layerwise.runfile import RunFile

    with RunFile(path) as run:
        return run.run_id, failure(run)


def only_trained(rows: pd.DataFrame, line: Sequence[str], keep_failed: bool = False) -> pd.DataFrame:
    """Return rows without the networks that did not train, each named in a line, but for those that nothing averages.

    Args:
        rows: with FAILED, as `analysis.tables.read` returns them; rows that do not say it are of trained networks.
        line: columns of networks, alike in what is averaged: a network that is alone in them stays, and is said to have
            failed.
        keep_failed: leave none out.

    Returns rows with ASKED and LEFT_OUT; rows that have the latter are returned as they are.

    Raises:
        UserError: if none of several networks trained.
    """
    if FAILED not in rows or LEFT_OUT in rows:
        return rows
    if ASKED not in rows:
        rows = rows.assign(**{ASKED: rows.groupby(_KIND, dropna=False)["run"].transform("nunique")})
    failed, alone = rows[FAILED] != "", rows.groupby(list(line), dropna=False)["run"].transform("nunique") == 1
    out = failed & ~alone & (not keep_failed)
    without = set(rows.loc[out, "run"])
    for run, words in rows.loc[failed, ["run", FAILED]].drop_duplicates().itertuples(index=False):
        if run in without:
            log.warning("%s did not train (%s): it is left out; --keep-failed averages it with others.", run, words)
        elif not keep_failed:
            log.warning("%s did not train (%s): it is shown, for nothing is averaged with it.", run, words)
    if out.all():
        raise UserError(
            f"none of the {rows['run'].nunique()} networks trained, so nothing is averaged. Train others, or give "
            "--keep-failed."
        )
    return rows[~out].assign(**{LEFT_OUT: _named(rows[out])})


def told(rows: pd.DataFrame) -> dict[str, str]:
    """Return LEFT_OUT and DID_NOT_TRAIN of what is made of rows: the files, each with how it failed; "; " between."""
    left_out = rows[LEFT_OUT].iloc[0] if LEFT_OUT in rows and len(rows) else ""
    has_failed = FAILED in rows and any(rows[FAILED])  # asked first, for of most points none has
    return {LEFT_OUT: left_out, DID_NOT_TRAIN: _named(rows[rows[FAILED] != ""]) if has_failed else ""}


def is_failed_alone(points: pd.DataFrame) -> bool:
    """Return whether what is made of rows is of one network, which did not train."""
    return bool((points[DID_NOT_TRAIN] != "").all() and (points["n_runs"] == 1).all())


def _named(failed: pd.DataFrame) -> str:
    pairs = failed[["run", FAILED]].drop_duplicates().itertuples(index=False)
    return "; ".join(f"{Path(run).name} ({words})" for run, words in pairs)


def with_asked(rows: pd.DataFrame, networks: Iterable[tuple[str, int, int]]) -> pd.DataFrame:
    """Return rows with `ASKED`: what is made of them then says "4 of 5 networks".

    rows: probe results of the networks that trained. networks: mode, k and M of each, of those that did not train too.
    """
    counts = Counter(networks)
    return rows.assign(**{ASKED: [counts.get(cell, np.nan) for cell in rows[_CELL].itertuples(index=False, name=None)]})


def is_above(accuracy: float, chance: float, n: int) -> bool:
    """Return whether an accuracy over n images is significantly above chance."""
    test = stats.binomtest(round(accuracy * n), n, chance, alternative="greater")
    return bool(test.pvalue <= LEVEL)
