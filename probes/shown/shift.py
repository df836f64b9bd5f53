"""Images that are the run's own test images, changed: what each probe loses on them, image by image.

Which image each is stands in the recipe and the names of what layerwise-corrupt wrote. The probe is the one whose
outcomes on the test images are kept, so that the two accuracies are of the same images and the same fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from layerwise.datasets.corrupted_sets import RECIPE, read_recipe
from layerwise.datasets.shown import ShownFolder
from layerwise.runfile import RunFile
from probes.probe import ProbeName
from probes.protocol import Fit, Value
from probes.results.paired_tests import mcnemar, paired_interval
from probes.results.predictions import open_correct, paired


def index_of(found: ShownFolder, run: RunFile) -> np.ndarray | None:
    """Return which image of the published test split each of a set is, [n]; None where no recipe says so."""
    folder = found.folder.resolve()
    out, name = folder.parent.parent, f"{folder.parent.name}/{folder.name}"
    if not (out / RECIPE).is_file():
        return None
    made = read_recipe(out).get(name)
    if made is None or made.images != run.dataset["fingerprint"]["test"]:
        return None
    stems = [Path(path).stem for paths in found.files.values() for path in paths]
    is_ours = all(stem.isdecimal() for stem in stems) and len(set(map(int, stems))) == len(stems)
    return np.array(list(map(int, stems))) if is_ours else None


def with_shifts(
    run: RunFile, split: str, index: np.ndarray, shown: Sequence[tuple[ProbeName, Fit]]
) -> Iterator[tuple[ProbeName, Fit]]:
    """Yield fits that were scored on a set with what they lose there, where their outcomes on the images are kept.

    shift: accuracy on the set minus that on the same images as they were, with a paired bootstrap interval; shift_p:
    McNemar's exact p-value of no difference.
    """
    with open_correct(run) as read:
        for name, fit in shown:
            scored = fit.scores[split]
            right = pd.Series(scored.predicted == scored.label, index=index)
            pair = paired(read(name, fit.refit), right)
            if pair is None or len(pair[0]) < len(index):
                yield name, fit
                continue
            before, after = pair
            low, high = paired_interval(before, after)
            values = {
                (split, "shift"): Value(float(after.mean() - before.mean()), scored.label, low, high),
                (split, "shift_p"): Value(mcnemar(before, after), scored.label),
            }
            yield name, replace(fit, values=fit.values | values)
