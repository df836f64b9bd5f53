"""Tests of analysis/failures.py: which networks did not train, by an exact test on their own images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import make_run
from scipy import stats

from analysis.attribution import attribution
from analysis.contrasts import contrasts
from analysis.failures import LEVEL, failures, identified, is_above
from analysis.separability import curves
from analysis.training import training_curves
from figures import tables
from figures.plots import attribution as attribution_plot
from figures.plots import training as training_plot
from figures.plots.caption import caption
from figures.plots.lines import lines
from layerwise.errors import UserError
from tests.probe_rows import run_rows, table


@pytest.mark.parametrize("n", [50, 400, 5000])
def test_the_first_accuracy_that_counts_is_that_of_the_binomial_distribution(n: int) -> None:
    least = int(stats.binom.isf(LEVEL, n, 0.1)) + 1  # P(X >= least) <= LEVEL
    assert is_above(least / n, 0.1, n) and not is_above((least - 1) / n, 0.1, n)


def test_a_rate_at_which_nothing_is_learned_is_found_and_others_are_not(tmp_path: Path) -> None:
    good = make_run(tmp_path / "good.h5", **{"training.epochs": 2})
    bad = make_run(tmp_path / "bad.h5", **{"training.epochs": 1, "training.learning_rate": 1e-9})
    untrained = make_run(tmp_path / "untrained.h5", mode="untrained")
    found = failures([good, bad, untrained])
    assert list(found) == [bad]
    assert "% on its train fold, chance 10." in found[bad]


WORDS = "9.0% on its train fold, chance 10.0%"


def line(k: int, seeds: int, *failed: int, width: int = 8, **fields: Any) -> pd.DataFrame:
    """Return the rows of networks of one line, of which those of these seeds did not train."""
    values = {seed: [0.4, 0.1, 0.1, 0.1] if seed in failed else [0.4, 0.7, 0.75, 0.8] for seed in range(seeds)}
    fields = {"mode": "greedy", "k": k, "width": width} | fields
    found = table([r for seed in range(seeds) for r in run_rows(values[seed], seed=seed, **fields)])
    return found.assign(failed=found["seed"].map(lambda seed: WORDS if seed in failed else ""))


def test_a_network_that_did_not_train_is_named_and_in_no_mean(caplog: pytest.LogCaptureFixture) -> None:
    points = curves(pd.concat([line(1, 5, 1, 3), line(2, 2)]), ["linear"])
    own = points[points["k"] == 1]
    assert own["accuracy"].tolist() == pytest.approx([0.4, 0.7, 0.75, 0.8])
    assert set(own["n_runs"]) == {3} and set(own["n_asked"]) == {5} and set(own["did_not_train"]) == {""}
    assert set(points["left_out"]) == {f"greedy-1-8-1.h5 ({WORDS}); greedy-1-8-3.h5 ({WORDS})"}
    assert [record.message for record in caplog.records] == [
        f"greedy-1-8-{seed}.h5 did not train ({WORDS}): it is left out; --keep-failed averages it with others."
        for seed in (1, 3)
    ]
    words = caption(points)
    assert "k = 1: mean of 3 of 5 networks" in words and "k = 2: mean of 2 networks" in words
    assert (
        "2 networks left out, for they did not train (their own last classifier is not better than chance on their "
        f"train fold, exact binomial test at 0.001): greedy-1-8-1.h5 ({WORDS}), greedy-1-8-3.h5 ({WORDS})." in words
    )


def test_one_that_is_alone_in_its_line_is_drawn_and_the_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    points = curves(pd.concat([line(1, 1, 0), line(2, 2)]), ["linear"])
    assert set(points.loc[points["k"] == 1, "did_not_train"]) == {f"greedy-1-8-0.h5 ({WORDS})"}
    assert set(points["left_out"]) == {""} and points.loc[points["k"] == 1, "accuracy"].iloc[1] == 0.1
    assert [one.name for one in lines(points).values()] == ["k = 1, did not train", "k = 2"]
    assert "it is shown, for nothing is averaged with it." in caplog.text
    words = caption(points)
    assert "Shown, though it did not train (its own last classifier is not better than" in words
    # As lines of their own, seeds are no mean.
    by_seed = curves(line(1, 3, 2), ["linear"], by="seed")
    assert [one.name for one in lines(by_seed).values()] == ["seed 0", "seed 1", "seed 2, did not train"]


def test_one_word_averages_them_and_the_caption_still_names_them() -> None:
    points = curves(line(1, 5, 1, 3), ["linear"], keep_failed=True)
    assert points["accuracy"].iloc[1] == pytest.approx((3 * 0.7 + 2 * 0.1) / 5)
    assert set(points["n_runs"]) == {5} and set(points["left_out"]) == {""}
    assert "2 networks shown, though they did not train" in caption(points)


def test_where_none_of_several_trained_nothing_is_drawn() -> None:
    with pytest.raises(UserError) as error:
        curves(line(1, 2, 0, 1), ["linear"])
    assert str(error.value) == (
        "none of the 2 networks trained, so nothing is averaged. Train others, or give --keep-failed."
    )


def test_tables_say_how_many_trained() -> None:
    rows = pd.concat([line(1, 4, 1), line(2, 4)])
    _, shown = tables.of_rows(rows, "contrasts")
    assert shown.head[4] == "networks" and {row[4] for row in shown.rows} == {"3 of 4, 4"}
    assert any(note.startswith("Left out, for it did not train") for note in shown.notes)
    _, shown = tables.of_rows(line(1, 4), "accuracy")
    assert not any("train" in note for note in shown.notes)
    found, shown = tables.of_rows(rows, "trends")
    assert found["n_asked"].tolist() == [4, 4] and [row[4] for row in shown.rows] == ["3 of 4", "4"]
    found, shown = tables.of_rows(rows, "accuracy")
    assert "Networks that trained: greedy, k = 1, M = 8: 3 of 4." in shown.notes
    kept, shown = tables.of_rows(rows, "contrasts", keep_failed=True)
    assert "networks" not in shown.head and set(kept["n_first"]) == {4}


def test_a_table_of_some_probes() -> None:
    rows = line(1, 2, probes=(("linear", 0), ("cnn-1", 16)))
    heads = [list(tables.of_rows(rows, "accuracy", probes=probes)[1].head[4:]) for probes in (None, ["cnn-1"])]
    assert sorted(heads[0]) == ["CNN-1 (16)", "linear"] and heads[1] == ["CNN-1 (16)"]
    assert set(contrasts(pd.concat([rows, line(2, 2)]), ["linear"])["probe"]) == {"linear"}


def test_the_parts_of_a_gain_are_of_networks_that_trained() -> None:
    rows = pd.concat([line(2, 3, 1), line(2, 3, mode="untrained")])
    points = attribution(rows)
    assert set(points["n_networks"]) == {2} and set(points["n_asked"]) == {3}
    assert "k = 2: 2 of 3 networks" in attribution_plot.caption(points)
    assert "Left out, for it did not train" in attribution_plot.caption(points)


def test_training_curves_are_of_networks_that_trained(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"{seed}.h5", seed=seed, **{"training.epochs": 2}) for seed in (0, 1)]
    bad = make_run(tmp_path / "bad.h5", seed=2, **{"training.epochs": 2, "training.learning_rate": 1e-9})
    points = training_curves([*runs, bad])
    assert set(points["n_runs"]) == {2} and set(points["n_asked"]) == {3}
    assert set(training_curves([*runs, bad], keep_failed=True)["n_runs"]) == {3}
    assert "mean of 2 of 3 networks" in training_plot.caption(points)
    assert "Left out, for it did not train" in training_plot.caption(points)
    alone = training_curves([bad])
    assert "Shown, though it did not train" in training_plot.caption(alone)
    assert training_plot.draw(alone).axes[0].get_title() == "$k$ = 2, did not train"
    other = make_run(tmp_path / "k1.h5", **{"training.epochs": 2, "network.k": "1"})
    beside = training_curves([other, bad])
    assert [axes.get_title() for axes in training_plot.draw(beside).axes[:2]] == ["$k$ = 1", "$k$ = 2, did not train"]
    assert identified(bad)[1] == failures([bad])[bad]
