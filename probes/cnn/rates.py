"""run.candidates.csv: the scores of the learning rates tried for the CNN-p probes, and the choice made on them.

The rate of each p and width is chosen once for all depths of a run, so it must not depend on which depths were asked
for first, nor on where a sweep was stopped: what was tried is kept beside the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import pandas as pd

from layerwise.publication import published
from probes.csvfile import write_csv
from probes.protocol import PROTOCOL_VERSION, Predictions
from probes.results.columns import DIGEST, SCHEMA, Column
from probes.results.integrity import sealed
from probes.results.table import locked, parse_table

# Two rates, for each is another training at two depths (docs/protocol.md, "One rate for a curve"). For batches of 32.
LEARNING_RATES = (0.003, 0.01)
FIXED_LEARNING_RATE = 0.01
TRIAL_PART = 3


@dataclass(frozen=True)
class Setting:
    """What one rate is chosen for, and how it is tried.

    control: "teacher", or "none", whose rate permuted labels take over. iterations: epochs of the trial.
    """

    run_id: str
    probe: str
    probe_width: int
    control: str
    target: str
    iterations: int
    batch_size: int
    precision: str


_SETTING = [field.name for field in fields(Setting)]
_OF_RESULTS = {column.name: column for column in SCHEMA}
CANDIDATES = (
    *(_OF_RESULTS[name] for name in (*_SETTING, "protocol_version", "depth", "learning_rate")),
    Column("accuracy", "number", "of seed 0, trained on the train fold, on the validation fold"),
    Column("log_loss_bits", "number", "its log-loss there"),
    _OF_RESULTS[DIGEST],
)
COLUMNS = [column.name for column in CANDIDATES]


def trial_epochs(epochs: int) -> int:
    """Return for how many epochs rates are tried for probes of so many: a third."""
    return max(1, epochs // TRIAL_PART)


def candidates_path(run_path: Path) -> Path:
    """Return where the candidates of a run stand: x.candidates.csv for x.h5."""
    return run_path.with_name(run_path.stem + ".candidates.csv")


def read_candidates(run_path: Path) -> pd.DataFrame:
    """Return the scores of a run's candidates by this version of the protocol; none where there is no file.

    Raises:
        UserError: a file that is no such table.
    """
    path = candidates_path(run_path)
    table = _read(path) if path.exists() else pd.DataFrame(columns=COLUMNS)
    return table[table["protocol_version"] == PROTOCOL_VERSION]


def chosen_rate(table: pd.DataFrame, setting: Setting, rates: Sequence[float], depths: Sequence[int]) -> float | None:
    """Return that of the rates with the best mean validation accuracy over the given depths.

    Ties go to the lower mean log-loss. None where one of them was not tried at each of them.
    """
    own = table[(table[_SETTING] == list(astuple(setting))).all(axis=1) & table["depth"].isin(depths)]
    own = own[own["learning_rate"].isin(rates)]
    if len(own) < len(rates) * len(depths):
        return None
    means = own.groupby("learning_rate")[["accuracy", "log_loss_bits"]].mean()
    best = means.sort_values(["accuracy", "log_loss_bits"], ascending=[False, True], kind="stable")
    return float(best.index[0])


def save_candidates(run_path: Path, depth: int, tried: Sequence[tuple[Setting, float, Predictions]]) -> None:
    """Put what rates scored on the validation fold at a depth in place of what they scored there before."""
    rows = [
        (*astuple(setting), PROTOCOL_VERSION, depth, rate, scored.accuracy, scored.log_loss_bits, None)
        for setting, rate, scored in tried
    ]
    path = candidates_path(run_path)
    with locked(run_path), published(path, force=True) as temporary:
        new = pd.DataFrame(rows, columns=COLUMNS)
        if path.exists():
            new = pd.concat([_read(path), new])
        key = COLUMNS[: COLUMNS.index("learning_rate") + 1]
        table = new.drop_duplicates(key, keep="last").sort_values(key, kind="stable", ignore_index=True)
        write_csv(sealed(table, CANDIDATES), temporary)


def _read(path: Path) -> pd.DataFrame:
    return parse_table(path, "learning rates tried", CANDIDATES)
