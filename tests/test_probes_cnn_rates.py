"""run.candidates.csv: what was tried, the choice made on it, and that nothing of it is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from layerwise.errors import UserError
from probes.cnn.rates import (
    CANDIDATES,
    COLUMNS,
    Setting,
    candidates_path,
    chosen_rate,
    read_candidates,
    save_candidates,
    trial_epochs,
)
from probes.csvfile import write_csv
from probes.protocol import Predictions
from probes.results.integrity import sealed

SETTING = Setting("r", "cnn-1", 64, "none", "class", 2, 32, "bf16")
RATES = FEW, SOME, MOST = (0.1, 0.2, 0.3)


def scored(right: int, loss: float = 1.0) -> Predictions:
    """Return predictions of ten images, `right` of them correct, each at a log-probability of -loss."""
    label = np.zeros(10, dtype=int)
    log = np.full(10, -loss)
    return Predictions(label, (np.arange(10) >= right).astype(int), log, log)


def keep(run: Path, depth: int, rights: tuple[int, int, int], setting: Setting = SETTING, loss: float = 1.0) -> None:
    save_candidates(run, depth, [(setting, rate, scored(n, loss)) for rate, n in zip(RATES, rights, strict=True)])


def test_the_best_mean_over_the_depths_is_chosen(tmp_path: Path) -> None:
    run = tmp_path / "x.h5"
    keep(run, 1, (9, 7, 1))
    keep(run, 4, (2, 5, 6))
    table = read_candidates(run)
    assert list(table.columns) == COLUMNS
    assert chosen_rate(table, SETTING, RATES, [1, 4]) == SOME
    assert chosen_rate(table, SETTING, RATES, [1]) == FEW
    assert chosen_rate(table, SETTING, RATES, [4]) == MOST
    assert candidates_path(run) == tmp_path / "x.candidates.csv"


def test_ties_go_to_the_lower_log_loss(tmp_path: Path) -> None:
    run = tmp_path / "x.h5"
    losses = zip(RATES, (1.0, 0.5, 0.7), strict=True)
    save_candidates(run, 1, [(SETTING, rate, scored(6, loss)) for rate, loss in losses])
    assert chosen_rate(read_candidates(run), SETTING, RATES, [1]) == SOME


@pytest.mark.parametrize(
    "other", [{"probe": "cnn-2"}, {"probe_width": 128}, {"control": "teacher"}, {"target": "hue"}, {"iterations": 3},
              {"batch_size": 256}, {"precision": "fp32"}, {"run_id": "s"}],
)  # fmt: skip
def test_every_setting_has_a_choice_of_its_own(tmp_path: Path, other: dict[str, object]) -> None:
    run = tmp_path / "x.h5"
    keep(run, 1, (9, 1, 1))
    keep(run, 1, (1, 1, 9), replace(SETTING, **other))
    table = read_candidates(run)
    assert chosen_rate(table, SETTING, RATES, [1]) == FEW
    assert chosen_rate(table, replace(SETTING, **other), RATES, [1]) == MOST


def test_a_rate_or_depth_that_is_missing_leaves_no_choice(tmp_path: Path) -> None:
    run = tmp_path / "x.h5"
    assert chosen_rate(read_candidates(run), SETTING, RATES, [1]) is None
    save_candidates(run, 1, [(SETTING, rate, scored(5)) for rate in RATES[:2]])
    assert chosen_rate(read_candidates(run), SETTING, RATES, [1]) is None
    keep(run, 1, (5, 5, 5))
    assert chosen_rate(read_candidates(run), SETTING, RATES, [1, 4]) is None


def test_scores_are_replaced_and_others_kept(tmp_path: Path) -> None:
    run = tmp_path / "x.h5"
    keep(run, 1, (9, 1, 1))
    keep(run, 4, (9, 1, 1))
    keep(run, 1, (1, 1, 9))
    table = read_candidates(run)
    assert len(table) == 6
    assert chosen_rate(table, SETTING, RATES, [1]) == MOST and chosen_rate(table, SETTING, RATES, [4]) == FEW


def test_an_older_protocol_chooses_nothing(tmp_path: Path) -> None:
    run = tmp_path / "x.h5"
    keep(run, 1, (9, 1, 1))
    table = pd.read_csv(candidates_path(run)).assign(protocol_version=1)
    write_csv(sealed(table, CANDIDATES), candidates_path(run))
    assert chosen_rate(read_candidates(run), SETTING, RATES, [1]) is None


@pytest.mark.parametrize(("text", "message"), [("a,b\n1,2\n", "lacks the column 'run_id'"), ("", "cannot be read as")])
def test_another_file_in_its_place_is_refused_and_kept(tmp_path: Path, text: str, message: str) -> None:
    run = tmp_path / "x.h5"
    candidates_path(run).write_text(text)
    with pytest.raises(UserError, match=f"x.candidates.csv .*{message}.* Move it away"):
        read_candidates(run)
    with pytest.raises(UserError, match=message):
        keep(run, 1, (1, 1, 1))
    assert candidates_path(run).read_text() == text


def test_rates_are_tried_for_a_third_of_the_epochs() -> None:
    assert [trial_epochs(n) for n in (1, 2, 3, 12, 14)] == [1, 1, 1, 4, 4]
