"""A baseline beside a run: the same probes of another run, untrained as a rule, on the same test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from layerwise.errors import UserError
from layerwise.runfile import RunFile
from probes.probe import ProbeName
from probes.results.paired_tests import paired_interval
from probes.results.predictions import ReadCorrect, open_correct, paired


@dataclass(frozen=True)
class Beside:
    """Test accuracies in [0, 1] of one probe of two runs, and the paired 95% interval of run - baseline."""

    name: ProbeName
    run: float
    baseline: float
    low: float
    high: float


def require_same_images(run: RunFile, baseline: RunFile) -> None:
    """Raise UserError if two runs were not made of the same images, so that nothing could be paired."""
    one, other = run.dataset["fingerprint"], baseline.dataset["fingerprint"]
    different = [split for split in sorted({*one, *other}) if one.get(split) != other.get(split)]
    if different:
        raise UserError(
            f"{baseline.path} is no baseline of {run.path}: their {different[0]} images differ "
            f"({baseline.dataset['name']} and {run.dataset['name']}, by fingerprint). {_made_alike(run, baseline)}"
        )


def _made_alike(run: RunFile, baseline: RunFile) -> str:
    """Return how a baseline of a run is made."""
    fold = ""
    if "validation" in baseline.splits and "validation" not in run.splits:
        fold = f": {run.path} has no validation fold, so --holdout 0"
    if run.extraction is None:
        again = f"layerwise-train --config {run.path.name} --mode untrained --out untrained.h5"
        return f"Make it of the same data, as the run says it: `{again}`"
    if run.extraction.get("kind") == "arrays":
        return f"Extract it from arrays of the same samples, with the splits and --holdout of the run{fold}."
    return (
        "Extract it from the same data: `layerwise-extract` without --weights, with the --subset, --test-share and "
        f"--holdout of the run{fold}."
    )


def beside(run: RunFile, baseline: RunFile, names: Sequence[ProbeName]) -> list[Beside]:
    """Return the probes of `names` that both runs have predictions of, refitted ones where there are."""
    found = []
    with open_correct(run) as read, open_correct(baseline) as read_baseline:
        for name in names:
            pair = paired(_newest(read, name), _newest(read_baseline, name))
            if pair is not None:
                own, other = pair
                found.append(Beside(name, float(own.mean()), float(other.mean()), *paired_interval(other, own)))
    return found


def _newest(read: ReadCorrect, name: ProbeName) -> pd.Series | None:
    refitted = read(name, 1)
    return read(name, 0) if refitted is None else refitted
