"""Networks that did not train: their own last classifier is no better than chance on the images it was trained on.

Chance is to say the most frequent class always. A network counts as trained where an exact binomial test rejects that
its accuracy on the train fold is no more than that, one-sided at 0.001. Averaged with others, a network that did not
train would make a curve of nothing that was measured, and an axis of nothing that is of interest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.001
# The column of rows that says how many networks of its mode, k and widths there are, those that did not train included.
ASKED = "asked"
_CELL = ["mode", "k", "width"]


def failures(runs: Sequence[Path]) -> dict[Path, str]:
    """Return the runs that did not train, each with its accuracy on the train fold and that of chance, in words.

    A run without a classifier of its own, untrained or built elsewhere, is none of them.
    """
    from layerwise.runfile import RunFile

    found = {}
    for path in runs:
        with RunFile(path) as run:
            if not run.trained_depths:
                continue
            accuracy, labels = run.scores(max(run.trained_depths))["train_accuracy"], run.labels("train")
        chance = float(np.bincount(labels).max() / len(labels))
        if not is_above(accuracy, chance, len(labels)):
            found[path] = f"{100 * accuracy:.1f}% on its train fold, chance {100 * chance:.1f}%"
    return found


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
