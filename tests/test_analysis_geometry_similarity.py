"""Tests of CKA and the shape distance: slow forms, what they do not change under, and what cannot be told."""

from __future__ import annotations

import math

import numpy as np
import pytest
from geometry_reference import jackknife_errors, slow_similarity

from analysis.geometry import similarity as module
from analysis.geometry import stream
from analysis.geometry.moments import moments
from analysis.geometry.similarity import MEASURES, similarities, similarity


def pair(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6)) + 3
    return x, x[:, :4] @ rng.normal(size=(4, 9)) + rng.normal(size=(n, 9))


def values(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    found = similarity(x, y)
    return np.array([found[name].value for name in MEASURES])


def test_the_slow_forms_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_BLOCK_VALUES", 100)  # seven blocks
    x, y = pair()
    expected = slow_similarity(x, y)
    assert values(x, y) == pytest.approx([expected[name] for name in MEASURES], rel=1e-10)
    errors = jackknife_errors(lambda rows: slow_similarity(x[rows], y[rows]), len(x))
    found = similarity(x, y)
    # Without an image CKA is made anew in closed form; the angle's influence is its derivative.
    assert found["cka"].error == pytest.approx(errors["cka"], rel=1e-8)
    assert found["cka_biased"].error == pytest.approx(errors["cka_biased"], rel=1e-8)
    assert found["procrustes"].error == pytest.approx(errors["procrustes"], rel=0.15)
    assert found["cka"].low == pytest.approx(found["cka"].value - 1.959964 * found["cka"].error)


def test_nothing_changes_by_rotation_scale_shift_and_order_of_features() -> None:
    x, y = pair()
    rng = np.random.default_rng(1)
    rotation = np.linalg.qr(rng.normal(size=(9, 9)))[0]
    for other in (y @ rotation, 1e3 * y, 1e-3 * y, y + 50, y[:, rng.permutation(9)], -y):
        assert values(x, other) == pytest.approx(values(x, y), rel=1e-9)
    # The converse: a scale for each feature is another representation.
    assert np.abs(values(x, y * np.arange(1, 10)) - values(x, y)).min() > 0.01
    assert values(y, x) == pytest.approx(values(x, y), rel=1e-10)
    assert values(x, x[:, ::-1] * 2) == pytest.approx([1, 1, 0], abs=1e-6)


def test_debiased_cka_of_unrelated_features_is_about_zero_where_the_biased_one_is_not() -> None:
    rng = np.random.default_rng(0)
    drawn = [similarity(rng.normal(size=(32, 40)), rng.normal(size=(32, 40))) for _ in range(40)]
    debiased, biased = ([one[name].value for one in drawn] for name in ("cka", "cka_biased"))
    assert abs(np.mean(debiased)) < 0.02 and np.mean(biased) > 0.5
    covered = [one["cka"].low <= 0 <= one["cka"].high for one in drawn]
    assert np.mean(covered) >= 0.9


def test_the_shape_distance_keeps_the_triangle_inequality() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        x, y, z = (rng.normal(size=(30, d)) for d in (3, 5, 4))
        xy, yz, xz = (similarity(*two)["procrustes"].value for two in ((x, y), (y, z), (x, z)))
        assert xz <= xy + yz and 0 < xz <= math.pi / 2


def test_pairs_share_a_pass_as_their_products_leave_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pair()
    sources = {0: x, 1: y, 2: np.hstack([x, y])}
    known = {key: moments(one) for key, one in sources.items()}
    pairs = [(0, 1), (0, 2), (1, 2)]
    whole = dict(similarities(sources, known, pairs))
    read: list[int] = []
    monkeypatch.setattr(module, "_PRODUCTS", 1)
    assert dict(similarities(sources, known, pairs, read.append)) == whole
    assert sum(read) == 3 * 2 * 60  # three tiles, each read twice


def test_one_feature_and_more_features_than_images() -> None:
    x, y = pair()
    one = similarity(x[:, :1], y[:, :1])
    correlation = np.corrcoef(x[:, 0], y[:, 0])[0, 1]
    assert one["cka_biased"].value == pytest.approx(correlation**2)
    assert one["procrustes"].value == pytest.approx(math.acos(abs(correlation)))
    few = np.random.default_rng(0).normal(size=(8, 50))
    assert values(few, few[:, :30]) == pytest.approx(
        [slow_similarity(few, few[:, :30])[name] for name in MEASURES], rel=1e-8
    )


def test_what_cannot_be_told_is_missing() -> None:
    x, y = pair()
    constant = np.full((60, 3), 0.1)
    for found in (similarity(x, constant), similarity(x[:4], y[:4]), similarity(x[:1], y[:1])):
        assert all(math.isnan(found[name].value) and math.isnan(found[name].low) for name in MEASURES)
