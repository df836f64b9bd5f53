"""Run files in; a row for each measure of each depth, and for each pair of depths, out.

This is the edge: measures are functions of arrays, and which features of which images they get is decided here.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.failures import failure
from analysis.geometry.classes import numbered
from analysis.geometry.depth import PASSES, SUBSAMPLE, Found, geometry
from analysis.geometry.influence import Measured
from analysis.geometry.measures import DECODING, MEASURES, SIMILARITIES, Measure
from analysis.geometry.moments import Moments, column_mean, moments
from analysis.geometry.similarity import similarities, tiles
from analysis.geometry.stream import Source, width
from analysis.seeds import IMAGES, SEEDS, over_seeds
from analysis.tables import LIKE, about_run, file_names, without_predictions
from layerwise.commandline import progress
from layerwise.errors import UsageError, UserError, option, unknown

if TYPE_CHECKING:
    from layerwise.runfile import RunFile

log = logging.getLogger("layerwise.analysis")

# Products of more features than these would take 8 GB and more.
_MOST_FEATURES = 16384


@dataclass(frozen=True)
class Asked:
    """What is measured: which images, depths (numbers, a text as "0-3", or None for all), side of the average A, and
    how many images intrinsic dimensions are estimated from.

    max_memory: bytes of features that a file does not hold; what they take beyond it goes to the disk.
    """

    split: str = "test"
    depths: Sequence[int] | str | None = None
    pool: int = 2
    subsample: int = SUBSAMPLE
    device: str = "auto"
    max_memory: int = 8 * 10**9


@dataclass(frozen=True)
class Tables:
    """One row for each measure of each depth, and one for each similarity of each pair of depths."""

    geometry: pd.DataFrame
    similarity: pd.DataFrame


def measured(runs: Sequence[Path], asked: Asked, *, with_geometry: bool = True, with_similarity: bool = True) -> Tables:
    """Return what the depths of runs are like, and how alike each two of them are, over all runs.

    Raises:
        UserError: runs over different images; a depth that cannot be read as asked.
    """
    from layerwise.runfile import RunFile

    if asked.subsample < 1:
        raise UsageError(f"{option('subsample')} is {asked.subsample}, but takes a number of images, from 1 on.")
    with ExitStack() as stack:
        files = [stack.enter_context(RunFile(path)) for path in dict.fromkeys(without_predictions(runs))]
        _require_same_images(files, asked.split)
        _require_different(files)
        _tell_failed(files)
        sources = {(i, j): x for i, run in enumerate(files) for j, x in _features(run, asked).items()}
        about = {key: _about(files[key[0]], key[1], sources[key], asked) for key in sources}
        found = _geometry(files, sources, asked) if with_geometry else {}
        rows = [
            about[key] | {"measure": name} | _row(one, IMAGES)
            for key, depth in found.items()
            for name, one in depth.measures.items()
        ]
        known = {key: depth.moments for key, depth in found.items()}
        pairs = _pairs(known or _moments(sources), sources, about) if with_similarity else []
    by_pair = ["depth_a", "depth_b", "measure"]
    within = [row for row in pairs if row["run_a"] == row["run_b"]]
    return Tables(
        pd.DataFrame(rows + averaged(rows)),
        pd.DataFrame(pairs + _over_seeds(within, [f"{name}_a" for name in LIKE], by_pair, "run_a", "run_b")),
    )


def _require_same_images(runs: Sequence[RunFile], split: str) -> None:
    """Raise UserError unless all runs hold the same images of a split, in the same order."""
    first = runs[0]
    for run in runs:
        if split not in run.splits:
            raise unknown(f"split of {run.path}", split, run.splits)
    for run in runs[1:]:
        prints = [one.dataset["fingerprint"].get(split) for one in (first, run)]
        if prints[0] != prints[1]:
            what = f"their {split} images differ ({first.dataset['name']} and {run.dataset['name']}, by fingerprint)"
        elif not np.array_equal(first.indices(split), run.indices(split)):
            what = f"they hold other {split} images of {run.dataset['name']}, or in another order (by their indices)"
        else:
            continue
        raise UserError(
            f"{run.path} cannot be analysed beside {first.path}: {what}. Similarity is of the same images; analyse the "
            "runs one by one, or make them of the same data, subset and --holdout."
        )


def _tell_failed(runs: Sequence[RunFile]) -> None:
    for run in runs:
        if words := failure(run):
            log.warning("%s did not train (%s): it is measured, but no mean over seeds counts it.", run.path, words)


def _require_different(runs: Sequence[RunFile]) -> None:
    seen: dict[str, Path] = {}
    for run in runs:
        if (before := seen.setdefault(run.run_id, run.path)) != run.path:
            raise UserError(f"{before} and {run.path} are the same run ({run.run_id}). Leave one of them out.")


def _features(run: RunFile, asked: Asked) -> dict[int, Source]:
    """Return A x_j of the images of a split for each depth; what is stored is read on demand, block by block."""
    from layerwise.activations import pooled_width
    from layerwise.hardware import pick_device
    from probes.cli import parse_depths
    from probes.pooled import features
    from probes.tasks.task import Task

    wanted = asked.depths if isinstance(asked.depths, str | None) else ",".join(map(str, asked.depths))
    depths = parse_depths(wanted, run.depths)
    for j in depths:
        if (d := pooled_width(run, j, asked.pool)) > _MOST_FEATURES:
            raise UserError(
                f"{run.path}: depth {j} has {d} features, and products of them take {8 * d**2 / 1e9:.1f} GB; at most "
                f"{_MOST_FEATURES} are measured. Give a smaller --pool, or leave the depth out by --depths."
            )
    device = pick_device(asked.device)
    room = asked.max_memory // len(depths)
    return {
        j: features(run, Task(run), j, asked.split, side=asked.pool, device=device, max_memory=room) for j in depths
    }


def _geometry(files: Sequence[RunFile], sources: dict[tuple[int, int], Source], asked: Asked) -> dict[Any, Found]:
    found, gaps = {}, _Gaps()
    with progress() as bar:
        work = bar.add_task("depths", total=PASSES * sum(len(x) for x in sources.values()))
        for (i, j), x in sources.items():
            y = files[i].labels(asked.split)
            try:
                one = geometry(x, y, subsample=asked.subsample, tick=partial(bar.advance, work))
            except UserError as error:
                raise UserError(f"{files[i].path}, depth {j}, {asked.split}: {error}") from None
            found[i, j] = one
            gaps.see(files[i].path, j, one, y)
    gaps.tell()
    return found


class _Gaps:
    """Why measures are missing, said in one line for each run and reason."""

    def __init__(self) -> None:
        self._depths: dict[tuple[Path, str], list[int]] = {}

    def see(self, run: Path, depth: int, found: Found, y: np.ndarray) -> None:
        """Look for what cannot be told of a depth of a run, with labels y."""
        counts, n = np.bincount(numbered(y)), found.moments.n
        missing = {name for name, one in found.measures.items() if math.isnan(one.value)}
        if len(counts) < 2 or counts.min() < 2:
            self._add(run, depth, "no measures of classes, which need two classes and two images of each")
        elif found.moments.is_constant:
            self._add(run, depth, "nothing but sparsity, since the features are the same for every image")
        elif {"nc3", "nc4"} & missing:
            self._add(run, depth, f"no NC3 and NC4, since features span as many directions as there are images ({n})")
        if {"twonn", "mle"} & missing and not found.moments.is_constant:
            different = found.measures["twonn"].n
            self._add(run, depth, f"no intrinsic dimension, of {different} different images or all equally far apart")
        if found.moments.d >= n:
            many = f"{found.moments.d} features of {n} images"
            self._add(run, depth, f"biased CKA, shape distance and NC1 are mostly chance, with {many}")

    def _add(self, run: Path, depth: int, reason: str) -> None:
        self._depths.setdefault((run, reason), []).append(depth)

    def tell(self) -> None:
        for (run, reason), depths in self._depths.items():
            which = f"depth{'s' if len(depths) > 1 else ''} {', '.join(map(str, depths))}"
            log.warning("%s, %s: %s", run, which, reason)


def _moments(sources: dict[Any, Source]) -> dict[Any, Moments]:
    with progress() as bar:
        work = bar.add_task("depths", total=2 * sum(len(x) for x in sources.values()))
        tick = partial(bar.advance, work)
        return {key: moments(x, column_mean(x, tick), tick) for key, x in sources.items()}


def _pairs(known: dict[Any, Moments], sources: dict[Any, Source], about: dict[Any, dict[str, Any]]) -> list[Any]:
    pairs = list(combinations(known, 2))
    rows = []
    with progress() as bar:
        n = len(next(iter(sources.values())))
        work = bar.add_task("pairs of depths", total=2 * n * len(tiles(known, pairs)))
        for (one, other), measures in similarities(sources, known, pairs, partial(bar.advance, work)):
            sides = {f"{name}_a": value for name, value in about[one].items() if name not in _SHARED}
            sides |= {f"{name}_b": value for name, value in about[other].items() if name not in _SHARED}
            shared = {name: about[one][name] for name in _SHARED}
            rows += [sides | shared | {"measure": name} | _row(value, IMAGES) for name, value in measures.items()]
    return rows


# What both depths of a pair have in common.
_SHARED = ("dataset", "split", "pooling", "subsample")


def _about(run: RunFile, depth: int, x: Source, asked: Asked) -> dict[str, Any]:
    """Return what rows say of a depth: whose it is, and what was read of it."""
    return about_run(run) | {
        "depth": depth, "module": run.depth_module(depth), "n_features": width(x), "split": asked.split,
        "pooling": f"{asked.pool}x{asked.pool}" if asked.pool else "none", "subsample": asked.subsample,
    }  # fmt: skip


def _row(one: Measured, interval: str) -> dict[str, Any]:
    known = interval if math.isfinite(one.low) else ""
    return {
        "value": one.value, "ci_low": one.low, "ci_high": one.high, "error": one.error, "interval": known, "n": one.n,
        "n_runs": 1,
    }  # fmt: skip


def averaged(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of the means over runs of one line, from rows of single runs."""
    return _over_seeds(rows, LIKE, ["depth", "measure"], "run")


def _over_seeds(rows: Sequence[dict[str, Any]], line: list[str], place: list[str], *runs: str) -> list[dict[str, Any]]:
    """Return the means over runs that are of one line and differ in their seed, with Student's interval over these.

    It is never narrower than what the images alone give, as for accuracies (`analysis.seeds`). Such rows name no run.
    Networks that did not train are left out.
    """
    trained = [row for row in rows if not row.get("failed", row.get("failed_a"))]
    if not trained:
        return []
    found, table = [], pd.DataFrame(trained)
    seed = "seed" if "seed" in table else "seed_a"
    for group, estimate in over_seeds(table, [*line, *place], seed):
        first, half = dict(group.iloc[0]), estimate.half_width()
        measure = (MEASURES | SIMILARITIES | DECODING).get(
            first["measure"], Measure("", most=1.0)
        )  # else it is an accuracy
        first |= {name: "" for run in runs for name in (run, run.replace("run", "run_id"))}
        first |= {name: math.nan for name in ("seed", "seed_a", "seed_b") if name in first}
        first |= {
            "value": estimate.mean, "ci_low": max(measure.least, estimate.mean - half),
            "ci_high": min(measure.most, estimate.mean + half), "error": estimate.error, "interval": SEEDS,
            "n_runs": len(group),
        }  # fmt: skip
        found.append(first)
    return found


def lines_of(table: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """Yield the rows of each line of a figure with its words: means over seeds where there are, else single runs."""
    means = table[table["run"] == ""]
    known = {tuple(map(str, key)) for key in means[LIKE].drop_duplicates().itertuples(index=False)}
    found = [(str(key[0]), f"M = {key[3]:g}", rows) for key, rows in means.groupby(LIKE, dropna=False, sort=False)]
    single = table[table["run"] != ""]
    files = file_names(single["run"].unique())
    for path, rows in single.groupby("run", sort=False):
        if tuple(map(str, next(rows[LIKE].itertuples(index=False)))) not in known:
            found.append((str(rows["network"].iloc[0]), files[path], rows))
    names = [name for name, _, _ in found]
    for name, apart, rows in found:
        yield (f"{name} ({apart})" if names.count(name) > 1 else name), rows
