"""Tests of analysis/separability.py: means and intervals against one-liners, coverage by simulation."""

from __future__ import annotations

import itertools
import logging
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.separability import curves, pooled_t
from figures.plots.caption import caption
from layerwise.errors import UsageError, UserError
from probes.results.intervals import wilson_interval
from tests.probe_rows import row, run_rows, table

# The variance by the images of two cells, where Student's interval is looked at alone.
NO_IMAGES = [[0.0], [0.0]]
COLUMNS = [
    *(
        "by",
        "probe",
        "probe_width",
        "pooling",
        "mode",
        "k",
        "width",
        "seed",
        "blocks",
        "batch_norm",
        "depth",
        "accuracy",
    ),
    *(
        "ci_low",
        "ci_high",
        "interval",
        "n_runs",
        "n_seeds",
        "ks",
        "widths",
        "variants",
        "chance",
        "dataset",
        "split",
        "n_samples",
    ),
    *(
        "epochs",
        "accuracy_half",
        "reads",
        "module",
        "certificate",
        "n_asked",
        "left_out",
        "did_not_train",
        "not_trained",
    ),
    *("refit", "selection", "protocol_version", "pixels", "pixels_low", "pixels_high"),
]


def one_point(values: dict[int, list[float]], **fields: Any) -> pd.Series:
    """Return the point of one depth of networks of the given accuracies, for each width one for each seed."""
    rows = []
    for width, seeds in values.items():
        rows += [
            row(value, run_id=f"{width}-{seed}", width=width, seed=seed, **fields) for seed, value in enumerate(seeds)
        ]
    (_, point), *others = curves(table(rows)).iterrows()
    assert not others
    return point


def test_columns_and_order() -> None:
    probes = (("cnn-2", 64), ("cnn-1", 128), ("cnn-1", 64), ("linear", 0))
    rows = run_rows([0.3, 0.5], probes, mode="untrained", k=1)
    rows += run_rows([0.3, 0.7], probes, mode="greedy", k=2) + run_rows([0.3, 0.6], probes, mode="greedy", k=1)
    made = curves(table(rows))
    assert list(made.columns) == COLUMNS
    panels = list(dict.fromkeys(zip(made["probe"], made["probe_width"], strict=True)))
    assert panels == [("linear", 0), ("cnn-1", 64), ("cnn-1", 128), ("cnn-2", 64)]
    first = made[made["probe"] == "linear"]
    assert first["accuracy"].tolist() == [0.3, 0.6, 0.3, 0.7, 0.3, 0.5]
    assert first["mode"].tolist() == ["greedy"] * 4 + ["untrained"] * 2
    assert first["depth"].tolist() == [0, 1] * 3


def test_one_run_keeps_its_own_interval() -> None:
    point = one_point({64: [0.8]}, ci_low=0.71, ci_high=0.87)
    assert (point["accuracy"], point["ci_low"], point["ci_high"]) == (0.8, 0.71, 0.87)
    assert point["interval"] == "test images (Wilson 95%)"
    assert (point["n_runs"], point["n_seeds"], point["widths"]) == (1, 1, "64")


def test_seeds_of_one_width_have_the_textbook_t_interval() -> None:
    values = [0.80, 0.83, 0.81, 0.86, 0.84]
    point = one_point({64: values})
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (point["ci_low"], point["ci_high"]) == pytest.approx(expected, abs=1e-12)
    assert point["accuracy"] == pytest.approx(np.mean(values), abs=1e-15)
    assert point["interval"] == "seeds (t 95%, at least the images' share)"
    assert (point["n_runs"], point["n_seeds"]) == (5, 5)


def test_widths_weigh_the_same_whatever_their_number_of_seeds() -> None:
    point = one_point({64: [0.5, 0.6, 0.7], 128: [0.9]})
    assert point["accuracy"] == pytest.approx((0.6 + 0.9) / 2)
    assert (point["n_runs"], point["n_seeds"], point["widths"]) == (4, 3, "64, 128")


def test_the_interval_is_that_of_least_squares_with_a_level_for_each_width() -> None:
    groups = {64: [0.80, 0.83, 0.81], 128: [0.85, 0.88, 0.86, 0.90], 256: [0.91]}
    design = np.repeat(np.eye(3), [3, 4, 1], axis=0)
    y = np.concatenate(list(groups.values()))
    level, (rss,), *_ = np.linalg.lstsq(design, y)
    mean, variance = np.ones(3) / 3, rss / 5 * np.linalg.inv(design.T @ design)
    half = stats.t.ppf(0.975, 5) * math.sqrt(mean @ variance @ mean)
    point = one_point(groups)
    assert (point["ci_low"], point["ci_high"]) == pytest.approx((mean @ level - half, mean @ level + half), abs=1e-12)


def test_the_difference_between_widths_does_not_widen_the_interval() -> None:
    near = pooled_t([[0.50, 0.52], [0.50, 0.52]], NO_IMAGES)
    far = pooled_t([[0.30, 0.32], [0.70, 0.72]], NO_IMAGES)
    assert far[1] - far[0] == pytest.approx(near[1] - near[0], abs=1e-12)


def test_auxiliary_width_is_a_fixed_factor_too() -> None:
    rows = [row(v, run_id=f"{v}", aux_width=a, seed=s) for v, a, s in [(0.5, 64, 0), (0.9, 128, 0)]]
    point = curves(table(rows)).iloc[0]
    assert (point["accuracy"], point["interval"], point["widths"]) == (0.7, "", "64")


def test_several_widths_of_one_seed_have_no_interval() -> None:
    point = one_point({64: [0.5], 128: [0.6]})
    assert point["accuracy"] == pytest.approx(0.55)
    assert np.isnan(point["ci_low"]) and np.isnan(point["ci_high"]) and point["interval"] == ""


def test_a_split_without_image_interval_has_none() -> None:
    point = one_point({64: [0.5]}, ci_low=math.nan, ci_high=math.nan)
    assert np.isnan(point["ci_low"]) and np.isnan(point["ci_high"]) and point["interval"] == ""


def test_coverage_of_the_pooled_interval() -> None:
    """The share of 4,000 intervals that hold the truth is 0.95 within four of its standard deviations."""
    rng = np.random.default_rng(0)
    levels, sizes, covered = (0.4, 0.5, 0.65), (3, 2, 4), 0
    for _ in range(4000):
        low, high = pooled_t([list(rng.normal(m, 0.01, n)) for m, n in zip(levels, sizes, strict=True)], [[0.0]] * 3)
        covered += bool(low <= np.mean(levels) <= high)
    assert covered / 4000 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4000))


def probe_seeds(values: list[float], **fields: Any) -> list[dict[str, Any]]:
    probe = {"probe": "cnn-1", "probe_width": 64, "pooling": 0}
    return [row(value, probe_seed=seed, **probe | fields) for seed, value in enumerate(values)]


def test_seeds_of_the_probe_of_one_network_are_averaged() -> None:
    point = curves(table(probe_seeds([0.70, 0.74, 0.78]))).iloc[0]
    assert point["accuracy"] == pytest.approx(0.74)
    assert point["interval"] == "test images (Wilson 95% at the mean of 3 probe seeds)"
    for end in (point["ci_low"], point["ci_high"]):  # Wilson's score equation, at 266.4 of 360 images
        assert abs(0.74 - end) == pytest.approx(stats.norm.ppf(0.975) * math.sqrt(end * (1 - end) / 360), rel=1e-9)
    assert point["ci_low"] < 0.74 < point["ci_high"]
    assert (point["n_runs"], point["n_seeds"]) == (1, 1)


def test_seeds_of_the_probe_are_no_seeds_of_the_network() -> None:
    rows = probe_seeds([0.6, 0.8], run_id="a", seed=0) + probe_seeds([0.71, 0.73], run_id="b", seed=1)
    point = curves(table(rows)).iloc[0]
    expected = stats.t.interval(0.95, 1, 0.71, stats.sem([0.7, 0.72]))
    assert (point["ci_low"], point["ci_high"]) == pytest.approx(expected, abs=1e-12)
    assert (point["interval"], point["n_runs"], point["n_seeds"]) == ("seeds (t 95%, at least the images' share)", 2, 2)


def test_intervals_stay_within_zero_and_one() -> None:
    assert pooled_t([[0.99, 1.0], [0.5, 1.0]], NO_IMAGES)[1] == 1.0
    assert pooled_t([[0.0, 0.2]], [[0.0]])[0] == 0.0


def test_seeds_of_equal_accuracy_have_the_interval_of_the_images_share() -> None:
    point = one_point({64: [0.8, 0.8], 128: [0.9, 0.9]}, n_samples=360)
    variance = sum(p * (1 - p) / 360 for p in (0.8, 0.9)) / 2 / 4  # of the mean of two seeds of two widths
    half = stats.norm.ppf(0.975) * math.sqrt(variance / 2)
    assert point["ci_high"] - point["accuracy"] == pytest.approx(half, rel=0.01)
    assert point["accuracy"] - point["ci_low"] == pytest.approx(half, rel=0.01)
    perfect = one_point({64: [1.0, 1.0]}, n_samples=360)
    assert 0.99 < perfect["ci_low"] < 1.0 == perfect["ci_high"]


def test_depths_that_a_network_of_the_line_lacks_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    rows = run_rows([0.3, 0.5, 0.6], run_id="a", seed=0) + run_rows([0.3, 0.5], run_id="b", seed=1)
    rows += run_rows([0.3, 0.5, 0.6], run_id="c", k=2)
    with caplog.at_level(logging.WARNING, logger="layerwise"):
        made = curves(table(rows))
    assert made.groupby("k")["depth"].agg(list).to_dict() == {1: [0, 1], 2: [0, 1, 2]}
    assert caplog.messages == [
        "probe linear, greedy, k = 1: depths 2 are left out, for not every run has them; `probe-depth` adds them."
    ]


def test_no_depth_in_common() -> None:
    rows = [row(0.5, run_id="a", depth=1), row(0.5, run_id="b", depth=2, seed=1)]
    with pytest.raises(UserError, match=r"^a.h5, b.h5 have no depth of probe linear in common. Probe them at"):
        curves(table(rows))


def test_what_was_used_is_said() -> None:
    rows = run_rows([0.3], run_id="a", seed=0) + run_rows([0.3], run_id="b", seed=1, refit=0, selection="seen")
    point = curves(table(rows)).iloc[0]
    assert (point["refit"], point["selection"], point["protocol_version"]) == (
        "0, 1",
        "seen, validation",
        "1",
    )


def test_one_chance_level_for_all() -> None:
    rows = run_rows([0.3], run_id="a", chance=0.10) + run_rows([0.3], run_id="b", k=2, chance=0.11)
    assert curves(table(rows))["chance"].tolist() == pytest.approx([0.105, 0.105])
    assert curves(table(run_rows([0.3], chance=0.1)))["chance"].tolist() == [0.1]


def test_networks_without_k_are_one_line() -> None:
    rows = run_rows([0.3, 0.6], run_id="a", mode="extracted", k=None, width=None, aux_width=None, seed=None)
    made = curves(table(rows + run_rows([0.3, 0.7], run_id="b")))
    extracted = made[made["mode"] == "extracted"]
    assert extracted["k"].isna().all() and extracted["accuracy"].tolist() == [0.3, 0.6]
    assert extracted["widths"].tolist() == ["", ""] and extracted["n_runs"].tolist() == [1, 1]


def crossed(**fields: Any) -> list[dict[str, Any]]:
    """Return networks of k = 1, 2, M = 64, 128 and seeds 0, 1, 2, without that of k = 2, M = 128, seed 2."""
    rng, rows = np.random.default_rng(1), []
    for k, width, seed in itertools.product((1, 2), (64, 128), (0, 1, 2)):
        if (k, width, seed) != (2, 128, 2):
            named = {"run_id": f"{k}-{width}-{seed}", "k": k, "width": width, "seed": seed, "n_samples": 1000}
            rows.append(row(float(0.5 + 0.1 * k + width / 1000 + rng.normal(0, 0.01)), **named | fields))
    return rows


@pytest.mark.parametrize(("by", "lines"), [("k", ["k"]), ("mode", []), ("width", ["width"])])
def test_what_is_no_line_is_a_fixed_factor(by: str, lines: list[str]) -> None:
    """A point and its interval are those of least squares with a level for each cell, of the mean of the levels."""
    rows = table(crossed(n_samples=1_000_000))  # so many that Student's interval is the wider one
    for _, point in curves(rows, by=by).iterrows():
        own = rows[[all(one[name] == point[name] for name in lines) for _, one in rows.iterrows()]]
        cells = pd.get_dummies(own["k"].astype(str) + "-" + own["width"].astype(str)).to_numpy(float)
        level, (rss,), *_ = np.linalg.lstsq(cells, own["value"].to_numpy())
        mean, freedom = np.full(len(level), 1 / len(level)), len(own) - len(level)
        half = stats.t.ppf(0.975, freedom) * math.sqrt(mean @ (rss / freedom * np.linalg.inv(cells.T @ cells)) @ mean)
        assert point["accuracy"] == pytest.approx(mean @ level, abs=1e-12)
        assert (point["ci_low"], point["ci_high"]) == pytest.approx(
            (mean @ level - half, mean @ level + half), abs=1e-12
        )
        assert (point["interval"], point["n_runs"]) == ("seeds (t 95%, at least the images' share)", len(own))


def test_a_line_says_what_it_stands_for_and_what_it_averages() -> None:
    made = {by: curves(table(crossed()), by=by) for by in ("k", "mode", "width", "seed")}
    assert made["k"][["k", "ks", "widths"]].to_numpy().tolist() == [[1, "1", "64, 128"], [2, "2", "64, 128"]]
    assert made["width"][["width", "ks"]].to_numpy().tolist() == [[64, "1, 2"], [128, "1, 2"]]
    assert made["seed"]["seed"].tolist() == [0, 1, 2] and made["seed"]["n_runs"].tolist() == [4, 4, 3]
    (point,) = made["mode"].to_dict("records")
    assert (point["mode"], point["ks"], point["widths"]) == ("greedy", "1, 2", "64, 128")
    assert all(pd.isna(point[name]) for name in ("k", "width", "seed", "batch_norm")) and point["blocks"] == 4


def test_a_line_of_one_seed_has_the_interval_over_images() -> None:
    """It is Wilson's, of the mean of the networks of that seed, by the score equation."""
    made = curves(table(crossed()), by="seed")
    for seed, point in made.set_index("seed").iterrows():
        values = [one["value"] for one in crossed() if one["seed"] == seed]
        assert point["accuracy"] == pytest.approx(np.mean(values))
        assert point["interval"] == f"test images (Wilson 95% at the mean of {len(values)} networks)"
        for end in (point["ci_low"], point["ci_high"]):
            half = stats.norm.ppf(0.975) * math.sqrt(end * (1 - end) / 1000)
            assert abs(np.mean(values) - end) == pytest.approx(half, rel=1e-9)


def test_one_network_of_one_seed_keeps_its_own_interval() -> None:
    made = curves(
        table([row(0.8, ci_low=0.71, ci_high=0.87, seed=seed, run_id=f"{seed}") for seed in (0, 1)]), by="seed"
    )
    assert made["interval"].tolist() == ["test images (Wilson 95%)"] * 2
    assert made[["ci_low", "ci_high"]].to_numpy().tolist() == [[0.71, 0.87]] * 2


def test_coverage_of_the_interval_over_images_at_the_mean_of_networks() -> None:
    """Of networks whose errors go together, as networks' do, at least 0.95 of 2,000 intervals hold the truth."""
    rng, covered, n = np.random.default_rng(0), 0, 200
    for _ in range(2000):
        hard = rng.uniform(size=n) < 0.3  # images that most networks are wrong about
        right = rng.uniform(size=(3, n)) < np.where(hard, 0.2, 0.95)
        low, high = wilson_interval(float(right.mean()), n)
        covered += bool(low <= 0.3 * 0.2 + 0.7 * 0.95 <= high)
    assert covered / 2000 > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 2000)


def test_an_unknown_factor() -> None:
    with pytest.raises(
        UsageError, match="^unknown factor 'depth'. Did you mean 'width'. Choices: k, mode, width, pool, seed, split.$"
    ):
        curves(table(crossed()), by="depth")


def test_other_variants_are_lines_of_their_own_and_a_variant_alone_is_named_in_words() -> None:
    plain, vgg = run_rows([0.3, 0.5], k=3), run_rows([0.3, 0.7], k=3, variant="VGG-11", experiment="f")
    still = run_rows([0.3, 0.4], k=3, mode="untrained", variant="VGG-11", experiment="f", run_id="u")
    for one in vgg:
        one["run_id"] = "v"
    made = curves(table(plain + vgg + still))
    assert made[made["depth"] == 1].set_index("mode")["accuracy"].to_dict() == {
        "greedy": 0.5, "VGG-11": 0.7, "VGG-11, untrained": 0.4,
    }  # fmt: skip
    alone = curves(table(vgg + still))
    assert set(alone["mode"]) == {"greedy", "untrained"} and set(alone["variants"]) == {"VGG-11"}
    assert "one network each (M = 64, VGG-11)" in caption(alone)
    assert "VGG-11, k = 3" in caption(made)


def shown_rows() -> list[dict[str, Any]]:
    """Return the rows of a run with two probes, of which one was evaluated on two sets of other images."""
    clean = run_rows([0.4, 0.9, 0.8], (("linear", 0), ("linear-ovr", 0)))
    return [
        *clean,
        *run_rows([0.3, 0.6, 0.7], split="noise/10", images_digest="a", images_folder="c/10", n_samples=300),
        *run_rows([0.4, 0.8, 0.75], split="noise/2", images_digest="b", images_folder="c/2", n_samples=300),
    ]


def test_lines_are_the_test_images_and_other_images_of_the_same_probe() -> None:
    found = curves(table(shown_rows()), by="split")
    assert list(dict.fromkeys(found["split"])) == ["test", "noise/2", "noise/10"]
    assert list(found["accuracy"]) == pytest.approx([0.4, 0.9, 0.8, 0.4, 0.8, 0.75, 0.3, 0.6, 0.7])
    assert set(found["probe"]) == {"linear"}  # the other was not evaluated
    assert set(found["interval"]) == {"images of each set (Wilson 95%)"}
    text = caption(found)
    assert "on digits, the same probes on the images of test (360), noise/2 (300), noise/10 (300)" in text
    assert "test; noise/2; noise/10: one network each" in text
    two = curves(table(shown_rows()), split=["test", "noise/10"], by="split")
    assert list(dict.fromkeys(two["split"])) == ["test", "noise/10"]


def test_one_set_of_other_images_is_a_split_as_others_are() -> None:
    found = curves(table(shown_rows()), split="noise/2")
    assert list(found["accuracy"]) == pytest.approx([0.4, 0.8, 0.75])
    assert "on digits, noise/2 split (300 images)" in caption(found)


def test_questions_that_other_images_do_not_answer() -> None:
    rows = table(shown_rows())
    with pytest.raises(UsageError, match="unknown split 'noise/3'. Did you mean 'noise/2'. Choices: train, validation"):
        curves(rows, split="noise/3")
    with pytest.raises(UsageError, match="found 2 splits, but lines are of k. Give one --split, or --by split."):
        curves(rows, split=["test", "noise/2"])
    with pytest.raises(UserError, match="the probes were evaluated on no other images, so there is one split to draw."):
        curves(table(run_rows([0.4, 0.9])), by="split")
    with pytest.raises(UserError, match="linear-ovr .found: test.. Give another --split, or evaluate it: `probe-depth"):
        curves(rows, ["linear-ovr"], split="noise/2")
    other = run_rows([0.4, 0.8], k=2, split="noise/2", images_digest="z", images_folder="d/2", n_samples=300)
    with pytest.raises(UserError, match=r"on different images that are called noise/2: c/2 \(.*\); d/2"):
        curves(pd.concat([rows, table(run_rows([0.4, 0.8], k=2) + other)]), split="noise/2")
