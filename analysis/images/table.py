"""Run files with predictions in; rows for each depth, each image and each pair of runs out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.images.depth import changes
from analysis.images.disagreement import disagreement
from analysis.images.predictions import Line, lines
from analysis.images.seeds import averaged
from analysis.images.shares import Share, share
from analysis.images.votes import Votes, agreement, entropy, ordered, people, rank_correlation
from analysis.seeds import IMAGES
from analysis.tables import about_run, without_predictions
from layerwise.errors import UsageError, UserError, option

if TYPE_CHECKING:
    from layerwise.runfile import RunFile

_SPLIT = "test"  # the only one that probe-depth keeps predictions of


@dataclass(frozen=True)
class Asked:
    """Which probes (None for knn and linear, where a run has them), side of the average A, and votes in which order."""

    probes: Sequence[str] | None = None
    pool: int = 2
    votes: Votes | None = None
    votes_order: str = "index"


@dataclass(frozen=True)
class Tables:
    """Rows for each run, probe, depth and measure; for each run, probe and image; for each pair of runs and depths."""

    depths: pd.DataFrame
    single: pd.DataFrame
    pairs: pd.DataFrame


def measured(runs: Sequence[Path], asked: Asked) -> Tables:
    """Return what single images say of the depths of runs, and how much each two runs disagree.

    Raises UserError for runs without predictions, of different images, or with other images than the votes.
    """
    from layerwise.runfile import RunFile

    if asked.votes is None and asked.votes_order != "index":
        order = option("votes_order", asked.votes_order)
        raise UsageError(f"{order} is of votes, but none are given. Give {option('votes')}, or leave it out.")
    with ExitStack() as stack:
        files = [stack.enter_context(RunFile(path)) for path in dict.fromkeys(without_predictions(runs))]
        _require_same_images(files)
        found = [(run, line) for run in files for line in lines(run, asked.probes, asked.pool)]
        counts = [_votes(run, line, asked) for run, line in found]
        depths = [row for (run, line), votes in zip(found, counts, strict=True) for row in _depths(run, line, votes)]
        single = [by_image(run, line, votes) for (run, line), votes in zip(found, counts, strict=True)]
        pairs = [row for one, other in combinations(found, 2) for row in _pair(one, other)]
        about = pd.DataFrame(depths).assign(pooling=f"{asked.pool}x{asked.pool}" if asked.pool else "none")
        about = about.assign(interval=IMAGES, n_runs=1)
        if len(means := averaged(about)):
            about = pd.concat([about, means], ignore_index=True)
        return Tables(about, pd.concat(single, ignore_index=True), pd.DataFrame(pairs))


def _require_same_images(runs: Sequence[RunFile]) -> None:
    """Raise UserError unless all runs hold the same test images, in any order, and no run stands twice."""
    first, seen = runs[0], {runs[0].run_id: runs[0].path}
    for run in runs[1:]:
        if (before := seen.setdefault(run.run_id, run.path)) != run.path:
            raise UserError(f"{before} and {run.path} are the same run ({run.run_id}). Leave one of them out.")
        prints = [one.dataset["fingerprint"].get(_SPLIT) for one in (first, run)]
        if prints[0] != prints[1]:
            what = f"their test images differ ({first.dataset['name']} and {run.dataset['name']}, by fingerprint)"
        elif not np.array_equal(np.sort(first.indices(_SPLIT)), np.sort(run.indices(_SPLIT))):
            what = f"they hold other test images of {run.dataset['name']} (by their indices)"
        else:
            continue
        raise UserError(
            f"{run.path} cannot be compared with {first.path}: {what}. Give runs on the same images, or each alone."
        )


def _votes(run: RunFile, line: Line, asked: Asked) -> np.ndarray | None:
    if asked.votes is None:
        return None
    try:
        return ordered(asked.votes, asked.votes_order, line.index, line.label, len(run.dataset["classes"]))
    except UserError as error:
        raise type(error)(f"{run.path}: {error}") from None


def _depths(run: RunFile, line: Line, votes: np.ndarray | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of one probe of a run."""
    about = _about(run, line)
    change = [None, *changes(line.right)]
    for place, depth in enumerate(line.depths):
        own = about | {"depth": depth, "module": run.depth_module(depth)}
        here = line.settled == depth
        found = {
            "accuracy": share(line.right[:, place]),
            "prediction_depth": share(here),
            "settled": share(line.settled <= depth),
            "settled_accuracy": share(line.right[here, -1]),
        }
        if votes is not None:
            found |= agreement(votes, line.predicted[:, place], line.label)
        yield from (own | {"measure": name} | _row(one) for name, one in found.items())
        if (one := change[place]) is not None:
            yield own | {"measure": "learnt"} | _row(share(one.learnt))
            yield own | {"measure": "lost"} | _row(share(one.lost))
            value = float(one.learnt.mean() - one.lost.mean())
            tested = {"p": one.p, "p_holm": one.p_holm}
            yield own | {"measure": "change"} | _row(Share(value, one.low, one.high, len(line.index))) | tested
    if votes is not None:
        whole = about | {"depth": math.nan, "module": ""}
        yield whole | {"measure": "people"} | _row(people(votes))
        yield whole | {"measure": "depth_entropy"} | _row(rank_correlation(line.settled, entropy(votes)))


def _about(run: RunFile, line: Line) -> dict[str, Any]:
    """Return what rows say of a probe of a run."""
    return about_run(run) | {"split": _SPLIT, "probe": line.probe, "refit": line.refit}


def _row(one: Share) -> dict[str, Any]:
    return {"value": one.value, "ci_low": one.low, "ci_high": one.high, "n": one.n, "p": math.nan, "p_holm": math.nan}


def by_image(run: RunFile, line: Line, votes: np.ndarray | None) -> pd.DataFrame:
    """Return a row for each image of one probe of a run."""
    classes = np.array(run.dataset["classes"])
    last = line.predicted[:, -1]
    columns = {
        "run": str(run.path), "run_id": run.run_id, "network": run.network_name, "dataset": run.dataset["name"],
        "split": _SPLIT, "probe": line.probe,
        "index": line.index, "class": classes[line.label], "prediction_depth": line.settled,
        "predicted": classes[last], "right": line.right[:, -1].astype(int),
        "depths_right": line.right.sum(axis=1),
    }  # fmt: skip
    if votes is not None:
        columns |= {
            "votes": (votes / votes.sum(axis=1, keepdims=True))[np.arange(len(last)), last],
            "vote_entropy": entropy(votes),
        }
    return pd.DataFrame(columns)


def _pair(one: tuple[RunFile, Line], other: tuple[RunFile, Line]) -> Iterator[dict[str, Any]]:
    """Yield the rows of one probe of two runs: at the depths that both have, and at the last of each."""
    (first, a), (second, b) = one, other
    if first is second or a.probe != b.probe:
        return
    about = {
        "run_a": str(first.path), "run_id_a": first.run_id, "network_a": first.network_name, "run_b": str(second.path),
        "run_id_b": second.run_id, "network_b": second.network_name, "dataset": first.dataset["name"],
        "split": _SPLIT, "probe": a.probe,
    }  # fmt: skip
    last = (a.depths[-1], b.depths[-1])
    both = dict.fromkeys([*((depth, depth) for depth in a.depths if depth in b.depths), last])
    for depths in both:
        predicted = [
            line.predicted[:, list(line.depths).index(depth)] for line, depth in zip((a, b), depths, strict=True)
        ]
        for name, found in disagreement(predicted[0], predicted[1], a.label).items():
            numbers = {"value": found.value, "ci_low": found.low, "ci_high": found.high, "n": found.n}
            place = {"depth_a": depths[0], "depth_b": depths[1], "is_last": int(depths == last)}
            yield about | place | {"measure": name} | numbers
