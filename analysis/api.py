"""The Python API of `analysis`: every table of numbers that the commands draw or print, of run files as they are given.

`runs` is always a run file, by its path or open, or several; or the rows that `read` returned of them, or a part of
these. Networks that did not train are named and left out of means over several, but with `keep_failed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.accuracy import accuracies as _accuracies
from analysis.attribution import attribution
from analysis.contrasts import BOUND, contrasts
from analysis.differences import differences
from analysis.geometry.depth import SUBSAMPLE
from analysis.geometry.table import Asked, measured
from analysis.images.table import Asked as _AskedOfImages
from analysis.images.table import measured as _measured_images
from analysis.images.votes import Votes, read_votes
from analysis.published import NUMBERS
from analysis.separability import curves as _curves
from analysis.tables import read as _read
from analysis.training import training_curves as _training_curves
from analysis.trend import trends as _trends
from analysis.widths import against_width
from layerwise.errors import UsageError
from layerwise.runfile.given import Run, Runs, path_of, paths_of
from layerwise.spoken import python_call
from probes.names import whole_numbers


@python_call("separability-table")
def read(runs: Runs) -> pd.DataFrame:
    """Return the probe results of run files: every column of docs/format.md, `run`, the path of each, and
    `failed`, how a network shows that it did not train, empty for others.

    Raises UserError for a file that is no run, or has no results of its own beside it.
    """
    return _read(paths_of(runs))


@python_call("separability-figure")
def curves(
    runs: Runs | pd.DataFrame,
    probes: Sequence[str] | None = None,
    *,
    split: str | Sequence[str] = "test",
    refit: bool = True,
    by: str = "k",
    keep_failed: bool = False,
) -> pd.DataFrame:
    """Return accuracy against depth for each probe and each line of networks, with a 95% interval.

    Arguments and columns are those of `analysis.separability.curves`.
    """
    return _curves(_rows(runs), probes, split, refit, by=by, keep_failed=keep_failed)


@python_call("separability-figure")
def width_curves(
    runs: Runs | pd.DataFrame,
    probes: Sequence[str] | None = None,
    *,
    split: str = "test",
    refit: bool = True,
    keep_failed: bool = False,
) -> pd.DataFrame:
    """Return accuracy and teacher gap of CNN probes against their width.

    Returns:
        A row for each point: probe, measure ("accuracy" or "teacher_gap"), depth, probe_width, value (in [0, 1], in
        [-1, 1]), ci_low, ci_high, interval (over what), and what is said of the networks and the data.

    Raises UserError where no CNN probe has several widths.
    """
    return against_width(_rows(runs), probes, split, refit, keep_failed)


@python_call("separability-table")
def accuracies(
    runs: Runs | pd.DataFrame,
    probes: Sequence[str] | None = None,
    *,
    split: str = "test",
    keep_failed: bool = False,
    top5: bool = False,
) -> pd.DataFrame:
    """Return the accuracy (in [0, 1]) of each kind of network at each depth by each probe, beside published numbers.

    top5: whether an image counts whose class is among the five likeliest.

    Returns:
        A row for each kind (mode, k, width, aux_width, variant), probe and depth: accuracy, ci_low, ci_high, interval
        (over seeds, for one seed over images), n_runs, n_seeds, n_samples, published, source, differs (in what the
        published network is another).
    """
    return _accuracies(_rows(runs), probes, split, keep_failed, top5=top5)


@python_call("separability-table")
def trends(
    runs: Runs | pd.DataFrame,
    probes: Sequence[str] | None = None,
    *,
    split: str = "test",
    keep_failed: bool = False,
) -> pd.DataFrame:
    """Return Page's test of a rise of accuracy over depths, for each probe, line and width, with seeds as blocks.

    Returns:
        A row for each: n_seeds, n_depths, L, p (one-sided, of no rise), p_holm; the last three missing with fewer than
        2 seeds or 3 depths.
    """
    return _trends(_rows(runs), probes, split, keep_failed)


@python_call("separability-table")
def line_contrasts(
    runs: Runs | pd.DataFrame,
    probes: Sequence[str] | None = None,
    *,
    split: str = "test",
    bound: float = BOUND,
    keep_failed: bool = False,
) -> pd.DataFrame:
    """Return how lines differ, between k and between modes, in early gain, slope and final level, over seeds.

    Args:
        bound: the largest difference that counts as none, in accuracy.

    Returns:
        A row for each probe, quantity and pair of lines: first, second, difference (second - first, in accuracy),
        ci_low, ci_high, p (of no difference), p_within (of a difference of the bound or more), p_holm, p_within_holm.
    """
    return contrasts(_rows(runs), probes, split, bound, keep_failed)


@python_call("separability-table")
def run_differences(first: Run, second: Run, probes: Sequence[str] | None = None) -> pd.DataFrame:
    """Return how much more accurate each probe of a second run is at each depth, on the same test images.

    Returns:
        A row for each probe and depth of both: first, second (accuracies in [0, 1]), difference, ci_low, ci_high
        (paired bootstrap, 95%), p (McNemar, exact), p_holm, n_samples.

    Raises UserError where the images differ, or no probe is in both.
    """
    return differences(path_of(first), path_of(second), probes)


@python_call("attribution-figure")
def gain_parts(
    runs: Runs | pd.DataFrame,
    probe: str = "linear",
    *,
    split: str = "test",
    pool: int = 2,
    keep_failed: bool = False,
) -> pd.DataFrame:
    """Return the gain of each depth over the input, in the parts that architecture and training give.

    Arguments and columns are those of `analysis.attribution.attribution`; accuracies in [0, 1].
    """
    return attribution(_rows(runs), probe, split, pool, keep_failed)


@python_call("training-figure")
def training_curves(runs: Runs, mode: str = "greedy", *, keep_failed: bool = False) -> pd.DataFrame:
    """Return loss (nats) and accuracy (in [0, 1]) of each auxiliary problem at each of its epochs.

    Columns are those of `analysis.training.training_curves`; the runs need no probes.
    """
    return _training_curves(paths_of(runs), mode, keep_failed)


@python_call("analyze-depth")
def depth_geometry(
    runs: Runs,
    *,
    split: str = "test",
    depths: int | Sequence[int] | None = None,
    pool: int = 2,
    subsample: int = SUBSAMPLE,
    max_memory: int | None = None,
    device: str = "auto",
) -> pd.DataFrame:
    """Return what the features of each depth are like: dimension, sparsity, and how they lie by class.

    Args:
        runs: run files on the same images; they need no probes.
        split: whose images are measured. depths: None for all of each run.
        pool: side of the average A of maps, 0 for none.
        subsample: images that intrinsic dimensions are estimated from.
        max_memory: bytes of features that a file does not hold, as of another `pool`; the rest of them is kept in an
            unlinked file beside the run. None for 8 GB.
        device: where maps are computed or averaged that a file does not hold.

    Returns:
        A row for each run, depth and measure of docs/analysis.md: value, ci_low, ci_high (95%), error (standard
        error), interval (over images, or over seeds, in the rows of means over runs that differ in their seed alone;
        these name no run), n (images), n_runs, and whose depth it is.

    Raises UserError where the runs are of different images.
    """
    return measured(
        paths_of(runs), _asked(split, depths, pool, subsample, max_memory, device), with_similarity=False
    ).geometry


@python_call("analyze-depth")
def depth_similarity(
    runs: Runs,
    *,
    split: str = "test",
    depths: int | Sequence[int] | None = None,
    pool: int = 2,
    max_memory: int | None = None,
    device: str = "auto",
) -> pd.DataFrame:
    """Return how alike each two depths are, of one run or of two: debiased and biased CKA, and the shape distance.

    Arguments are those of `depth_geometry`.

    Returns:
        A row for each pair of depths and measure: value, ci_low, ci_high, error, interval, n and n_runs as of
        `depth_geometry`, and the columns that say whose depth it is, with _a and _b.

    Raises UserError where the runs are of different images.
    """
    return measured(
        paths_of(runs), _asked(split, depths, pool, SUBSAMPLE, max_memory, device), with_geometry=False
    ).similarity


def _asked(
    split: str, depths: int | Sequence[int] | None, pool: int, subsample: int, max_memory: int | None, device: str
) -> Asked:
    several = None if depths is None else whole_numbers("depths", depths)
    return Asked(split, several, pool, subsample, device, Asked.max_memory if max_memory is None else max_memory)


@python_call("image-depth")
def image_depths(
    runs: Runs,
    probes: str | Sequence[str] | None = None,
    *,
    pool: int = 2,
    votes: Path | str | np.ndarray | Mapping[str, np.ndarray] | None = None,
    votes_order: str = "index",
) -> pd.DataFrame:
    """Return how many test images are settled, learnt and lost at each depth, and how people's votes agree.

    Args:
        runs: run files on the same images, with the predictions that probe-depth left beside them.
        probes: knn, linear, linear-ovr, ncm; None for knn and linear, where a run has them.
        pool: side of the average A that the probes read.
        votes: people's votes, an .npz file or its arrays: counts [n, classes], and index or labels [n] with it; counts
            alone may be given as they are.
        votes_order: "index" or "folder": of which image each row of votes is, as docs/analysis.md says.

    Returns:
        A row for each run, probe, depth and measure of docs/analysis.md: value, ci_low, ci_high (95% over images), n
        (images), of `change` p and p_holm (McNemar), and whose depth it is; depth is missing where a measure has none.
        Runs that differ in their seed alone also have rows of their mean: run empty, interval "seeds", n_runs.

    Raises UserError where there are no predictions, the runs are of different images, or the votes of others.
    """
    return _measured_images(paths_of(runs), _asked_of_images(probes, pool, votes, votes_order)).depths


@python_call("image-depth")
def single_images(
    runs: Runs,
    probes: str | Sequence[str] | None = None,
    *,
    pool: int = 2,
    votes: Path | str | np.ndarray | Mapping[str, np.ndarray] | None = None,
    votes_order: str = "index",
) -> pd.DataFrame:
    """Return what the probes of all depths say of each test image; arguments are those of `image_depths`.

    Returns:
        A row for each run, probe and image: index (in the published split), class, prediction_depth, predicted and
        right (at the last depth), depths_right (at how many depths), and of votes their share for the predicted class
        and their entropy (vote_entropy, bits).
    """
    return _measured_images(paths_of(runs), _asked_of_images(probes, pool, votes, votes_order)).single


@python_call("image-depth")
def image_disagreement(runs: Runs, probes: str | Sequence[str] | None = None, *, pool: int = 2) -> pd.DataFrame:
    """Return how often each two runs disagree about test images, beside what their accuracies alone imply.

    Arguments are those of `image_depths`.

    Returns:
        A row for each pair of runs, probe that both have, pair of depths (of one number, and the last of both) and
        measure of docs/analysis.md: value, ci_low, ci_high (95% over images), n.
    """
    return _measured_images(paths_of(runs), _asked_of_images(probes, pool, None, "index")).pairs


def _asked_of_images(probes: str | Sequence[str] | None, pool: int, votes: Any, votes_order: str) -> _AskedOfImages:
    named = [probes] if isinstance(probes, str) else probes
    if isinstance(votes, str | Path):
        votes = read_votes(Path(votes))
    elif isinstance(votes, Mapping):
        if "counts" not in votes:
            raise UsageError(f"votes lacks counts [n, classes]; it has {', '.join(map(str, votes))}.")
        given = {name: np.asarray(votes[name]) for name in ("counts", "index", "labels") if name in votes}
        votes = Votes("votes", **given)
    elif votes is not None:
        votes = Votes("votes", np.asarray(votes))
    return _AskedOfImages(named, pool, votes, votes_order)


def published_numbers() -> pd.DataFrame:
    """Return published test accuracies (%) with their networks, data and sources."""
    return pd.DataFrame([vars(number) for number in NUMBERS])


def _rows(runs: Runs | pd.DataFrame) -> pd.DataFrame:
    if not isinstance(runs, pd.DataFrame):
        return _read(paths_of(runs))
    if lost := ", ".join(sorted({"run", "variant", "estimator", "metric", "probe", "depth"} - set(runs))):
        raise UsageError(
            f"the table lacks {lost}, which rows of analysis.read have. "
            "Those of probes.fit do not name the run: give the run files instead."
        )
    return runs
