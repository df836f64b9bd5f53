"""run.predictions.h5: what each probe of a run predicts for every single image of the test split.

Paired comparisons of probes need the single predictions, which no accuracy gives. docs/format.md specifies the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from layerwise.errors import UserError
from layerwise.publication import is_there
from layerwise.runfile import RunFile
from layerwise.runfile.sealed import SealedFormat, create_sealed, open_sealed
from probes.probe import ProbeName
from probes.protocol import PROTOCOL_VERSION, Fit, Predictions
from probes.tasks.task import CLASS

FORMAT = SealedFormat(
    "layerwise-predictions", 2, "predictions of a run", "probe-depth", "Move it away, and run probe-depth again."
)


# Returns whether the probe of a name and a refit is right about each test image, bool by the image's index; None if
# nothing is kept.
ReadCorrect = Callable[[ProbeName, int], "pd.Series | None"]


def predictions_path(run_path: Path) -> Path:
    """Return where the single predictions of a run stand: x.predictions.h5 for x.h5."""
    return run_path.with_name(run_path.stem + ".predictions.h5")


def check_predictions(run_path: Path) -> None:
    """Raise UserError if what stands in the place of a run's predictions is something else."""
    path = predictions_path(run_path)
    if not is_there(path):
        return
    try:
        with open_sealed(path, FORMAT):
            pass
    except UserError as error:
        raise UserError(
            f"{path} would hold the predictions of {run_path.name}, but holds something else: {error} Move it away, or "
            "give the run another name."
        ) from None


def save_predictions(run: RunFile, index: np.ndarray, fitted: Sequence[tuple[ProbeName, Sequence[Fit]]]) -> None:
    """Put the test predictions of probes into the file, in the place of earlier ones of the same probes.

    Args:
        index: position [n] of each predicted image in the published split, as in samples/test/index.
    """
    path = predictions_path(run.path)
    with create_sealed(path, FORMAT) as file:
        if is_there(path):
            with open_sealed(path, FORMAT) as old:
                for group in old:
                    old.copy(group, file)
        for name, fit in ((name, fit) for name, fits in fitted for fit in fits):
            if "test" not in fit.scores:  # of a codelength, sums are reported
                continue
            group = _group(run.run_id, name, fit.refit)
            if group in file:
                del file[group]
            _write(file.create_group(group), index, fit.scores["test"])
            file[group].attrs.update({"run_id": run.run_id, **vars(name), "refit": fit.refit, "split": "test"})
            file[group].attrs["protocol_version"] = PROTOCOL_VERSION


@contextmanager
def open_correct(run: RunFile) -> Iterator[ReadCorrect]:
    """Yield what gives the outcomes of a run's probes: the file is opened, and all of it checked, once for all."""
    path = predictions_path(run.path)
    if not is_there(path):
        yield lambda name, refit: None
        return
    with open_sealed(path, FORMAT) as file:

        def read(name: ProbeName, refit: int) -> pd.Series | None:
            group = file.get(_group(run.run_id, name, refit))
            if group is None:
                return None
            return pd.Series(group["predicted"][:] == group["label"][:], index=group["index"][:])

        yield read


@dataclass(frozen=True)
class Predicted:
    """What one fitted probe says of each test image: index, label and predicted class, int [n] each."""

    name: ProbeName
    refit: int
    index: np.ndarray
    label: np.ndarray
    predicted: np.ndarray


def read_predicted(run: RunFile, probe: str, pooling: int) -> list[Predicted]:
    """Return the predictions of a probe without widths or seeds, of classes and native features, by depth and refit."""
    path = predictions_path(run.path)
    if not is_there(path):
        return []
    found = []
    with open_sealed(path, FORMAT) as file:
        for group in _fits(file, run.run_id):
            fields = {field: _plain(group.attrs[field]) for field in ProbeName.__dataclass_fields__}
            name = ProbeName(**fields)
            if name == ProbeName(depth=name.depth, probe=probe, pooling=pooling, precision=name.precision):
                arrays = [group[one][:] for one in ("index", "label", "predicted")]
                found.append(Predicted(name, int(group.attrs["refit"]), *arrays))
    return sorted(found, key=lambda one: (one.name.depth, one.refit))


def _fits(file: h5py.File, run_id: str) -> list[h5py.Group]:
    """Return the group of each fitted probe of a run: those that hold predictions."""
    found: list[h5py.Group] = []

    def see(name: str, one: h5py.Group | h5py.Dataset) -> None:
        if isinstance(one, h5py.Group) and "predicted" in one:
            found.append(one)

    if run_id in file:
        file[run_id].visititems(see)
    return found


def _plain(value: Any) -> Any:
    """Return an attribute as Python has it: numpy's whole numbers as int."""
    return value if isinstance(value, str) else int(value)


def paired(first: pd.Series | None, second: pd.Series | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Return what two `ReadCorrect` say of the images that both have, bool [n] each in one order, or None."""
    if first is None or second is None:
        return None
    both = pd.concat([first, second], axis=1, join="inner")
    return both[0].to_numpy(bool), both[1].to_numpy(bool)


def _group(run_id: str, name: ProbeName, refit: int) -> str:
    target = "" if name.target == CLASS else f"target-{name.target}/"
    return (
        f"{run_id}/{name.probe}/width-{name.probe_width}/seed-{name.probe_seed}/{name.control}/"
        f"pooling-{name.pooling}/{name.features}/{target}depth-{name.depth:02d}/refit-{refit}"
    )


def _write(group: h5py.Group, index: np.ndarray, scored: Predictions) -> None:
    group["index"] = index
    group["label"] = scored.label.astype(np.int32)
    group["predicted"] = scored.predicted.astype(np.int32)
    group["true_log_probability"] = scored.true_log_probability.astype(np.float32)
