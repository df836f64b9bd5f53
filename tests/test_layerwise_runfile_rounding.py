"""The float16 decision: taken over all batches, at the largest number of float16, and never for what is no number."""

from __future__ import annotations

import math

import pytest
import torch

from layerwise.runfile.rounding import Float16Check, dtype_of, largest_magnitude


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
