"""The float16 decision: taken over all batches, at the largest number of float16, and never for what is no number."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch

from layerwise.runfile.rounding import SHARE, Float16Check, dtype_of, largest_magnitude


@pytest.mark.parametrize(("largest", "fits"), [(65504.0, True), (-65504.0, True), (65505.0, False), (-1e9, False)])
def test_the_largest_number_of_any_batch_decides(largest: float, fits: bool) -> None:
    check = Float16Check()
    for batch in ([1.0, -2.0], [3.0, largest], [4.0, 5.0], []):
        check.look(torch.tensor(batch))
    assert (check.fits, check.largest) == (fits, abs(largest))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_not_forgotten(bad: float) -> None:
    check = Float16Check()
    for batch in ([1.0], [bad, 1.0], [2.0]):
        check.look(torch.tensor(batch))
    assert not check.fits and not math.isfinite(check.largest)


def test_the_largest_magnitude_is_that_of_either_sign() -> None:
    x = torch.randn(3, 4, 5)
    assert largest_magnitude(x) == largest_magnitude(-x) == x.abs().max()


def test_a_depth_is_in_float16_unless_it_needs_float32() -> None:
    assert [dtype_of(j, frozenset({1})) for j in (0, 1)] == [torch.float16, torch.float32]


def batches(x: torch.Tensor) -> list[torch.Tensor]:
    return list(x.split([5, 300, 1, 94]))


def checked(kind: str, x: torch.Tensor) -> Float16Check:
    check = Float16Check()
    for batch in batches(x):
        check.look(batch)
        check.compare(kind, batch)
    return check


DEVIATION = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
# Each beside a feature that float16 holds; whether float16 loses the other.
FEATURES = {
    "usual": (DEVIATION, False),
    "after relu": (DEVIATION.relu(), False),
    "large": (1e4 * DEVIATION, False),
    "small": (1e-3 * DEVIATION, False),
    "constant": (torch.full((400, 1), 0.1), False),
    "zero": (torch.zeros(400, 1), False),
    "mostly zero": ((DEVIATION > 2).float(), False),
    "tiny": (1e-8 * DEVIATION, True),
    "so tiny that squares are zero": (1e-30 * DEVIATION, True),
    "below the smallest normal number": (3e-6 * DEVIATION, True),
    "far from zero": (100 + 0.1 * DEVIATION, True),
    "nearly constant": (1 + 1e-5 * DEVIATION, True),
    "near the largest": (6e4 + DEVIATION, True),
}


@pytest.mark.parametrize("kind", ["pooled", "class_token", "maps"])
@pytest.mark.parametrize("name", FEATURES)
def test_what_rounding_does_to_a_features_deviation_decides(name: str, kind: str) -> None:
    feature, is_lost = FEATURES[name]
    x = torch.cat([DEVIATION, feature], 1)
    x = x if kind == "class_token" else x[:, :, None, None].expand(-1, -1, 2, 2)
    found = checked(kind, x).loss()
    assert (found is not None) is is_lost
    if found is not None:
        assert found.startswith("features moved by up to ") and found.endswith(" of their deviation")


def test_the_share_is_the_root_mean_square_error_of_the_standardised_feature() -> None:
    x = torch.cat([50 + DEVIATION, -3 + 0.5 * DEVIATION], 1)
    wide = x.double().numpy()
    standardised = [(v - wide.mean(0)) / wide.std(0) for v in (wide, x.half().double().numpy())]
    expected = np.sqrt(((standardised[0] - standardised[1]) ** 2).mean(0)).max()
    check = checked("class_token", x)
    assert check._features["class_token"].moved() == pytest.approx(expected, rel=1e-3)
    assert expected > SHARE


def test_values_beyond_the_range_come_first() -> None:
    assert checked("class_token", 1e6 * DEVIATION).loss() == f"values up to {1e6 * DEVIATION.abs().max():.3g}"


def test_what_ranks_saw_decides_as_if_one_had_seen_it_all() -> None:
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1e-5, 1e-8]) + 0.3
    alone, ranks = Float16Check(), [Float16Check() for _ in range(3)]
    for i, part in enumerate(x.split(100)):
        for check in (alone, *([ranks[0]] if i < 3 else [ranks[2]])):  # the second rank has none
            check.look(part)
            check.compare("pooled", part)
    joint = Float16Check.of_all(pickle.loads(pickle.dumps(ranks)))
    assert (joint.largest, joint.loss()) == (alone.largest, alone.loss())
    assert alone.loss() is not None and ranks[1].loss() is None
