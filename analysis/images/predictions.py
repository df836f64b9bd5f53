"""The predictions of one probe at every depth of a run, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.images.depth import prediction_depth
from layerwise.errors import UsageError, UserError
from probes.results.predictions import Predicted, predictions_path, read_predicted

if TYPE_CHECKING:
    from layerwise.runfile import RunFile

# Read where a run has them, in this order; these have one prediction a depth.
USUAL = ("knn", "linear")
SINGLE = ("knn", "linear", "linear-ovr", "ncm")


@dataclass(frozen=True)
class Line:
    """What one probe predicts of the test images of a run, in the order of their index.

    refit: of all its depths. depths: ascending, [depths]. index, label: int [n]. predicted: int [n, depths].
    """

    probe: str
    refit: int
    depths: Sequence[int]
    index: np.ndarray
    label: np.ndarray
    predicted: np.ndarray

    @cached_property
    def right(self) -> np.ndarray:
        """Whether the probe is right about each image at each depth, bool [n, depths]."""
        found: np.ndarray = self.predicted == self.label[:, None]
        return found

    @cached_property
    def settled(self) -> np.ndarray:
        """The prediction depth of each image, one of `depths`, int [n]."""
        found: np.ndarray = np.asarray(self.depths)[prediction_depth(self.predicted)]
        return found


def lines(run: RunFile, probes: Sequence[str] | None, pool: int) -> list[Line]:
    """Return the predictions of a run by probe: those named, or what it has of kNN and linear.

    Raises UserError where there are none, with the command that makes them.
    """
    for probe in probes or ():
        if probe not in SINGLE:
            raise UsageError(
                f"probe {probe!r} does not have one prediction of an image at a depth. Choices: {', '.join(SINGLE)}."
            )
    found = [line for probe in probes or USUAL if (line := _line(run, probe, pool, required=probes is not None))]
    if not found:
        raise _missing(run.path, " or ".join(USUAL), ",".join(USUAL), pool)
    return found


def _missing(run: Path, probe: str, wanted: str, pool: int) -> UserError:
    path, pools = predictions_path(run), "" if pool == 2 else f" --pool {pool}"
    lack = f"has none of probe {probe}, pool {pool}" if path.exists() else "does not exist"
    return UserError(
        f"{run} has no predictions of single images: {path} {lack}. `probe-depth {run} --probe {wanted}{pools}` makes "
        "them."
    )


def _line(run: RunFile, probe: str, pool: int, *, required: bool) -> Line | None:
    every = read_predicted(run, probe, pool)
    if not every:
        if required:
            raise _missing(run.path, probe, probe, pool)
        return None
    # Refits read more images than first fits: only one kind is compared over depths.
    depths = {one.name.depth for one in every}
    refit = int({one.name.depth for one in every if one.refit} == depths)
    own = [one for one in every if one.refit == refit]
    again = f"`probe-depth {run.path} --probe {probe}` makes those of all depths."
    if {one.name.depth for one in own} != depths:
        raise UserError(f"{run.path}: probe {probe} is refitted at some depths only. {again}")
    if len(own) < 2:
        raise UserError(f"{run.path}: probe {probe} was fitted at one depth ({own[0].name.depth}) only. {again}")
    if any(not np.array_equal(one.index, own[0].index) for one in own[1:]):
        raise UserError(f"{run.path}: probe {probe} has predictions of other images at some depths. {again}")
    return _in_order(probe, refit, own)


def _in_order(probe: str, refit: int, own: Sequence[Predicted]) -> Line:
    first, depths = own[0], [one.name.depth for one in own]
    order = np.argsort(first.index, kind="stable")
    predicted = np.column_stack([one.predicted for one in own])[order]
    return Line(probe, refit, depths, first.index[order], first.label[order], predicted)
