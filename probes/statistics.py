"""Owns the intervals that stand beside a probe's numbers: the spread over the images of a split."""

from __future__ import annotations

from scipy.stats import binomtest

CONFIDENCE = 0.95


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of an accuracy, `correct` of `n` images, both ends in [0, 1].

    It is the spread over test images of one network; it says nothing of the spread over training seeds.
    Source: Wilson 1927; Brown, Cai and DasGupta 2001, section 3.1.1.
    """
    interval = binomtest(correct, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)
