"""The grid: settings of each mode and k, chosen on the validation fold from a stated few, the same few for every mode.

One network for each point of the grid is trained at the smallest M, with a seed that no network of the study has. Its
last classifier's validation accuracy chooses, ties go to the lower log-loss; the test split chooses nothing.

study/grid/NAME.json     what a point of the grid reached, written when it is trained
study/choices.csv        all of them, with the chosen one of each mode and k
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from figures.study.definition import GRID, INITIALISATION, RATE, Study, Unit
from layerwise.errors import DivergedError, UserError
from layerwise.publication import published
from layerwise.settings import set_fields

if TYPE_CHECKING:
    from layerwise.config import RunConfig
    from layerwise.runfile import RunFile
    from layerwise.runfile.place import Place

SEED = 2**32 - 2  # no network of a study has it


@dataclass(frozen=True)
class Trial:
    """A point of the grid: one network of a mode and k, with the settings that are tried."""

    mode: str
    k: int
    width: int
    initialisation: str
    rate: float

    @property
    def name(self) -> str:
        return f"{self.mode}-k{self.k}-M{self.width}-{self.initialisation}-{self.rate:g}"

    @property
    def kind(self) -> str:
        """What it is in the table of costs."""
        return f"grid {self.mode} k={self.k}"

    @property
    def settings(self) -> dict[str, Any]:
        return {INITIALISATION: self.initialisation, RATE: self.rate}


# What a process or a job of a cluster works on.
Piece = Unit | Trial


def trials(study: Study) -> list[Trial]:
    """Return every point of the grid of a study; none where it chooses nothing, or a mode has its settings by --set."""
    found = []
    for mode in ("greedy", *study.modes):
        for k in study.ks:
            config = study.config(Unit(mode, k, min(study.widths), SEED))
            asked = replace(study, chosen={}).config(Unit(mode, k, min(study.widths), SEED))
            free = study.free(mode, k)
            starts = GRID[INITIALISATION] if INITIALISATION in free else (config.network.initialisation,)
            # Three digits, so that names and tables show the very rate.
            base = asked.training.learning_rate
            rates = [float(f"{base * share:.3g}") for share in GRID[RATE]] if RATE in free else [base]
            if free:
                found += [Trial(mode, k, min(study.widths), start, rate) for start in starts for rate in rates]
    return found


def trial_config(study: Study, trial: Trial) -> RunConfig:
    """Return the configuration of a point of the grid: that of a network of its mode and k, with what is tried."""
    return set_fields(study.config(Unit(trial.mode, trial.k, trial.width, SEED)), trial.settings)


def attempt(folder: Path, study: Study, trial: Trial, place: Place) -> None:
    """Train a point of the grid and write what it reached; a training that was stopped goes on."""
    from layerwise import ranks
    from layerwise.training.run import train_run

    try:
        if not ranks.by_first(place.out.exists):
            train_run(trial_config(study, trial), place)
        has_trained = True
    except DivergedError:
        has_trained = False
    ranks.by_first(lambda: _conclude(folder, trial, place.out, has_trained))


def _conclude(folder: Path, trial: Trial, out: Path, has_trained: bool) -> None:
    """Write what a point of the grid reached, and remove its run file and what was trained."""
    reached: dict[str, Any] = {"epochs": None, "validation_accuracy": None, "validation_log_loss": None}
    if has_trained:
        with _opened(out) as run:
            reached = _reached(run)
    else:
        shutil.rmtree(out.with_name(out.name + ".state"), ignore_errors=True)
    with published(_path(folder, trial), force=True) as temporary:
        row = {"mode": trial.mode, "k": trial.k, "width": trial.width, **trial.settings, **reached}
        temporary.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    out.unlink(missing_ok=True)  # its activations are of no use


def run_of(folder: Path, trial: Trial) -> Path:
    """Return where the run file of a point of the grid stands, as long as it is needed."""
    return folder / "grid" / f"{trial.name}.h5"


def left(folder: Path, study: Study) -> list[Trial]:
    """Return the points of the grid that are not done."""
    return [trial for trial in trials(study) if not _path(folder, trial).exists()]


def results(folder: Path, study: Study) -> list[dict[str, Any]]:
    """Return what the points of the grid reached that are done, in their order, with `chosen`: 1 or 0."""
    done = [_read(_path(folder, trial)) for trial in trials(study) if _path(folder, trial).exists()]
    best = {kind: max(rows, key=_merit) for kind, rows in _by_kind(done)}
    return [row | {"chosen": int(row is best[row["mode"], row["k"]])} for row in done]


def with_choices(folder: Path, study: Study) -> Study:
    """Return the study with the settings that the grid chose, of each mode and k whose points are all done."""
    undone = {(trial.mode, trial.k) for trial in left(folder, study)}
    chosen = {
        f"{row['mode']}-k{row['k']}": {name: row[name] for name in GRID}
        for row in results(folder, study)
        if row["chosen"] and (row["mode"], row["k"]) not in undone
    }
    return replace(study, chosen=chosen)


def require_choices(rows: Sequence[dict[str, Any]]) -> None:
    """Raise UserError where no point of a grid was trained without a loss that is no number."""
    for (mode, k), own in _by_kind(rows):
        if all(row["validation_accuracy"] is None for row in own):
            raise UserError(
                f"none of the {len(own)} settings tried for {mode}, k = {k} could be trained: the loss was not finite. "
                "Give a lower --set training.learning_rate, and another -o."
            )


def _by_kind(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[tuple[str, int], list[dict[str, Any]]]]:
    for kind in dict.fromkeys((row["mode"], row["k"]) for row in rows):
        yield kind, [row for row in rows if (row["mode"], row["k"]) == kind]


def _merit(row: dict[str, Any]) -> tuple[float, float]:
    """Return what chooses, more being better."""
    if row["validation_accuracy"] is None:
        return -1.0, 0.0
    return row["validation_accuracy"], -row["validation_log_loss"]


def _opened(path: Path) -> RunFile:
    from layerwise.runfile import RunFile

    return RunFile(path)


def _reached(run: RunFile) -> dict[str, Any]:
    """Return what the network's own last classifier reaches on the validation fold; log-loss in nats."""
    from scipy.special import log_softmax

    assert run.config is not None
    logits = run.outputs(run.config.network.depth, "validation")
    assert logits is not None
    labels = run.labels("validation")
    scores = log_softmax(logits.astype(float), axis=1)
    return {
        "epochs": run.config.training.epochs,
        "validation_accuracy": float((logits.argmax(1) == labels).mean()),
        "validation_log_loss": float(-scores[range(len(labels)), labels].mean()),
    }


def _path(folder: Path, trial: Trial) -> Path:
    return folder / "grid" / f"{trial.name}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _merit(row)
        {name: row[name] for name in ("mode", "k", *GRID)}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged. Delete it, and the same command trains it again.") from None
    return row
