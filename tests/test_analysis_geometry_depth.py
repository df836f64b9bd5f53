"""Tests of the measures of one depth: slow forms, what they do not change under, intervals, and what cannot be told."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from geometry_reference import (
    slow_classes,
    slow_decisions,
    slow_dimensions,
    slow_spectrum,
    standard_errors,
)

from analysis.geometry import stream
from analysis.geometry.depth import geometry
from analysis.geometry.influence import Influences, Measured
from analysis.geometry.neighbors import intrinsic_dimensions
from layerwise.errors import UserError

CLASSES = ("nc1", "nc2_norms", "nc2_angles", "nc3", "nc4", "cdnv", "fisher_ratio", "margin", "ncm_error")


def drawn(n: int, d: int, K: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features [n, d] and labels of K unequal classes."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.repeat(np.arange(K), 3), rng.choice(K, n - 3 * K)])
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 2 * rng.normal(size=(K, d))[y] + 5, y


def measures(x: np.ndarray, y: np.ndarray | None = None, **how: Any) -> dict[str, Measured]:
    return dict(geometry(x, y, **how).measures)


@pytest.mark.parametrize(("n", "d", "K"), [(60, 7, 4), (60, 3, 5), (50, 5, 2)])
def test_the_slow_forms_agree(n: int, d: int, K: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_BLOCK_VALUES", 100)
    x, y = drawn(n, d, K)
    found = measures(x, y)

    def slow(w: np.ndarray) -> dict[str, float]:
        return slow_spectrum(x, w) | slow_classes(x, y, w)

    errors = standard_errors(slow, n)
    for name, value in slow(np.ones(n)).items():
        assert found[name].value == pytest.approx(value, rel=1e-9, abs=1e-12), name
        assert found[name].error == pytest.approx(errors[name], rel=1e-6, abs=1e-9), name
    nc4, margin, ncm_error = slow_decisions(x, y)
    assert found["nc4"].value == nc4
    assert found["margin"].value == pytest.approx(margin, rel=1e-9)
    assert found["ncm_error"].value == ncm_error
    for name, value in slow_dimensions(x).items():
        assert found[name].value == pytest.approx(value, rel=1e-9), name


def test_only_sparsity_knows_the_axes() -> None:
    x, y = drawn(70, 6, 3)
    rng = np.random.default_rng(1)
    before = measures(x, y)
    others = [x @ np.linalg.qr(rng.normal(size=(6, 6)))[0], 1e3 * x, x + 20, x[:, rng.permutation(6)]]
    for other in others:
        found = measures(other, y)
        for name in set(before) - {"zeros", "hoyer", "dead"}:
            expected = (before[name].value, before[name].error)
            assert (found[name].value, found[name].error) == pytest.approx(expected, rel=1e-7), name
    for other in (1e3 * x, x[:, rng.permutation(6)]):
        assert measures(other)["hoyer"].value == pytest.approx(before["hoyer"].value)
    assert measures(x @ np.diag(np.arange(1, 7)))["effective_rank"].value != pytest.approx(
        before["effective_rank"].value, rel=1e-3
    )


def test_dimensions_of_what_is_known() -> None:
    rng = np.random.default_rng(0)
    plane = rng.uniform(size=(800, 2)) @ rng.normal(size=(2, 30))
    found = intrinsic_dimensions(plane.astype(np.float32))
    for name in ("twonn", "mle"):
        assert found[name].value == pytest.approx(2, abs=0.15)
    round_cloud = np.linalg.qr(rng.normal(size=(64, 8)))[0]
    of_covariance = measures(np.vstack([round_cloud, -round_cloud]))
    assert of_covariance["effective_rank"].value == pytest.approx(8)
    assert of_covariance["participation_ratio"].value == pytest.approx(8)


def test_intervals_of_dimensions_are_as_wide_as_repeated_draws_differ() -> None:
    rng = np.random.default_rng(0)
    found = [intrinsic_dimensions(rng.normal(size=(150, 4))) for _ in range(60)]
    for name, most in (("twonn", 1.3), ("mle", 1.6)):
        spread = np.std([one[name].value for one in found], ddof=1)
        assert 0.75 < np.mean([one[name].error for one in found]) / spread < most


def test_the_interval_of_a_margin_counts_the_class_means() -> None:
    rng = np.random.default_rng(3)
    y = np.arange(120) % 3
    centres = rng.normal(size=(3, 4))
    found = [measures(rng.normal(size=(120, 4)) + centres[y], y)["margin"] for _ in range(80)]
    ratio = np.mean([one.error for one in found]) / np.std([one.value for one in found], ddof=1)
    assert 0.85 < ratio < 1.3


def test_near_duplicates_and_duplicates_do_not_spoil_a_dimension() -> None:
    rng = np.random.default_rng(0)
    x = (rng.uniform(size=(300, 3)) @ rng.normal(size=(3, 20)) + 100).astype(np.float32)
    near = x.copy()
    near[0] = near[1] = x[2]
    near[1, 0] = np.nextafter(near[1, 0], np.float32(np.inf))
    found, clean = intrinsic_dimensions(near), intrinsic_dimensions(x[2:])
    assert found["twonn"].n == 299  # the two that are equal to the bit are one
    assert found["twonn"].value == pytest.approx(clean["twonn"].value, rel=0.05)
    assert found["mle"].value == pytest.approx(clean["mle"].value, rel=0.05)
    assert intrinsic_dimensions(np.tile(x, (2, 1)))["twonn"] == intrinsic_dimensions(x)["twonn"]
    lattice = np.stack(np.meshgrid(np.arange(6.0), np.arange(6.0)), -1).reshape(-1, 2)
    assert math.isnan(intrinsic_dimensions(lattice)["twonn"].value)  # every second neighbour is as near as the first


def test_tiny_and_huge_features_are_measured_alike() -> None:
    x, y = drawn(60, 4, 3)
    for scale in (1e-30, 1e30):
        found = measures(x * scale, y)
        for name in ("twonn", "mle", "hoyer", "fisher_ratio", "margin"):
            assert found[name].value == pytest.approx(measures(x, y)[name].value, rel=1e-8), name


def test_sparsity_counts_zeros_and_dead_units() -> None:
    x = np.array([[0.0, 1, 0, 7], [0, 0, 0, 7], [0, 2, 3, 7], [0, 0, 0, 7]], np.float16)
    found = measures(x)
    assert found["zeros"].value == pytest.approx(9 / 16)
    assert found["dead"] == Measured(0.5, n=4, low=pytest.approx(math.nan, nan_ok=True),
                                     high=pytest.approx(math.nan, nan_ok=True),
                                     error=pytest.approx(math.nan, nan_ok=True))  # fmt: skip
    only = measures(np.eye(4))
    assert only["hoyer"].value == pytest.approx(1) and measures(np.ones((4, 4)))["hoyer"].value == pytest.approx(0)
    assert measures(np.zeros((4, 4)))["hoyer"].value == 0


def test_collapsed_classes_are_found_collapsed() -> None:
    simplex = np.linalg.svd(np.eye(4) - 1 / 4)[0][:, :3]  # three dimensions hold it
    y = np.repeat(np.arange(4), 50)
    x = simplex[y] + 1e-3 * np.random.default_rng(0).normal(size=(200, 3))
    found = measures(x, y)
    for name in ("nc1", "nc2_norms", "nc2_angles", "nc3", "nc4", "cdnv", "ncm_error"):
        assert found[name].value < 2e-3, name
    assert found["margin"].value > 0.99
    assert found["fisher_ratio"].value > 1e4


def test_the_subsample_is_stated_and_the_same_each_time() -> None:
    x, _ = drawn(200, 4, 2)
    found = measures(x, subsample=50)
    assert found["twonn"].n == 50 and found["effective_rank"].n == 200
    assert found == measures(x, subsample=50)


def missing(found: dict[str, Measured]) -> set[str]:
    return {name for name, one in found.items() if math.isnan(one.value)}


def test_what_cannot_be_told_is_missing() -> None:
    x, y = drawn(60, 5, 3)
    assert missing(measures(x, y)) == set()
    assert missing(measures(x[:, :1], y)) == {"hoyer"}  # a depth of one feature
    assert missing(measures(x, np.zeros(60, int))) == set(CLASSES)  # one class
    assert missing(measures(x, np.append(y[:-1], 9))) == set(CLASSES)  # a class of one image
    constant = measures(np.full((60, 5), 0.1), y)
    assert missing(constant) == {*CLASSES, "effective_rank", "participation_ratio", "twonn", "mle"}
    assert constant["dead"].value == 1
    wide = np.random.default_rng(0).normal(size=(60, 100))  # more features than images
    assert missing(measures(wide, y)) == {"nc3", "nc4"}
    few = measures(x[:15], y[:15])
    assert missing(few) == {"mle"}
    same = measures(x, np.arange(60) % 2 * 7)  # labels with gaps
    assert missing(same) == set()
    assert missing(measures(x[:1], y[:1])) >= {"effective_rank", "twonn", *CLASSES}


def test_a_constant_feature_changes_nothing_but_sparsity() -> None:
    x, y = drawn(60, 5, 3)
    before, found = measures(x, y), measures(np.column_stack([x, np.full(60, 0.3)]), y)
    for name in set(before) - {"hoyer", "dead"}:
        assert found[name].value == pytest.approx(before[name].value, rel=1e-9), name


def test_class_means_that_are_equal_have_no_collapse() -> None:
    x = np.random.default_rng(0).normal(size=(30, 3))
    y = np.repeat([0, 1], 30)
    found = measures(np.vstack([x, x]), y)
    assert missing(found) == {"nc1", "nc2_norms", "nc2_angles", "nc3", "cdnv"}
    assert found["fisher_ratio"].value == pytest.approx(0, abs=1e-12)


def test_features_that_are_not_finite_are_refused() -> None:
    x, y = drawn(60, 5, 3)
    x[3, 1], x[5, 0] = np.nan, np.inf
    with pytest.raises(UserError, match="found 1 NaN and 1 infinite values in the features of images 0 to 59, expec"):
        geometry(x, y)
    with pytest.raises(UserError, match=r"found features of shape \(0, 5\), expected \[images, features\]"):
        geometry(x[:0], y[:0])


def test_influences_are_summed_as_if_they_came_at_once() -> None:
    values = np.random.default_rng(0).normal(size=100) + 1e6
    found = Influences()
    for part in np.split(values, [3, 50]):
        found.add(part)
    assert found.average().value == pytest.approx(values.mean(), rel=1e-14)
    assert found.average().error == pytest.approx(values.std(ddof=1) / 10, rel=1e-8)
    assert found.measured(2.0, 1.9, 2.05).low == 1.9
