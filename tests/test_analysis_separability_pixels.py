"""The raw pixels beside a linear panel: those of its own probe, split and refit, whichever runs have them."""

from __future__ import annotations

import numpy as np
import pytest
from probe_rows import row, run_rows, table

from analysis.separability import PIXELS, curves
from probes.results.intervals import wilson_interval


def pixels(value: float, **fields: object) -> dict[str, object]:
    return row(value, run_id="greedy-1-64-0", depth=0, pooling=0, **fields)


def test_they_stand_beside_every_point_of_their_probe_and_make_no_panel() -> None:
    probes = (("linear", 0), ("linear-ovr", 0), ("cnn-1", 64))
    rows = run_rows([0.3, 0.5], probes, mode="greedy", k=1, width=64, seed=0)
    rows += [pixels(0.41), pixels(0.38, probe="linear-ovr"), pixels(0.9, split="train"), pixels(0.4, refit=0)]
    rows += [pixels(0.2, control="permuted"), pixels(0.99, target="hue"), pixels(1.9, metric="log_loss_bits")]
    made = curves(table(rows))
    assert set(made["pooling"]) == {0, 2}
    assert len(made) == 6
    by_probe = made.groupby("probe")["pixels"].unique()
    assert by_probe["linear"].tolist() == [0.41]
    assert by_probe["linear-ovr"].tolist() == [0.38]
    assert np.isnan(by_probe["cnn-1"]).all()
    first = made[made["probe"] == "linear"].iloc[0]
    assert tuple(first[PIXELS[1:]]) == pytest.approx(wilson_interval(0.41, 360))


def test_they_are_missing_where_no_run_has_them() -> None:
    made = curves(table(run_rows([0.3, 0.5], mode="greedy", k=1, width=64, seed=0)))
    assert made[PIXELS].isna().all(axis=None)


def test_runs_whose_penalties_are_not_chosen_alike_have_their_own() -> None:
    """A network that has seen all of train has no refitted probe; one beside it has both, of which one is drawn."""
    rows = [*run_rows([0.3, 0.5], mode="greedy", k=1, width=64, seed=0), pixels(0.41), pixels(0.4, refit=0)]
    seen = run_rows([0.3, 0.7], mode="greedy", k=2, width=64, seed=0, refit=0)
    seen += [row(0.26, run_id="greedy-2-64-0", k=2, depth=0, pooling=0, refit=0)]
    made = curves(table(rows + seen))
    assert {int(k): set(own["pixels"]) for k, own in made.groupby("k")} == {1: {0.41}, 2: {0.26}}
