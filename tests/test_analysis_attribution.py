"""Tests of analysis/attribution.py: the parts add up, intervals cover, and what is missing is said."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import attribution as module
from analysis.attribution import OVER_SEEDS, PARTS, attribution
from layerwise.errors import UsageError, UserError
from layerwise.spoken import FUNCTIONS, Python
from tests.probe_rows import run_rows, table

# Accuracy at depth 0, 1, 2 of each kind of network.
LEVELS = {
    "greedy": (0.2, 0.60, 0.70),
    "untrained": (0.2, 0.50, 0.45),
    "end-to-end": (0.2, 0.58, 0.75),
    "linear": (0.2, 0.45, 0.42),
    "projected": (0.30, 0.25),
}


def study(
    seeds: int = 3,
    widths: tuple[int, ...] = (8, 16),
    ks: tuple[int, ...] = (1, 2, 3),
    noise: float = 0.0,
    start: int = 0,
    n_samples: int = 1_000_000,
) -> list[dict[str, Any]]:
    """Return the rows of a study whose networks have these accuracies, and their own noise.

    Images are so many that the spread is that of seeds alone.
    """
    rng, rows = np.random.default_rng(start), []

    def values(levels: tuple[float, ...], width: int) -> list[float]:
        inside = [level + width / 1000 + rng.normal(0, noise) for level in levels[1:]]
        return [levels[0], *(float(value) for value in inside)]

    for width in widths:
        for seed in range(seeds):
            same = {"width": width, "aux_width": 64, "seed": seed, "n_samples": n_samples}
            for k in ks:
                rows += run_rows(values(LEVELS["greedy"], width), mode="greedy", k=k, **same)
                rows += run_rows(values(LEVELS["end-to-end"], width), mode="end-to-end", k=k, **same)
            for k in [k for k in ks if k == 1] + [k for k in ks if k > 1][:1]:
                rows += run_rows(values(LEVELS["untrained"], width), mode="untrained", k=k, **same)
                kind = {"mode": "untrained, linear", "activation": "none"}
                own = run_rows(values(LEVELS["linear"], width), k=k, **kind, **same)
                rows += own
                for depth, level in enumerate(LEVELS["projected"], start=1):
                    first = next(row for row in own if row["depth"] == depth)
                    rows += [first | {"features": "input", "probe_seed": draw, "value": level} for draw in range(3)]
    return rows


def test_parts_are_the_differences_of_their_two_networks() -> None:
    found = attribution(table(study())).set_index(["k", "depth", "part"])["value"]
    for k in (1, 2, 3):
        for depth in (1, 2):
            mean = {kind: LEVELS[kind][depth] + 0.012 for kind in ("greedy", "untrained", "linear", "end-to-end")}
            expected = {
                "pooling": LEVELS["projected"][depth - 1] - 0.2,
                "width": mean["linear"] - LEVELS["projected"][depth - 1],
                "relu": mean["untrained"] - mean["linear"],
                "training": mean["greedy"] - mean["untrained"],
                "left": mean["end-to-end"] - mean["greedy"],
            }
            assert found[k, depth].to_dict() == pytest.approx(expected)


def test_the_parts_add_up_to_the_gain_over_the_input() -> None:
    rows = table(study(noise=0.02))
    found = attribution(rows)
    for (k, depth), parts in found.groupby(["k", "depth"]):
        for mode, names in (("greedy", list(PARTS)[:4]), ("end-to-end", list(PARTS))):
            own = rows[(rows["mode"] == mode) & (rows["k"] == k)]
            gain = own.loc[own["depth"] == depth, "value"].mean() - own.loc[own["depth"] == 0, "value"].mean()
            assert parts.set_index("part").loc[names, "value"].sum() == pytest.approx(gain)


def test_the_untrained_network_of_another_k_stands_for_k_3_but_none_without_batch_norm_does() -> None:
    rows = [row | {"value": 0.4} if row["mode"] == "untrained" and row["k"] == 1 else row for row in study()]
    found = attribution(table(rows)).set_index(["k", "depth", "part"])["value"]
    assert found[1, 2, "training"] == pytest.approx(0.712 - 0.4)
    assert found[2, 2, "training"] == found[3, 2, "training"] == pytest.approx(0.25)


def test_what_is_the_same_for_both_networks_of_a_seed_widens_no_interval() -> None:
    shift = {0: 0.0, 1: 0.1, 2: -0.1}
    moved = [row | {"value": row["value"] + shift[row["seed"]] * (row["depth"] > 0)} for row in study(noise=0.01)]
    before, after = (attribution(table(rows)).set_index("part").loc["left"] for rows in (study(noise=0.01), moved))
    assert (after["ci_high"] - after["ci_low"]).tolist() == pytest.approx(
        (before["ci_high"] - before["ci_low"]).tolist()
    )
    assert set(after["interval"]) == {OVER_SEEDS}


def test_seeds_that_agree_by_luck_have_the_interval_of_the_images_share() -> None:
    found = attribution(table(study(seeds=2, widths=(8,), ks=(1,), n_samples=360))).set_index(["part", "depth"])
    half = (found["ci_high"] - found["ci_low"]) / 2
    greedy, untrained, projected = (p * (1 - p) / 360 for p in (0.708, 0.458, 0.25))
    assert half["training", 2] == pytest.approx(1.96 * math.sqrt((greedy + untrained) / 2 / 2), rel=0.02)
    # The pooled input is the same for both seeds: it varies by no image.
    assert half["pooling", 2] == pytest.approx(1.96 * math.sqrt(projected / 2 / 2), rel=0.02)


def test_intervals_over_seeds_cover_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    # Twelve depths a study, each with its own noise, are as many intervals as twelve studies, and far sooner made.
    for kind, level in {"greedy": 0.6, "untrained": 0.5, "linear": 0.45, "end-to-end": 0.58}.items():
        monkeypatch.setitem(LEVELS, kind, (0.2, *[level] * 12))
    monkeypatch.setitem(LEVELS, "projected", (0.25,) * 12)
    covered: list[bool] = []
    for start in range(10):
        found = attribution(table(study(ks=(1,), noise=0.02, start=start))).query("part == 'training'")
        covered += list((found["ci_low"] <= 0.1) & (found["ci_high"] >= 0.1))
    assert len(covered) == 120
    assert np.mean(covered) == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 120))


def test_one_seed_has_the_interval_over_images_and_never_both(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(study(seeds=1, widths=(8,), ks=(1,)))
    rng = np.random.default_rng(0)
    right: dict[float, pd.Series] = {}

    def outcomes(own: pd.DataFrame) -> pd.Series:
        level = float(own["value"].mean())
        return right.setdefault(level, pd.Series((rng.uniform(size=2000) < level).astype(float)))

    monkeypatch.setattr(module, "outcomes", outcomes)
    found = attribution(rows)
    assert set(found["interval"]) == {"test images (paired bootstrap 95%)"}
    for row in found.to_dict("records"):
        # the mean of differences of independent outcomes: an interval of about 4 standard errors
        assert 0.02 < row["ci_high"] - row["ci_low"] < 0.07
    monkeypatch.setattr(module, "outcomes", lambda own: None)
    without = attribution(rows)
    assert without["interval"].tolist() == [""] * len(without) and without["ci_low"].isna().all()


def test_what_is_missing_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("layerwise").propagate = True
    rows = [row for row in study() if row["mode"] != "end-to-end" and row["features"] == "native"]
    found = attribution(table(rows))
    assert set(found["part"]) == {"relu", "training"}
    said = "no run is end-to-end, so what greedy training leaves is not shown: "
    command = "`layerwise-train --mode end-to-end` makes one, `separability-study --with end-to-end` those of a study."
    assert said + command in caplog.text
    python = Python(FUNCTIONS["separability-study"], {"beside": None}).text(command)
    assert "`figures.run_study(beside='end-to-end')` those of a study." in python
    assert "--probe linear --features input`" in caplog.text


def test_without_networks_without_relu_only_training_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("layerwise").propagate = True
    found = attribution(table([row for row in study() if row["activation"] == "relu"]))
    assert set(found["part"]) == {"training", "left"}
    assert "no run is untrained and without relu" in caplog.text


def test_an_untrained_network_has_the_first_weights_of_the_greedy_one_beside_it() -> None:
    def kaiming(row: dict[str, Any]) -> dict[str, Any]:
        return row | {"initialisation": "kaiming"}

    rows = [kaiming(row) if row["mode"] == "greedy" and row["k"] == 3 else row for row in study()]
    other = [
        kaiming(row) | {"mode": f"{row['mode']}, kaiming", "run_id": f"kaiming {row['run_id']}"}
        for row in rows
        if row["mode"].startswith("untrained")
    ]
    other = [row | ({"value": row["value"] - 0.1} if row["activation"] == "relu" else {}) for row in other]
    found = attribution(table([*rows, *other])).set_index(["k", "depth", "part"])["value"]
    assert found[3, 2, "training"] - found[2, 2, "training"] == pytest.approx(0.1)


def test_the_raw_pixels_are_a_reference() -> None:
    pixels = run_rows([0.65], mode="greedy", k=1, width=8, aux_width=64, seed=0, pooling=0)
    found = attribution(table([*study(), *pixels]))
    assert found["pixels"].tolist() == pytest.approx([0.45] * len(found))
    assert attribution(table(study()))["pixels"].isna().all()


def test_a_greedy_network_without_its_untrained_one_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("layerwise").propagate = True
    rows = [r for r in study() if not (r["mode"] == "untrained" and r["seed"] == 2 and r["width"] == 8 and r["k"] == 2)]
    found = attribution(table(rows))
    assert found.set_index(["k", "depth", "part"])["n_networks"].groupby("k").first().to_dict() == {1: 6, 2: 5, 3: 5}
    assert "greedy-2-8-2.h5 is left out of the attribution: no untrained network of its k, widths, seed" in caplog.text


@pytest.mark.parametrize("mode", ["greedy", "untrained"])
def test_without_greedy_or_untrained_networks_there_is_nothing_to_split(mode: str) -> None:
    rows = table([row for row in study() if row["mode"] != mode])
    with pytest.raises(UserError, match=f"^no run is {mode}, .*--mode {mode} --out {mode}.h5` makes one"):
        attribution(rows)


def test_no_pair_at_all() -> None:
    rows = [row | {"seed": row["seed"] + 10} if row["mode"] == "untrained" else row for row in study()]
    with pytest.raises(
        UserError, match="^no greedy network has an untrained one of its width, seed and initialisation"
    ):
        attribution(table(rows))


def test_results_of_an_older_version_do_not_say_whether_there_is_batch_norm() -> None:
    rows = table([row | {"batch_norm": None} for row in study()])
    with pytest.raises(UserError, match="of an older version, do not say whether the network has BatchNorm"):
        attribution(rows)


def test_another_probe_is_refused() -> None:
    with pytest.raises(UsageError, match="^unknown linear probe 'cnn-1'"):
        attribution(table(study()), "cnn-1")
