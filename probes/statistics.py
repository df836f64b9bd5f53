"""Owns the intervals that stand beside a probe's numbers: the spread over the images of a split."""

from __future__ import annotations

import math

from scipy.stats import norm

CONFIDENCE = 0.95


def wilson_interval(accuracy: float, n: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of an accuracy over n images, both ends in [0, 1].

    It is the spread over images of one network; it says nothing of the spread over training seeds. The accuracy may be
    any share in [0, 1], such as the mean over several probes of one network: it need not be a multiple of 1 / n.
    Source: Wilson 1927; Brown, Cai and DasGupta 2001, section 3.1.1.
    """
    z2 = norm.ppf((1 + CONFIDENCE) / 2) ** 2
    centre = (accuracy + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (accuracy * (1 - accuracy) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)
