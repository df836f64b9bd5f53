"""The printed table: what its numbers are, that it fits 80 columns, what it warns of."""

from __future__ import annotations

import pandas as pd
from probe_rows import row

from probes.probe import ProbeName
from probes.results.baseline import Beside
from probes.results.report import beside_lines, lines


def probe_rows(**words: object) -> list[dict[str, object]]:
    """Return the rows of one linear probe at depth 2: fit, refit and gain."""
    about = {"depth": 2, "lambda": 3.2e-4, "learning_rate": None, "converged": 1, "test_reads": 1, "refit": 0} | words
    made = [row(value, **about | {"split": split}) for split, value in (("train", 0.9), ("validation", 0.8))]
    refitted = about | {"refit": 1}
    made.append(row(0.75, **refitted))
    for metric, value in (("gain", 0.05), ("gain_p", 0.001), ("gain_p_holm", 0.002)):
        made.append(row(value, **refitted | {"metric": metric}))
    return made


def table(*rows: list[dict[str, object]]) -> list[str]:
    return list(lines(pd.DataFrame([one for many in rows for one in many]), "run.h5: linear probe"))


def test_a_line_holds_the_choice_the_fit_the_refit_and_the_marked_gain() -> None:
    found = table(probe_rows())
    assert found[0] == "run.h5: linear probe; accuracy in %"
    assert found[2].split() == ["2", "2x2", "-", "3.2e-04", "90.00", "80.00", "75.00", "[70.28,", "79.19]", "+5.00*"]
    assert found[3] == "* a change: exact McNemar test on the same images, Holm-adjusted p < 0.05"
    assert found[4] == "test: refitted on train + validation; read once for these probes"


def test_every_line_fits_80_columns_even_with_several_probes() -> None:
    cnn = {"probe_width": 256, "pooling": 0, "lambda": None, "learning_rate": 0.02, "converged": None}
    found = table(probe_rows(probe="cnn-1", **cnn), probe_rows(probe="cnn-2", **cnn))
    assert all(len(line) <= 80 for line in found)
    assert any(line.endswith(" cnn-2") for line in found)


def falling(**words: object) -> list[dict[str, object]]:
    rows = probe_rows(**words)
    for one in rows:
        if one["metric"] == "gain":
            one["value"] = -0.05
    return rows


def test_a_fall_is_marked_as_a_gain_is() -> None:
    found = table(falling())
    assert found[2].endswith("-5.00*")
    unsure = falling()
    for one in unsure:
        if one["metric"] == "gain_p_holm":
            one["value"] = 0.2
    assert table(unsure)[2].endswith("-5.00")


def test_a_rise_of_one_seed_and_a_fall_of_another_are_not_marked() -> None:
    assert table(probe_rows(), falling(probe_seed=1))[2].endswith("+0.00")


def test_repeated_reads_are_said() -> None:
    found = table(probe_rows(test_reads=3))
    assert found[-1] == "test: refitted on train + validation; read 3 times for these probes"


def test_a_fit_that_missed_its_certificate_is_marked_and_named() -> None:
    found = table(probe_rows(converged=0))
    assert found[2].endswith(" !")
    assert "! NOT CONVERGED: the certificate in the rows is above its tolerance" in found


def test_several_seeds_are_averaged_and_their_spread_is_said() -> None:
    second = probe_rows(probe_seed=1)
    for one in second:
        one["value"] = float(one["value"]) - 0.02 if one["metric"] == "accuracy" else one["value"]
    found = table(probe_rows(), second)
    assert found[2].split()[4:7] == ["89.00", "79.00", "74.00"]
    assert found[-1] == "means over 2 probe seeds, whose accuracies deviate by 1.41 at most"


def test_the_teacher_gap_stands_in_the_place_of_the_gain() -> None:
    rows = [*probe_rows(control="teacher"), row(0.4, depth=2, control="teacher", metric="teacher_gap", refit=1)]
    found = table(rows)
    assert found[1].endswith(" gap")
    assert found[2].endswith("+40.00")


def test_a_baseline_stands_beside_with_its_interval() -> None:
    found = list(beside_lines([Beside(ProbeName(depth=3, probe="linear"), 0.8, 0.5, 0.25, 0.35)], "raw.h5"))
    assert found[0] == "beside raw.h5: test accuracy in %, paired over the same images"
    assert found[2].split() == ["3", "2x2", "-", "80.00", "50.00", "+30.00", "[+25.00,", "+35.00]", "linear"]
    seeds = [
        Beside(ProbeName(depth=3, probe="cnn-1", probe_width=64, pooling=0, probe_seed=s), 0.8, 0.5, 0.2, 0.4)
        for s in (0, 1)
    ]
    found = list(beside_lines(seeds, "raw.h5"))
    assert [line.split()[-2:] for line in found[2:]] == [["cnn-1,", "0"], ["cnn-1,", "1"]]
    assert all(len(line) <= 80 for line in found)


def test_choices_that_differ_between_the_seeds_are_not_one_number() -> None:
    other = [one | {"lambda": 1e-2} for one in probe_rows(probe_seed=1)]
    assert table(probe_rows(), other)[2].split()[3] == "several"


def test_a_depth_without_a_teacher_gap_shows_no_gain_in_its_column() -> None:
    rows = [*probe_rows(control="teacher"), row(0.4, depth=2, control="teacher", metric="teacher_gap", refit=1)]
    found = table(rows, probe_rows(control="teacher", depth=3))
    assert found[2].endswith("+40.00")
    assert found[3].endswith("]")


def test_a_cnn_probe_below_the_linear_one_is_marked_and_what_half_of_its_epochs_give_is_said() -> None:
    cnn = {"probe": "cnn-2", "probe_width": 256, "pooling": 0, "lambda": None, "learning_rate": 0.02, "converged": None}
    refitted = cnn | {"refit": 1, "depth": 2, "test_reads": 1}
    gap = [row(-0.2, metric="linear_gap", **refitted), row(0.01, metric="linear_gap_p_holm", **refitted)]
    found = table([*probe_rows(**cnn), *gap, row(0.762, metric="accuracy_half", **refitted)])
    assert found[2].endswith("+5.00*x")
    assert "x NOT TRAINED: significantly below the linear probe of its depth, by that test" in found
    assert "from half of the 12 epochs to all, test moves by -1.20 at most" in found
    assert all(len(line) <= 80 for line in found)
    gap[1]["value"] = 0.06
    assert table([*probe_rows(**cnn), *gap])[2].endswith("+5.00*")


def test_a_vector_is_not_said_to_be_pooled() -> None:
    maps, vectors = probe_rows(), probe_rows(map_height=1, map_width=1)
    assert [table(rows)[2].split()[1] for rows in (maps, vectors)] == ["2x2", "vector"]
